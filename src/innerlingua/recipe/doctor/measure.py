"""What only running shows: the losses and their gradients, the activations, the seconds. Of a trainer that is ready.

Memory is that of a training at most: one set of gradients, no states of an optimiser, one micro-batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from innerlingua.errors import RecipeError
from innerlingua.recipe.batches import NO_STEP
from innerlingua.recipe.doctor.losses import WatchedTerm, first_step, pieces, run_micro_batch
from innerlingua.recipe.doctor.memory import peak_of
from innerlingua.recipe.doctor.prepared import Prepared
from innerlingua.recipe.doctor.report import Batch, Losses
from innerlingua.training.collate import rows_in, split_batch

__all__ = ["Measures", "Watch", "measure"]


class Watch(Protocol):
    """Who is told how far an examination is."""

    def stage(self, title: str, total: int = 0) -> None:
        """A new part begins; `total` is how many pieces of work it has, 0 for one that cannot be counted."""

    def advance(self) -> None:
        """One piece of work is done."""


@dataclass(frozen=True)
class Measures:
    """The losses, and the micro-batches of the shortest, the longest and the first rows. `out_of_memory` is what the
    device said when it could not hold one of them; what came after is None or empty."""

    losses: Losses | None = None
    least: Batch | None = None
    most: Batch | None = None
    seconds: Sequence[float] = ()
    out_of_memory: torch.OutOfMemoryError | None = None


def measure(prepared: Prepared, terms: Sequence[WatchedTerm], watch: Watch) -> Measures:
    """Run the shortest and the longest micro-batch, the first step, and each piece of the loss.

    Raises what a training would raise at its first step, and `RecipeError` for a training of no step.
    """
    plan, trainer = prepared.plan, prepared.trainer
    if plan.micro_batches_of_an_epoch == 0 or plan.steps == 0:
        raise RecipeError(NO_STEP)
    accumulation = min(trainer.args.gradient_accumulation_steps, plan.micro_batches_of_an_epoch)
    watch.stage("measuring: forward and backward passes", 4 + accumulation + 2 + len(terms))
    found = Measures()
    try:
        order = _by_length(prepared, terms)
        size = trainer.args.train_batch_size
        least = _extreme(prepared, order[:size], watch)
        found = Measures(least=least)
        most = _extreme(prepared, order[-size:], watch)
        found = Measures(least=least, most=most)
        step, batches, seconds = first_step(prepared, advance=watch.advance)
        batch = _with_pairs(batches, terms)
        parts = pieces(prepared, terms, batch, advance=watch.advance)
        losses = Losses(step, rows_in(batch), batch["input_ids"].numel(), parts)
        return Measures(losses, least, most, seconds)
    except torch.OutOfMemoryError as error:
        prepared.clear_gradients()
        return Measures(least=found.least, most=found.most, out_of_memory=error)


def _by_length(prepared: Prepared, terms: Sequence[WatchedTerm]) -> list[int]:
    """Places of the rows that are trained on, shortest first: by the longer side where both go through the model."""
    rows = prepared.trainer.train_dataset
    columns = ["input_ids", *({"anchor_input_ids"} & {name for term in terms for name in term.columns})]
    sizes = [max(_tokens(row[column]) for column in columns) for row in rows.select_columns(columns).with_format(None)]
    return [int(place) for place in np.argsort(sizes, kind="stable")]


def _tokens(side: Sequence[Any] | None) -> int:
    """The tokens of one side of a row, or of the rows of a packed one."""
    return sum(len(part or ()) if isinstance(part, list | None) else 1 for part in side or ())


def _extreme(prepared: Prepared, places: Sequence[int], watch: Watch) -> Batch:
    trainer = prepared.trainer
    batch = trainer.data_collator([trainer.train_dataset[place] for place in places])
    seconds = run_micro_batch(prepared, batch)
    watch.advance()
    peak = peak_of(prepared, lambda: run_micro_batch(prepared, batch))
    watch.advance()
    return Batch(rows=rows_in(batch), padded_tokens=batch["input_ids"].numel(), bytes=peak, seconds=seconds)


def _with_pairs(batches: Sequence[dict[str, Any]], terms: Sequence[WatchedTerm]) -> dict[str, Any]:
    """The first micro-batch in which every term has a pair; the first one when there is none."""
    for batch in batches:
        _, entries = split_batch(batch, terms)
        if all(entry["pair_index"].numel() for entry in entries):
            return batch
    return batches[0]
