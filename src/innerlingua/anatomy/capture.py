"""Capture of the routing of a forward pass, pooled while it happens.

For every token the router of a MoE layer gives a distribution over its experts; what is aligned and reported is the
mean of these distributions over a segment of tokens, a whole row unless told otherwise. `hooks.py` says how it is
taken, also under gradient checkpointing; `captured.py` is what comes out.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from innerlingua.anatomy.captured import RoutingCapture
from innerlingua.anatomy.ending import ending_with_the_last
from innerlingua.anatomy.hooks import CaptureHooks
from innerlingua.anatomy.layers import MoELayer, find_moe_layers
from innerlingua.anatomy.scores import check_score
from innerlingua.anatomy.selection import select_layers
from innerlingua.anatomy.sharding import is_sharded
from innerlingua.errors import ModelError

__all__ = ["RoutingTap", "capture_routing"]


@contextmanager
def capture_routing(
    model: nn.Module,
    layers: Sequence[int] | None = None,
    *,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    per_token: bool = False,
    score: str | None = None,
) -> Iterator[RoutingCapture]:
    """Capture the routing of a forward pass of `model` inside the context; of several, the last (`RoutingCapture`).

    ```python
    with capture_routing(model, layers=[7, 8, 9]) as routing:
        model(**batch)
    routing.pooled  # (batch, 3, experts)
    ```

    Args:
        model: a transformers MoE model, bare or wrapped (PEFT, DDP, FSDP2). Its backbone alone may be called inside,
        too.
        layers: decoder-layer indices; all MoE layers by default.
        mask: (batch, tokens), the tokens to pool over. By default the batch's own `attention_mask`, and without that
        all.
        segments: (batch, tokens) integers, the segment of each token, -1 for none; ids run from 0 to S - 1 without a
            gap and each lies within one row. Then `pooled` is (S, layers, experts).
        per_token: keep the routing of every token as well. Memory then grows with tokens x layers x experts.
        score: routing distribution, by default that of the family (`softmax` or `sigmoid_normalised`).

    Raises `ModelError` for a model without MoE layers, layers that do not exist, a mask or segments that do not fit
    the batch, and packed rows (`position_ids` that start again inside a row) without segments. Warns on leaving when
    a pass was replaced by the next before it was read.
    """
    with RoutingTap(model, layers, score=score).capture(mask=mask, segments=segments, per_token=per_token) as routing:
        yield routing
    if routing.lost:
        warnings.warn(
            f"{routing.passes} forward passes ran inside one capture_routing, and {routing.lost} were replaced by the "
            "next before they were read: a capture holds the last pass. Give each pass a capture of its own; "
            "for generated text, capture one pass over the whole text",
            stacklevel=3,
        )


class RoutingTap:
    """The places in one model where routing is captured; makes any number of captures, one after the other or nested.

    Finding the routers walks the whole model, so whoever captures at every training step keeps one tap. Arguments and
    errors as for `capture_routing`.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int] | None = None, *, score: str | None = None) -> None:
        self.layers: list[MoELayer] = select_layers(find_moe_layers(model), layers)
        self.score = check_score(score)
        routers = {id(layer.router) for layer in self.layers}
        inside = [
            module
            for module in model.modules()
            if module is not model
            and isinstance(module, PreTrainedModel)
            and any(id(inner) in routers for inner in module.modules())
        ]
        self._entries = [model, *inside]
        self.models: list[PreTrainedModel] = [m for m in (model, *inside) if isinstance(m, PreTrainedModel)]

    @property
    def root(self) -> nn.Module:
        """The model that was given, with its wrappers."""
        return self._entries[0]

    def run(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None = None,
        *,
        experts: bool = False,
    ) -> Tensor | None:
        """One forward pass over a batch, (rows, tokens) each, for its routing alone.

        Texts that lie end to end in one row are told apart by `position_ids` that start again, and have no mask.

        The backbone runs without the language-model head, and no further than the last router of this tap: what comes
        after it changes nothing of what is captured. With `experts` the experts of the last layer run, too, for whoever
        looks at what they are given.

        Where FSDP has sharded the parameters only a pass that begins at the root gathers them, so there the whole model
        runs, with its head on one position of each row. What it puts out is then returned: FSDP gathers a layer for the
        backward pass when a gradient reaches the layer's output, so a loss on the routing alone must include it, times
        zero.
        """
        batch: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        if position_ids is not None:
            batch["position_ids"] = position_ids
        if not is_sharded(self.root):
            with ending_with_the_last(self.layers, experts=experts):
                self.layers[0].backbone(**batch)
            return None
        if "logits_to_keep" in inspect.signature(type(self.models[0]).forward).parameters:
            batch["logits_to_keep"] = 1
        output: Tensor = self.root(**batch)[0]
        return output

    @contextmanager
    def capture(
        self,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        per_token: bool = False,
        detach: bool = False,
    ) -> Iterator[RoutingCapture]:
        """As `capture_routing`. With `detach` the captured routing carries no gradient, whatever the pass does."""
        if mask is not None and segments is not None:
            raise ModelError("give `mask` or `segments`, not both: segments say by themselves which tokens count")
        routing = RoutingCapture([layer.index for layer in self.layers], keeps_tokens=per_token)
        hooks = CaptureHooks(routing, mask=mask, segments=segments, detach=detach)
        hooks.install(self._entries, self.layers, self.score)
        try:
            yield routing
        finally:
            hooks.close()
