"""The rows in numbers: how many of each language, how long both sides are, and how much of them the loss is taken over.

A token is supervised when it has a label and stands behind another token of its row: the first one is never predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from innerlingua.data.encode import IGNORED
from innerlingua.recipe.doctor.report import DataSet, Histogram, Language, Lengths

__all__ = ["RowLengths", "describe", "row_lengths", "same_rows"]

_BINS = 8
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class RowLengths:
    """By row, in order: language, tokens of the target, of the anchor (-1 without one), supervised tokens, and whether
    both sides are the same tokens."""

    languages: np.ndarray[Any, Any]
    target: np.ndarray[Any, Any]
    anchor: np.ndarray[Any, Any]
    supervised: np.ndarray[Any, Any]
    identical: np.ndarray[Any, Any]


def row_lengths(rows: Dataset) -> RowLengths:
    """The lengths of all tokenised `rows`, in one pass over them."""
    found: list[list[Any]] = [[], [], [], [], []]
    names = ["language", "input_ids", "labels", "anchor_input_ids"]
    for table in rows.select_columns(names).with_format("arrow").iter(batch_size=_ROWS_AT_ONCE):
        ids, sizes, starts = _flat(table["input_ids"])
        anchor_ids, anchor_sizes, anchor_starts = _flat(table["anchor_input_ids"])
        labels, _, _ = _flat(table["labels"])
        counted = labels != IGNORED
        counted[starts[sizes > 0]] = False
        before = np.concatenate([[0], np.cumsum(counted)])
        alike = np.zeros(len(sizes), dtype=bool)
        for place in np.flatnonzero(sizes == anchor_sizes):
            mine = ids[starts[place] : starts[place] + sizes[place]]
            theirs = anchor_ids[anchor_starts[place] : anchor_starts[place] + sizes[place]]
            alike[place] = np.array_equal(mine, theirs)
        found[0].append(np.asarray(table["language"].to_pylist()))
        for column, values in zip(
            found[1:], (sizes, anchor_sizes, before[starts + sizes] - before[starts], alike), strict=True
        ):
            column.append(values)
    return RowLengths(*(np.concatenate(column) for column in found))


def _flat(column: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A column of lists as (all values, length of each list, where each begins); the length of null is -1."""
    sizes = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
    starts = np.concatenate([[0], np.cumsum(np.maximum(sizes, 0))])[:-1]
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).copy(), sizes, starts


def describe(name: str, paths: Sequence[str], counts: Mapping[str, int], lengths: RowLengths) -> DataSet:
    """One data set of a recipe (`train` or `eval`), over all rows and by language."""
    everywhere = np.ones(len(lengths.target), dtype=bool)
    languages = sorted(set(lengths.languages.tolist()))
    return DataSet(
        name=name,
        paths=list(paths),
        counts=dict(counts),
        everything=_language("all", lengths, everywhere),
        languages=[_language(code, lengths, lengths.languages == code) for code in languages],
        histogram=_histogram(lengths),
        identical_sides=int(lengths.identical.sum()),
    )


def same_rows(train: Dataset, evaluation: Dataset) -> tuple[int, int]:
    """How many rows of `evaluation` have (the same tokens as a row of `train`, the id and language of one)."""
    columns = ["id", "language", "input_ids"]
    texts, names = set(), set()
    for row in train.select_columns(columns):
        texts.add(tuple(row["input_ids"]))
        names.add((row["id"], row["language"]))
    held_out = list(evaluation.select_columns(columns))
    return (
        sum(tuple(row["input_ids"]) in texts for row in held_out),
        sum((row["id"], row["language"]) in names for row in held_out),
    )


def _language(code: str, lengths: RowLengths, chosen: np.ndarray[Any, Any]) -> Language:
    anchors = lengths.anchor[chosen]
    return Language(
        language=code,
        rows=int(chosen.sum()),
        without_anchor=int((anchors < 0).sum()),
        supervised=int(lengths.supervised[chosen].sum()),
        target=_lengths(lengths.target[chosen]),
        anchor=_lengths(anchors[anchors >= 0]) if (anchors >= 0).any() else None,
    )


def _lengths(values: np.ndarray[Any, Any]) -> Lengths:
    median, p90, p99 = np.percentile(values, [50, 90, 99])
    return Lengths(
        rows=len(values),
        total=int(values.sum()),
        least=int(values.min()),
        median=float(median),
        mean=float(values.mean()),
        p90=float(p90),
        p99=float(p99),
        most=int(values.max()),
    )


def _histogram(lengths: RowLengths) -> Histogram:
    anchors = lengths.anchor[lengths.anchor >= 0]
    most = int(max(lengths.target.max(), anchors.max(initial=0)))
    width = _round_up(most / _BINS)
    edges = list(range(0, most + width + 1, width))
    return Histogram(
        edges=edges,
        target=np.histogram(lengths.target, bins=edges)[0].tolist(),
        anchor=np.histogram(anchors, bins=edges)[0].tolist(),
    )


def _round_up(width: float) -> int:
    """The next 1, 2 or 5 times a power of ten."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= width:
                return factor * power
        power *= 10
