"""Rows that were tokenised elsewhere, looked at before they are used: lists of token ids, none empty, each with as many
labels.

What does not fit is found nowhere else. Labels of other lengths would be padded each for itself, or, laid end to end,
come to lie under the tokens of another row. Everything is read from Arrow's columns: a million rows take a second.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from innerlingua.data.encode import IGNORED
from innerlingua.data.rows import PREFIX
from innerlingua.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray

__all__ = ["MASKS", "labels_from_masks", "refuse_misfits", "row_name", "token_counts"]

MASKS = ("completion_mask", "assistant_masks")
"""Columns that TRL makes labels of where rows have none: 1 for a token that counts in the loss."""

_PER_TOKEN = ("labels", "span_ids", *MASKS)
_AT_ONCE = 10_000
_REMEDY = "or give rows of text, which are tokenised here (tokenize_pairs)"


def token_counts(rows: Dataset, column: str) -> NDArray[np.int64]:
    """How many elements the list of each row has in `column`, (rows,); -1 where the row has null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column_of_all = rows.data.column(column)
    if pa.types.is_null(column_of_all.type):
        return np.full(len(rows), -1)
    counts: NDArray[np.int64] = pc.list_value_length(column_of_all).cast(pa.int64()).fill_null(-1).to_numpy()
    # Selected or shuffled rows are places in the stored ones; datasets would gather them one by one, in seconds.
    return counts if rows._indices is None else counts[rows._indices.column(0).to_numpy()]


def refuse_misfits(rows: Dataset, name: str, columns: Collection[str] = ("labels",), *, anchors: bool = True) -> None:
    """Raise `DataError` for the first row of the tokenised `rows`, called `name`, whose tokens cannot be used.

    The target must have tokens, an anchor that is there, too; and each of `columns` (labels, masks, spans) must have
    one value for each token of its side. Columns that the rows lack, and all others, are passed over; without `anchors`
    so is the anchor's side.
    """
    for prefix, side in (("", "target"), (PREFIX, "anchor")):
        ids = f"{prefix}input_ids"
        if ids not in rows.column_names or (prefix and not anchors):
            continue
        beside = [prefix + column for column in _PER_TOKEN if prefix + column in columns]
        beside = [column for column in beside if column in rows.column_names]
        for column in (ids, *beside):
            _refuse_type(rows, column, name)
        tokens = token_counts(rows, ids)
        empty = tokens == 0 if prefix else tokens <= 0
        if empty.any():
            row = row_name(rows, int(empty.argmax()), name)
            if prefix:
                raise DataError(f"{row} has an anchor without tokens ({ids} is []): a row without an anchor has None")
            raise DataError(f"{row} has no tokens ({ids} is empty or None): leave it out, {_REMEDY}")
        for column in beside:
            values = token_counts(rows, column)
            unlike = (values != tokens) & (tokens >= 0)
            if unlike.any():
                place = int(unlike.argmax())
                raise DataError(
                    f"{row_name(rows, place, name)} has {tokens[place]} tokens in {ids} and "
                    f"{max(int(values[place]), 0)} values in {column}: each token of the {side} has one. Mend the row, "
                    f"{_REMEDY}"
                )


def labels_from_masks(rows: Dataset, masks: Sequence[str]) -> Dataset:
    """`rows` with labels in place of `masks`: the token where every mask has 1, else -100, as TRL makes them.

    The lists of `masks` are as long as those of input_ids (`refuse_misfits`).
    """

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import Features, List, Value

    def labelled(table: pa.Table) -> pa.Table:
        ids = pc.list_flatten(table["input_ids"]).to_numpy()
        counts = np.ones(len(ids), dtype=bool)
        for mask in masks:
            counts &= pc.list_flatten(table[mask]).cast(pa.int64()).fill_null(0).to_numpy() != 0
        ends = np.cumsum(pc.list_value_length(table["input_ids"]).to_numpy())
        labels = np.where(counts, ids.astype(np.int32), IGNORED)
        lists = pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], ends]), pa.int32()), pa.array(labels, pa.int32())
        )
        return table.drop_columns(list(masks)).append_column("labels", lists)

    kept = {column: kind for column, kind in rows.features.items() if column not in masks}
    made = rows.with_format("arrow").map(
        labelled,
        batched=True,
        batch_size=_AT_ONCE,
        features=Features({**kept, "labels": List(Value("int32"))}),
        keep_in_memory=True,
        load_from_cache_file=False,
        new_fingerprint=uuid.uuid4().hex,
        desc="Labels from masks",
    )
    return made.with_format(None)


def row_name(rows: Dataset, place: int, name: str) -> str:
    """What a message calls a row: its place in the rows called `name`, and its id where it has one."""
    known = f" (id {rows[place]['id']!r})" if "id" in rows.column_names else ""
    return f"row {place}{known} of {name}"


def _refuse_type(rows: Dataset, column: str, name: str) -> None:
    import pyarrow as pa

    kind = rows.features.arrow_schema.field(column).type
    if pa.types.is_null(kind):  # no row has one
        return
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    of = kind.value_type if listed else kind
    if not listed or not (pa.types.is_integer(of) or pa.types.is_boolean(of) or pa.types.is_null(of)):
        raise DataError(f"the column {column} of {name} holds {kind}: it must be a list of whole numbers in each row")
