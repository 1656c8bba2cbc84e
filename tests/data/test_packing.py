"""Packed rows: every row whole, every column kept, as full as best-fit decreasing makes them."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset, Features, LargeList, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from innerlingua.data import pack_rows
from innerlingua.data.packing import LENGTHS, best_fit, unpack_rows
from innerlingua.errors import DataError


def rows_of(lengths: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"row {place}",
            "input_ids": [place] * length,
            "labels": [-100] + [place] * (length - 1),
            "anchor_input_ids": None if place % 3 == 1 else [place] * (place % 5 + 1),
        }
        for place, length in enumerate(lengths)
    ]


@settings(derandomize=True, deadline=None, database=None, max_examples=200)
@given(st.lists(st.integers(1, 20), max_size=60))
def test_every_length_is_in_one_bin_and_none_overflows(lengths: list[int]) -> None:
    bins = best_fit(lengths, 20)
    assert sorted(position for one in bins for position in one) == list(range(len(lengths)))
    assert all(0 < sum(lengths[position] for position in one) <= 20 for one in bins)
    assert all(one == sorted(one) for one in bins)
    assert bins == sorted(bins)
    # Best-fit decreasing needs at most 11/9 of the fewest bins, and one more (Johnson 1973).
    assert (
        len(bins) <= 11 / 9 * max(-(-sum(lengths) // 20), sum(length > 10 for length in lengths)) + 1 or len(bins) < 4
    )


def test_the_room_that_is_left_least_is_taken() -> None:
    # 6, then 5 in a second bin; 4 fits both and leaves less in the first.
    assert best_fit([4, 6, 5], 10) == [[0, 1], [2]]


@pytest.mark.parametrize("lengths", [[3, 9, 1, 4, 4, 10, 2], [10] * 3, [1] * 25])
def test_rows_come_back_whole(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    packed = pack_rows(Dataset.from_list(rows), 10)
    assert sum(map(len, packed[LENGTHS])) == len(rows)
    assert all(len(row["input_ids"]) == len(row["labels"]) == sum(row[LENGTHS]) <= 10 for row in packed)
    back = list(unpack_rows(packed.to_list()))
    assert sorted(back, key=lambda row: int(row["id"].split()[1])) == rows


def test_many_blocks_and_selected_rows() -> None:
    rows = Dataset.from_list(rows_of([7] * 2500)).select(range(2499, -1, -1))
    packed = pack_rows(rows, 8)
    assert list(packed["id"]) == [[f"row {place}"] for place in range(2499, -1, -1)]


def test_wide_lists() -> None:
    features = Features({"input_ids": LargeList(Value("int64")), "labels": List(Value("int64"))})
    packed = pack_rows(Dataset.from_dict({"input_ids": [[1], [2, 3]], "labels": [[1], [2, 3]]}, features), 4)
    assert packed.to_list() == [{"input_ids": [1, 2, 3], "labels": [1, 2, 3], LENGTHS: [1, 2]}]


def test_a_row_that_is_not_packed_is_its_own() -> None:
    rows = rows_of([2, 3])
    assert list(unpack_rows(rows)) == rows


def test_refusals() -> None:
    rows = Dataset.from_list(rows_of([3, 11, 4]))
    with pytest.raises(DataError, match=r"row 1 has 11 tokens, and a packed row takes 10: rows are never cut"):
        pack_rows(rows, 10)
    packed = pack_rows(rows, 11)
    with pytest.raises(DataError, match=r"packed already .*seq_lengths"):
        pack_rows(packed, 20)
