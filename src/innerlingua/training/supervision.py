"""Refuses rows that nothing is learned from: TRL's loss of a batch of them is 0, and so is its gradient.

Rows that `tokenize_pairs` makes have been looked at there; these may come from elsewhere.
"""

from __future__ import annotations

from datasets import Dataset

from innerlingua.data.encode import IGNORED
from innerlingua.errors import DataError

__all__ = ["refuse_unsupervised"]

_ROWS_AT_ONCE = 256


def refuse_unsupervised(dataset: Dataset, name: str) -> None:
    """Raise `DataError` for the first row of the tokenised `dataset`, called `name`, without a supervised token.

    The first label of a row counts for nothing: its token is predicted from nothing. So rows are looked at before they
    are packed. A dataset without labels passes.
    """
    if "labels" not in dataset.column_names:
        return
    columns = [column for column in ("id", "labels") if column in dataset.column_names]
    position = 0
    for batch in dataset.select_columns(columns).iter(batch_size=_ROWS_AT_ONCE):
        for place, labels in enumerate(batch["labels"]):
            if all(label == IGNORED for label in labels[1:]):
                known = f" (id {batch['id'][place]!r})" if "id" in batch else ""
                raise DataError(
                    f"row {position + place}{known} of {name} has no token to train on: every label is {IGNORED}. "
                    "Leave it out, or give it labels"
                )
        position += len(batch["labels"])
