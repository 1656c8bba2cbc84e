"""Capture of the routing of a forward pass, pooled while it happens.

For every token the router of a MoE layer gives a distribution over its experts; what is aligned and reported is the
mean of these distributions over a segment of tokens:

    pooled[s, l, :] = sum_t weight[s, t] * p[l, t, :]      with weight[s, t] = 1 / |s| for the tokens t of segment s

The mean is taken inside a forward hook on the router, in float32, so that what stays is (segments, layers, experts) and
not (tokens, layers, experts). Whole sequences, sequences in a packed row and aligned spans are all segments: one matrix
product per layer, (rows, slots, tokens) x (rows, tokens, experts), where a slot is the place of a segment in its row.

Gradient checkpointing. A checkpointed layer runs again during the backward pass, after the context has been left, and
torch demands that it then saves the same tensors. The hook must therefore do the same work in that second run. So the
hooks of a
pass stay, dormant, until the autograd graph of its routers is freed: they act when a layer that belongs to the pass is
recomputed, which is told by the memory of the layer's input (torch keeps that tensor for the recomputation and hands
it over again), and the result of the second run is dropped. Without checkpointing nothing stays.

Shape letters: B rows, T tokens of a row, S segments, K slots (most segments in one row), L layers, E experts.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from innerlingua.anatomy.layers import MoELayer, find_moe_layers, on_routing
from innerlingua.anatomy.scores import check_score, routing_distribution
from innerlingua.anatomy.segments import call_arguments, pooling_weights
from innerlingua.anatomy.selection import select_layers
from innerlingua.anatomy.sharding import is_sharded
from innerlingua.errors import ModelError

__all__ = ["RoutingCapture", "RoutingTap", "capture_routing"]


@dataclass
class _Result:
    """What one forward pass gave, by decoder layer: (segments, experts), and (batch, tokens, experts) when kept."""

    pooled: dict[int, Tensor] = field(default_factory=dict)
    per_token: dict[int, Tensor] = field(default_factory=dict)


class RoutingCapture:
    """What was captured: the routing of the last complete forward pass inside the context.

    One capture holds one pass. A second one replaces the first as soon as it is complete (a pass that raises replaces
    nothing), so read a pass before the next, or give each its own capture. `generate` makes one pass for every new
    token: to see the routing of a generated text, capture one pass over the whole of it.

    `layers` are decoder-layer indices, in the order of the layer dimension. `passes` counts the complete passes.
    `pooled` is (segments, layers, experts), one segment per row unless segments were given; `per_token` is (batch,
    tokens, layers, experts). Both are float32 and carry a gradient when the pass did. Reading them before a pass, or
    `per_token` when it was not asked for, raises `ModelError`.
    """

    def __init__(self, layers: Sequence[int], *, keeps_tokens: bool) -> None:
        self.layers = list(layers)
        self.passes = 0
        self._keeps_tokens = keeps_tokens
        self._result = _Result()
        self._unread = False
        self._lost = 0  # passes that were replaced before anything of them was read

    def __repr__(self) -> str:
        if not self.passes:
            return f"RoutingCapture(layers={self.layers}, no complete forward pass yet)"
        first = next(iter(self._result.pooled.values()), None)
        shape = "" if first is None else f", segments={first.shape[0]}, experts={first.shape[1]}"
        held = "" if self.passes == 1 else ", the last is held"
        return f"RoutingCapture(layers={self.layers}{shape}, passes={self.passes}{held})"

    @property
    def pooled(self) -> Tensor:
        """The mean routing distribution of each segment: (segments, layers, experts), float32."""
        return self._stack(self._read().pooled, dim=1)

    @property
    def per_token(self) -> Tensor:
        """The routing distribution of each token: (batch, tokens, layers, experts), float32."""
        if not self._keeps_tokens:
            raise ModelError("the routing of single tokens was not kept: ask for it with per_token=True")
        return self._stack(self._read().per_token, dim=2)

    def of_layer(self, layer: int) -> Tensor:
        """The part of `pooled` at one decoder layer, (segments, experts); it tells whether a gradient reaches just
        that layer."""
        pooled = self._read().pooled
        if layer not in pooled:
            raise ModelError(f"no routing was captured at decoder layer {layer}: captured are {sorted(pooled)}")
        return pooled[layer]

    def _keep(self, result: _Result) -> None:
        self._lost += self._unread
        self.passes, self._unread, self._result = self.passes + 1, True, result

    def _read(self) -> _Result:
        self._unread = False
        return self._result

    def _stack(self, parts: Mapping[int, Tensor], dim: int) -> Tensor:
        missing = [layer for layer in self.layers if layer not in parts]
        if missing:
            raise ModelError(
                f"no routing was captured at decoder layers {missing}: no complete forward pass of the model ran "
                "inside `capture_routing`"
            )
        experts = {layer: parts[layer].shape[-1] for layer in self.layers}
        if len(set(experts.values())) > 1:
            raise ModelError(f"the layers differ in their number of experts ({experts}): capture them one by one")
        first = parts[self.layers[0]].device
        return torch.stack([parts[layer].to(first) for layer in self.layers], dim=dim)


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
    if routing._lost:
        warnings.warn(
            f"{routing.passes} forward passes ran inside one capture_routing, and {routing._lost} were replaced by the "
            "next before they were read: a capture holds the last pass. Give each pass a capture of its own; "
            "for generated text, capture one pass over the whole text",
            stacklevel=3,
        )


@dataclass
class _Pass:
    """One forward pass: how its tokens are pooled, and how its layers are known again when they are recomputed."""

    weight_BKT: Tensor
    place_S: Tensor | None  # flat place (row x slots + slot) of each segment; None for one segment per row
    inputs: dict[int, tuple[int, Any]] = field(default_factory=dict)  # decoder layer -> where its input is

    def note(self, layer: int, hidden_states: Tensor) -> None:
        storage = StorageWeakRef(hidden_states.untyped_storage())  # type: ignore[no-untyped-call]  # torch's own is not
        self.inputs[layer] = (hidden_states.data_ptr(), storage)

    def had(self, layer: int, hidden_states: Tensor) -> bool:
        """Whether this was the input of `layer` in this pass. An address alone may have been given to another tensor
        since."""
        if layer not in self.inputs:
            return False
        address, storage = self.inputs[layer]
        return address == hidden_states.data_ptr() and not storage.expired()


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
        self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None = None
    ) -> Tensor | None:
        """One forward pass over a batch, (rows, tokens) each, for its routing alone.

        Texts that lie end to end in one row are told apart by `position_ids` that start again, and have no mask.

        The backbone runs without the language-model head, and no further than the last router of this tap: what comes
        after it changes nothing of what is captured. Where FSDP has sharded the parameters only a pass that begins
        at the root gathers them, so there the whole model runs, with its head on one position of each row. What it
        puts out is then returned: FSDP gathers a layer for the backward pass when a gradient reaches the layer's
        output, so a loss on the routing alone must include it, times zero.
        """
        batch: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        if position_ids is not None:
            batch["position_ids"] = position_ids
        if not is_sharded(self.root):
            with self._ending_with_the_last():
                self.layers[0].backbone(**batch)
            return None
        if "logits_to_keep" in inspect.signature(type(self.models[0]).forward).parameters:
            batch["logits_to_keep"] = 1
        output: Tensor = self.root(**batch)[0]
        return output

    @contextmanager
    def _ending_with_the_last(self) -> Iterator[None]:
        """Leave the pass inside when the last router of this tap has run.

        With a gradient only where the next layer would begin: a checkpointed layer that was left in its middle could
        not be recomputed.
        """
        # DeepSpeed ZeRO-3 keeps account of the modules of a pass from beginning to end.
        partitioned = any(hasattr(parameter, "ds_id") for parameter in self.layers[0].backbone.parameters())
        handles: list[RemovableHandle] = []
        if not partitioned:
            last = max(self.layers, key=lambda layer: layer.index)
            if not torch.is_grad_enabled():
                handles = on_routing(last, _end_the_pass)  # after the hooks of a capture, which is there already
            elif (following := _layer_after(last)) is not None:
                handles = [following.register_forward_pre_hook(_end_the_pass)]
        try:
            yield
        except _PassIsDone:
            pass
        finally:
            for handle in handles:
                handle.remove()

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
        session = _Session(routing, mask=mask, segments=segments, detach=detach)
        session.install(self._entries, self.layers, self.score)
        try:
            yield routing
        finally:
            session.close()


class _Session:
    """The hooks of one context. Holds results only while the context is open, or the graph could never be freed."""

    def __init__(self, routing: RoutingCapture, *, mask: Tensor | None, segments: Tensor | None, detach: bool) -> None:
        self._routing: RoutingCapture | None = routing
        self._mask = mask
        self._segments = segments
        self._detach = detach
        self._running: tuple[nn.Module, _Pass, _Result] | None = None
        self._recomputable: dict[int, _Pass] = {}  # lease id -> pass
        self._recomputed: _Pass | None = None
        self._handles: list[RemovableHandle] = []
        self._leases: dict[int, _Lease] = {}

    def install(self, entries: Sequence[nn.Module], layers: Sequence[MoELayer], score: str | None) -> None:
        for entry in entries:
            self._handles.append(entry.register_forward_pre_hook(self._begin, with_kwargs=True))
            self._handles.append(entry.register_forward_hook(self._end, always_call=True))
        for layer in layers:
            hook = _InputHook(self, layer)
            self._handles.append(layer.decoder_layer.register_forward_pre_hook(hook, with_kwargs=True))
            # A checkpointed layer may be run again by its `forward` alone, past its own hooks but not past its
            # children's.
            for child in _called_children(layer.decoder_layer):
                self._handles.append(child.register_forward_pre_hook(hook, with_kwargs=True))
            self._handles += on_routing(layer, _RouterHook(self, layer, score or layer.score))

    def close(self) -> None:
        self._routing = None
        self._running = None
        self._mask = self._segments = None
        self._leases.clear()  # from here on the autograd graph alone holds them
        self._remove_when_idle()

    def _remove_when_idle(self) -> None:
        if self._routing is None and not self._recomputable:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()

    def release(self, lease: int) -> None:
        self._recomputable.pop(lease, None)
        self._remove_when_idle()

    # -- one forward pass ---------------------------------------------------------------------------------------------

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._running is not None or self._routing is None or _in_backward():
            return
        inputs = call_arguments(module, args, kwargs)
        if inputs is None:
            return  # a wrapper that hides its arguments; the model inside is an entry, too
        weight_BKT, place_S = pooling_weights(inputs, mask=self._mask, segments=self._segments)
        self._running = (module, _Pass(weight_BKT, place_S), _Result())

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._running is None or self._running[0] is not module:
            return
        result, self._running = self._running[2], None
        if self._routing is None:
            return
        # No output: the pass raised, or it was left because what a tap wanted of it is known.
        left = isinstance(sys.exception(), _PassIsDone) and set(self._routing.layers) <= set(result.pooled)
        if output is not None or left:
            self._routing._keep(result)

    def note_input(self, layer: MoELayer, module: nn.Module, hidden_states: Tensor) -> None:
        if _in_backward():
            for candidate in self._recomputable.values():
                if candidate.had(layer.index, hidden_states):
                    self._recomputed = candidate
        elif self._running is not None and module is layer.decoder_layer:
            self._running[1].note(layer.index, hidden_states)

    def route(self, layer: MoELayer, score: str, logits: Tensor) -> None:
        if _in_backward():
            recomputed, self._recomputed = self._recomputed, None
            if recomputed is not None:
                self._pool(layer, score, logits, recomputed)
            return
        if self._running is None or self._routing is None:
            return
        _, current, result = self._running
        pooled, tokens = self._pool(layer, score, logits, current)
        result.pooled[layer.index] = pooled
        if self._routing._keeps_tokens:
            result.per_token[layer.index] = tokens
        if pooled.grad_fn is not None and logits.grad_fn is not None and _saved_tensors_are_hooked():
            if id(current) not in self._leases:
                self._leases[id(current)] = _Lease(self, id(current))
            self._recomputable[id(current)] = current
            # On the logits and not on the pooled routing: the layer is recomputed for the model's own loss, too, also
            # when the pooled routing is not used or was dropped.
            metadata: dict[Any, Any] = logits.grad_fn.metadata  # type: ignore[assignment]  # torch calls it a method
            metadata[("innerlingua", id(current))] = self._leases[id(current)]

    def _pool(self, layer: MoELayer, score: str, logits: Tensor, current: _Pass) -> tuple[Tensor, Tensor]:
        if self._detach:
            logits = logits.detach()
        weight_BKT = current.weight_BKT.to(logits.device)
        rows, slots, tokens = weight_BKT.shape
        if logits.numel() != rows * tokens * layer.num_experts:
            raise ModelError(
                f"the router {layer.name} gave logits of shape {tuple(logits.shape)}, but the batch has {rows} rows of "
                f"{tokens} tokens and the layer {layer.num_experts} experts"
            )
        # Autocast would take the product in bfloat16.
        with torch.autocast(logits.device.type, enabled=False):
            p_BTE = routing_distribution(logits, score).view(rows, tokens, layer.num_experts)
            pooled_BKE = torch.bmm(weight_BKT, p_BTE)
        pooled_SE = pooled_BKE.view(rows * slots, layer.num_experts)
        if current.place_S is not None:
            pooled_SE = pooled_SE.index_select(0, current.place_S.to(logits.device))
        return pooled_SE, p_BTE


class _PassIsDone(Exception):  # noqa: N818  # no error
    """Leaves a forward pass whose routing is known."""


def _end_the_pass(*_: Any) -> None:
    raise _PassIsDone


def _layer_after(layer: MoELayer) -> nn.Module | None:
    """The decoder layer that runs next after `layer`, where both stand in one list; None for the last one."""
    for module in layer.backbone.modules():
        if isinstance(module, nn.ModuleList):
            places = [place for place, child in enumerate(module) if child is layer.decoder_layer]
            if places:
                return module[places[0] + 1] if places[0] + 1 < len(module) else None
    return None


class _Lease:
    """Hangs on the autograd graph of a pass; when the graph is freed, no layer of it can be recomputed any more."""

    def __init__(self, session: _Session, key: int) -> None:
        self._session = session
        self._key = key

    def __del__(self) -> None:
        self._session.release(self._key)


class _InputHook:
    def __init__(self, session: _Session, layer: MoELayer) -> None:
        self._session = session
        self._layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is self._layer.decoder_layer:
            given = [args[0] if args else kwargs.get("hidden_states")]
        else:  # the layer's input may be any argument of its first part
            given = [*args, *kwargs.values()]
        for value in given:
            if isinstance(value, Tensor):
                self._session.note_input(self._layer, module, value)


class _RouterHook:
    def __init__(self, session: _Session, layer: MoELayer, score: str) -> None:
        self._session = session
        self._layer = layer
        self._score = score

    def __call__(self, logits: Tensor, output: Any) -> None:
        self._session.route(self._layer, self._score, logits)


def _called_children(layer: nn.Module) -> Iterator[nn.Module]:
    """The parts that a layer calls: its children, and in place of a list or a dict of modules what it holds."""
    for child in layer.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from child.children()
        else:
            yield child


def _in_backward() -> bool:
    """Whether autograd is running a backward pass on this thread: then a forward hook means recomputation."""
    return bool(torch._C._current_graph_task_id() != -1)


def _saved_tensors_are_hooked() -> bool:
    """Whether what is saved for backward goes through hooks, as inside a checkpointed region."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
