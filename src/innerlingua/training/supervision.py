"""Refuses rows that nothing is learned from: TRL's loss of a batch of them is 0, and so is its gradient.

Rows that `tokenize_pairs` makes have been looked at there; these may come from elsewhere.
"""

from __future__ import annotations

from datasets import Dataset

from innerlingua.data.encode import IGNORED
from innerlingua.data.tokenised import row_name, token_counts
from innerlingua.errors import DataError

__all__ = ["refuse_unsupervised"]

_ROWS_AT_ONCE = 256


def refuse_unsupervised(dataset: Dataset, name: str) -> None:
    """Raise `DataError` for the first row of the tokenised `dataset`, called `name`, without a supervised token.

    The first label of a row counts for nothing: its token is predicted from nothing. So rows are looked at before they
    are packed. Without labels every token is one, so there a row needs two tokens.
    """
    if "labels" not in dataset.column_names:
        single = token_counts(dataset, "input_ids") < 2
        if single.any():
            row = row_name(dataset, int(single.argmax()), name)
            raise DataError(f"{row} has no token to train on: its only one is predicted from nothing. Leave it out")
        return
    position = 0
    for batch in dataset.select_columns(["labels"]).iter(batch_size=_ROWS_AT_ONCE):
        for place, labels in enumerate(batch["labels"]):
            if all(label == IGNORED for label in labels[1:]):
                raise DataError(
                    f"{row_name(dataset, position + place, name)} has no token to train on: after its first token, "
                    f"which is predicted from nothing, every label is {IGNORED}. Leave it out, or give it labels"
                )
        position += len(batch["labels"])
