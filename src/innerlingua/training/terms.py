"""What the trainer asks of a loss term.

The trainer knows no method: it captures, adds and logs whatever terms it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["Term"]


@runtime_checkable
class Term(Protocol):
    """One named, weighted part of the training loss: a sum over pairs, which the trainer alone divides and weighs.

    `columns` are the columns of the tokenised dataset that the term reads; the trainer refuses a dataset that lacks
    one. With a `weight` of 0 the term is measured without gradient and logged.
    """

    name: str
    weight: float
    columns: tuple[str, ...]

    def check(self, model: nn.Module) -> None:
        """Raise before the first step when the term cannot act on `model`.

        Every process is asked that has the weights, inside the automatic casting that the passes will have.
        """

    def collate(self, rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, Tensor]:
        """The term's entries of a batch of tokenised rows that the trainer pads, on the right, to `width` tokens.

        Keys: `pair_index` (pairs,), the captured segment of each pair (the row in the batch, when rows are the
        segments), always there and empty when no row has a pair; `prior` (pairs, layers, experts); `segments` (rows,
        width), the segment of each token; and of live anchors `anchor_input_ids`, `anchor_segments` and
        `anchor_attention_mask`, each (anchors, tokens). None of them reaches the model's forward.

        Where the trainer lays rows end to end in place of padding, it does the same with `segments` (which are then
        always there) and the anchors, which come with `anchor_position_ids` in place of their mask, all of them (1,
        tokens).
        """

    def capture(self, model: nn.Module, batch: dict[str, Tensor]) -> AbstractContextManager[Any]:
        """A context around the forward pass of the fine-tuning loss; what it gives is handed to `loss`.

        It is entered inside the automatic casting of the training. A forward pass of its own must be made by every
        process alike, also where the batch has no pair: the parameters may be sharded.
        """

    def loss(self, captured: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """The sum over the pairs of this batch, a scalar with gradient, and how many pairs there are."""
