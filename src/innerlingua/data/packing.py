"""Packed rows: whole tokenised rows laid one after another, so that a batch has (almost) no padding.

A packed row is what TRL's collator takes for padding-free batches: `input_ids` and `labels` of its rows end to end, and
`seq_lengths`, how many tokens each has. TRL's own packing drops every other column and with them the anchors; here each
is kept, as a list with one value for each of the rows. No row is ever cut.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from innerlingua.data.tokenised import refuse_misfits, token_counts
from innerlingua.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["LENGTHS", "best_fit", "pack_rows", "unpack_rows"]

LENGTHS = "seq_lengths"
"""The column that tells a packed row: the tokens of each of its rows, under the name that TRL's collator reads."""

_JOINED = ("input_ids", "labels")
_AT_ONCE = 1000


def pack_rows(rows: Dataset, max_length: int) -> Dataset:
    """`rows` in as few packed rows of at most `max_length` tokens as best-fit decreasing finds, in memory.

    `rows` are tokenised, as `tokenize_pairs` gives them. A packed row stands where the first of its rows stood, and its
    rows keep their order. Raises `DataError` for a row that is longer than `max_length`, has no tokens, or not as many
    labels as tokens, and for rows that are packed already.
    """
    import pyarrow as pa
    from datasets import Dataset

    if LENGTHS in rows.column_names:
        raise DataError(f"the rows are packed already (they have the column {LENGTHS}): give them as they were before")
    refuse_misfits(rows, "the rows", anchors=False)  # or labels would come to lie under the tokens of another row
    table = rows.with_format("arrow")
    lengths: list[int] = token_counts(rows, "input_ids").tolist()
    if max(lengths, default=0) > max_length:
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        raise DataError(
            f"row {longest} has {lengths[longest]} tokens, and a packed row takes {max_length}: rows are never cut. "
            "Pack to a greater length, or leave longer rows out"
        )
    bins = best_fit(lengths, max_length)
    packed = []
    for start in range(0, len(bins), _AT_ONCE):
        some = bins[start : start + _AT_ONCE]
        packed.append(_packed(table[[index for one in some for index in one]], [len(one) for one in some]))
    return Dataset(pa.concat_tables(packed)) if packed else rows


def unpack_rows(packed: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of packed rows, in their order; a row that is not packed is its own."""
    for row in packed:
        if LENGTHS not in row:
            yield dict(row)
            continue
        end = 0
        for place, length in enumerate(row[LENGTHS]):
            start, end = end, end + length
            yield {
                name: value[start:end] if name in _JOINED else value[place]
                for name, value in row.items()
                if name != LENGTHS
            }


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: each length, the longest first, goes where it leaves the least room.

    Returns the positions in `lengths` of each bin, ascending, and bins by their first; no bin holds more than
    `capacity`, which no length exceeds. n lengths take O(n log capacity).
    """
    bins: list[list[int]] = []
    with_room: defaultdict[int, list[int]] = defaultdict(list)  # room left -> bins
    rooms: list[int] = []  # those for which there is a bin, ascending
    for position in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        at = bisect_left(rooms, lengths[position])
        if at == len(rooms):
            room, chosen = capacity, len(bins)
            bins.append([])
        else:
            room = rooms[at]
            chosen = with_room[room].pop()
            if not with_room[room]:
                rooms.pop(at)
        bins[chosen].append(position)
        left = room - lengths[position]
        if not with_room[left]:
            insort(rooms, left)
        with_room[left].append(chosen)
    return sorted(sorted(one) for one in bins)


def _packed(rows: pa.Table, sizes: Sequence[int]) -> pa.Table:
    """Packed rows of `rows`, which stand in order; `sizes` says how many each takes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def bounds(counts: pa.Array) -> pa.Array:
        return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(counts.cast(pa.int64()))])

    rows = rows.combine_chunks()
    lengths = pc.list_value_length(rows["input_ids"]).combine_chunks()
    of_rows = bounds(pa.array(sizes))
    of_tokens = bounds(lengths).take(of_rows).cast(pa.int32())
    of_rows = of_rows.cast(pa.int32())
    columns = {}
    for name in rows.column_names:
        values = rows[name].combine_chunks()
        if name in _JOINED:
            columns[name] = pa.ListArray.from_arrays(of_tokens, values.flatten())
        else:
            columns[name] = pa.ListArray.from_arrays(of_rows, values)
    columns[LENGTHS] = pa.ListArray.from_arrays(of_rows, lengths.cast(pa.int32()))
    return pa.table(columns)
