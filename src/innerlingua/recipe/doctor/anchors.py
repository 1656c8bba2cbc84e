"""The prior of a recipe, looked at and not made: stored and right, stored and stale, or missing.

Where no stored prior can be used, the terms are given `AnchorsInMemory` in its place: it knows all anchors by name and
computes the routing of those that are asked for, with the same pass as a stored prior, adapters switched off. Nothing
of it is written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn

from innerlingua.anatomy import RoutingTap, compute_type, mixed_precision
from innerlingua.recipe.doctor.report import Prior, PriorState
from innerlingua.recipe.prior import Ingredients
from innerlingua.recipe.schema import AlignmentSection
from innerlingua.routing import RoutingPrior
from innerlingua.routing.pooling import PooledText, pad_token_id, pool_texts
from innerlingua.routing.prior import anchor_texts

__all__ = ["AnchorsInMemory", "PriorState", "prior_facts"]

_FLOAT32 = 4


class AnchorsInMemory(RoutingPrior):
    """A prior that holds the anchors asked for since `open_for`, and zeros in place of all others.

    The trainer's own checks before the first step touch every row; they look at names and shapes alone.
    """

    def __init__(self, section: AlignmentSection, given: Ingredients) -> None:
        assert isinstance(section.layers, list), "resolved when the model was loaded"
        assert section.score is not None, "resolved when the model was loaded"
        self._given = given
        self._tap = RoutingTap(given.model, section.layers, score=section.score)
        self._pooled_texts = {text.name: text for text in anchor_texts(given.anchors, pooling=section.pooling)}
        with mixed_precision(given.args.mixed_precision, given.args.device):
            compute = compute_type(given.model)
        super().__init__(
            {
                "ids": list(self._pooled_texts),
                "layers": [layer.index for layer in self._tap.layers],
                "pooling": section.pooling,
                "score": section.score,
                "texts": ["" for _ in self._pooled_texts],
                "fingerprint": {"compute": compute, "weights": {}},
            }
        )
        self._computed: dict[str, Tensor] = {}
        self._trained: nn.Module | None = None
        self.seconds = 0.0

    def open_for(self, trained: nn.Module) -> None:
        """From here on anchors are computed. `trained` is the trainer's model, whose adapters are switched off."""
        self._trained = trained

    @property
    def computed(self) -> int:
        """How many anchors went through the model."""
        return len(self._computed)

    def rows(self, ids: Sequence[str]) -> Tensor:
        """As `RoutingPrior.rows`, computed when first asked for."""
        super_missing = [name for name in ids if name not in self]
        if super_missing:
            return super().rows(ids)  # raises, and says which
        missing = [name for name in dict.fromkeys(ids) if name not in self._computed]
        if missing and self._trained is not None:
            self._compute(self._trained, [self._pooled_texts[name] for name in missing])
        nothing = torch.zeros((len(self.layers), self._tap.layers[0].num_experts))
        return torch.stack([self._computed.get(name, nothing) for name in ids])

    def holds(self, name: str, token_ids: Sequence[int], segments: Sequence[int]) -> bool:
        """Its entries are those of the rows themselves."""
        return name in self

    def _compute(self, trained: nn.Module, texts: list[PooledText]) -> None:
        args = self._given.args
        started = time.perf_counter()
        devices = [args.device] if args.device.type == "cuda" else []
        with ExitStack() as contexts:
            contexts.enter_context(torch.random.fork_rng(devices=devices))
            contexts.enter_context(mixed_precision(args.mixed_precision, args.device))
            if isinstance(trained, PeftModel):
                contexts.enter_context(trained.disable_adapter())
            pooled = pool_texts(
                self._tap,
                texts,
                batch_size=args.per_device_eval_batch_size,
                pad_token_id=pad_token_id(self._given.tokenizer),
            )
            for place, value in pooled:
                self._computed[texts[place].name] = value[0]
        self.seconds += time.perf_counter() - started


def prior_facts(state: PriorState, folder: Path, prior: RoutingPrior | None, experts: int) -> Prior:
    """The section of the report: the `state` of the prior in `folder`, and what making it costs."""
    if prior is None:
        return Prior(state, str(folder), anchors=0, bytes=0)
    sampled = prior.computed if isinstance(prior, AnchorsInMemory) else 0
    return Prior(
        state=state,
        folder=str(folder),
        anchors=len(prior),
        bytes=len(prior) * len(prior.layers) * experts * _FLOAT32,
        sampled=sampled,
        seconds=prior.seconds * len(prior) / sampled if isinstance(prior, AnchorsInMemory) and sampled else None,
    )
