from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from innerlingua.data import PACK_VARIABLE, pack_dir, read_parallel, split_by_group
from innerlingua.errors import DataError

Write = Callable[..., Path]

ROWS = [
    {
        "id": "a",
        "group": "g1",
        "source": "own",
        "text": {"eng_Latn": "The river.", "swh_Latn": "Mto.", "hin_Deva": "नदी।"},
    },
    {"id": "b", "group": "g2", "source": "own", "text": {"eng_Latn": "The boat.", "swh_Latn": "Mashua."}},
]


def test_each_language_of_a_row_is_a_pair_with_the_anchor(write: Write) -> None:
    pairs = read_parallel(write(ROWS))
    assert pairs.dataset[1] == {
        "id": "a",
        "language": "hin_Deva",
        "anchor_language": "eng_Latn",
        "group": "g1",
        "text": "नदी।",
        "anchor_text": "The river.",
    }
    assert list(zip(pairs.dataset["id"], pairs.dataset["language"], strict=True)) == [
        ("a", "swh_Latn"),
        ("a", "hin_Deva"),
        ("b", "swh_Latn"),
    ]
    assert pairs.counts["read"] == pairs.counts["kept"] == 3


def test_languages_are_taken_as_asked(write: Write) -> None:
    assert read_parallel(write(ROWS), languages=["hin_Deva"]).dataset["id"][:] == ["a"]


def test_the_anchor_language_can_be_another(write: Write) -> None:
    pairs = read_parallel(write(ROWS), anchor="hin_Deva", missing_anchor="drop")
    assert pairs.dataset["anchor_text"][:] == ["नदी।", "नदी।"]
    assert pairs.dataset["language"][:] == ["eng_Latn", "swh_Latn"]
    assert pairs.counts["dropped_missing_anchor"] == 2


BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"languages": ["tel_Telu"]}, {}, r"no row in tel_Telu"),
    ({"languages": ["sw"]}, {}, r"languages: unknown language 'sw'; did you mean .*swh_Latn \(Swahili\)"),
    ({"languages": ["eng_Latn"]}, {}, r"eng_Latn is the anchor language and cannot be a target"),
    ({}, {"text": "a"}, r"line 2: text must be an object"),
    ({}, {"id": None}, r"line 2: no column 'id'"),
    ({}, {"text": {"eng_Latn": "a", "swh_Lat": "b"}}, r"line 2 \(id 'b'\): unknown language 'swh_Lat'"),
    ({}, {"text": {"swh_Latn": "b"}}, r"line 2 \(id 'b'\): no anchor"),
    ({}, {"text": {"eng_Latn": "x", "swh_Latn": "x"}}, r"line 2 \(id 'b'\): the target equals its anchor"),
    ({}, {"id": "a"}, r"line 2 \(id 'a'\): the id occurs twice in swh_Latn, first at .*line 1"),
]


@pytest.mark.parametrize(("options", "changes", "message"), BAD)
def test_bad_parallel_rows_are_named(
    options: dict[str, Any], changes: dict[str, Any], message: str, write: Write
) -> None:
    path = write([ROWS[0], {**ROWS[1], **changes}])
    with pytest.raises(DataError, match=message):
        read_parallel(path, **options)


def grouped(count: int) -> Dataset:
    return Dataset.from_list([{"id": str(n), "group": f"g{n % 200}"} for n in range(count)])


def test_no_group_is_on_both_sides_and_no_row_is_lost() -> None:
    kept, held = split_by_group(grouped(1000), fraction=0.3, seed=1)
    assert not set(kept["group"]) & set(held["group"])
    assert sorted([*kept["id"], *held["id"]]) == sorted(str(n) for n in range(1000))
    assert 0.2 < len(held) / 1000 < 0.4


def test_a_split_depends_on_group_and_seed_alone() -> None:
    rows = grouped(400)
    held = set(split_by_group(rows, fraction=0.3, seed=1)[1]["group"])
    assert set(split_by_group(rows.shuffle(seed=3).select(range(390)), fraction=0.3, seed=1)[1]["group"]) == held
    assert set(split_by_group(rows, fraction=0.3, seed=2)[1]["group"]) != held
    assert set(split_by_group(rows, fraction=0.6, seed=1)[1]["group"]) > held


BAD_SPLITS: list[tuple[list[dict[str, Any]], float, str]] = [
    ([{"id": "1", "group": "g"}], 1.0, "fraction is 1.0"),
    ([{"id": "1"}], 0.5, "no column 'group' to split by; the rows have id"),
    ([{"id": "1", "group": "g"}, {"id": "2", "group": None}], 0.5, "row 1: no group"),
    ([{"id": "1", "group": "g"}], 0.5, "all 1 groups fall on one side"),
]


@pytest.mark.parametrize(("rows", "fraction", "message"), BAD_SPLITS)
def test_what_cannot_be_split_is_refused(rows: list[dict[str, Any]], fraction: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_by_group(Dataset.from_list(rows), fraction=fraction, seed=0)


def test_the_pack_is_found_by_its_variable_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PACK_VARIABLE, raising=False)
    with pytest.raises(DataError, match="INNERLINGUA_DATA is not set"):
        pack_dir()
    monkeypatch.setenv(PACK_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"INNERLINGUA_DATA names .*nothing', which is not a folder"):
        pack_dir()
    monkeypatch.setenv(PACK_VARIABLE, str(tmp_path))
    assert pack_dir() == tmp_path


@pytest.mark.skipif(not os.environ.get(PACK_VARIABLE), reason=f"needs real data: set {PACK_VARIABLE}")
def test_real_parallel_text_is_read_whole() -> None:
    files = [pack_dir() / "parallel" / f"{name}.jsonl.gz" for name in ("ntrex", "tatoeba", "storybooks")]
    wanted = ["hin_Deva", "ben_Beng", "tel_Telu", "swh_Latn"]
    with pytest.raises(
        DataError, match=r"storybooks\.jsonl\.gz, line \d+: a row for non-commercial use only \(CC-BY-NC"
    ):
        read_parallel(files, languages=wanted, same_as_anchor="drop")
    pairs = read_parallel(files, languages=wanted, same_as_anchor="drop", non_commercial="drop")
    assert pairs.counts["left_out_non_commercial"] == 118
    dropped = sum(n for name, n in pairs.counts.items() if name.startswith("dropped_"))
    assert pairs.counts["read"] == pairs.counts["kept"] + dropped
    assert set(pairs.dataset["language"]) == set(wanted)
    kept, held = split_by_group(pairs.dataset, fraction=1 / 3, seed=0)
    assert not set(kept["group"]) & set(held["group"])
