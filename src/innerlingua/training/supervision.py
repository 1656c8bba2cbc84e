"""Refuses rows that nothing is learned from: TRL's loss of a batch of them is 0, and so is its gradient.

Rows that `tokenize_pairs` makes have been looked at there; these may come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from innerlingua.data.encode import IGNORED
from innerlingua.errors import DataError

__all__ = ["refuse_unsupervised"]

_ROWS_AT_ONCE = 256


def refuse_unsupervised(datasets: Mapping[str, Any]) -> None:
    """Raise `DataError` that names the first row of each tokenised dataset (by its name) without a supervised token.

    The first label of a row counts for nothing: its token is predicted from nothing.
    """
    for name, dataset in datasets.items():
        if isinstance(dataset, Mapping):  # several evaluation sets by name
            refuse_unsupervised({f"{name}[{inner!r}]": rows for inner, rows in dataset.items()})
        if not isinstance(dataset, Dataset) or "labels" not in dataset.column_names:
            continue
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
