"""Reading: both forms of rows, ids gathered, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from innerlingua.errors import DataError
from innerlingua.routing.profile import read_sides


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _pair(name: str, language: str, text: str, anchor: str | None, **more: Any) -> dict[str, Any]:
    return {"id": name, "language": language, "text": text, **({"anchor_text": anchor} if anchor else {}), **more}


def test_both_forms_of_rows_are_gathered_by_id(tmp_path: Path) -> None:
    pairs = [_pair("2", "swh_Latn", "b", "B"), _pair("1", "swh_Latn", "a", "A"), _pair("2", "hin_Deva", "bb", "B")]
    parallel = [{"id": "1", "text": {"yor_Latn": "aaa"}}, {"id": "3", "text": {"eng_Latn": "C", "hin_Deva": "cc"}}]
    sides = read_sides([_write(tmp_path / "p.jsonl", pairs), _write(tmp_path / "q.jsonl", parallel)])
    found = {meaning.name: {code: content["text"] for code, content in meaning.sides.items()} for meaning in sides}
    assert found == {
        "1": {"eng_Latn": "A", "swh_Latn": "a", "yor_Latn": "aaa"},
        "2": {"eng_Latn": "B", "swh_Latn": "b", "hin_Deva": "bb"},
        "3": {"eng_Latn": "C", "hin_Deva": "cc"},
    }
    assert sides.targets == ["hin_Deva", "swh_Latn", "yor_Latn"]
    assert (sides.ids, sides.total) == (3, 8)


def test_an_anchor_may_be_a_row_of_its_own(tmp_path: Path) -> None:
    rows = [_pair("1", "eng_Latn", "A", None), _pair("1", "swh_Latn", "a", None)]
    (meaning,) = read_sides(_write(tmp_path / "p.jsonl", rows))
    assert set(meaning.sides) == {"eng_Latn", "swh_Latn"}


def test_a_limit_takes_the_same_ids_whatever_the_order(rows: list[dict[str, Any]]) -> None:
    def drawn(given: list[dict[str, Any]], **options: Any) -> list[str]:
        return [meaning.name for meaning in read_sides(Dataset.from_list(given), **options)]

    five = drawn(rows, limit=5)
    assert len(five) == 5
    assert drawn(rows[::-1], limit=5) == five == drawn(rows)[:5]
    assert drawn(rows, limit=5, seed=1) != five


def test_groups_are_left_out_and_counted(parallel: Dataset) -> None:
    sides = read_sides(parallel, exclude_groups=["g0", "g3"])
    assert {int(meaning.name[1:]) % 4 for meaning in sides} == {1, 2}
    assert sides.excluded == 6


def test_another_anchor_language(parallel: Dataset) -> None:
    assert read_sides(parallel, anchor="swh_Latn").targets == ["eng_Latn", "hin_Deva"]


def test_only_the_languages_asked_for(tmp_path: Path) -> None:
    # Text that nobody asked for is not looked at, so its unknown code does no harm.
    rows = [{"id": "1", "text": {"eng_Latn": "A", "swh_Latn": "a", "xxx_Latn": "?"}}]
    path = _write(tmp_path / "p.jsonl", rows)
    assert read_sides(path, languages=["swh_Latn", "eng_Latn"]).targets == ["swh_Latn"]
    with pytest.raises(DataError, match=r"p.jsonl, line 1.*unknown language 'xxx_Latn'"):
        read_sides(path)
    assert "xxx_Latn" in read_sides(path, names={"xxx_Latn": "Unknown"}).targets


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": {"eng_Latn": "A"}}], r"line 1: id must be text"),
        ([{"id": "1", "text": {"eng_Latn": "A", "swh_Latn": 3}}], r"id '1', swh_Latn.* must be text"),
        ([_pair("1", "swh_Latn", "a", "A")] * 2, r"line 2: the id '1' occurs twice in swh_Latn, first at .*line 1"),
        (
            [_pair("1", "swh_Latn", "a", "A"), _pair("1", "hin_Deva", "b", "B")],
            r"line 2 .*another anchor than at .*line 1",
        ),
        ([_pair("1", "swh_Latn", "a", "A", anchor_language="fra_Latn")], r"its anchor is in fra_Latn"),
        ([_pair("1", "eng_Latn", "a", "A")], r"the target is in eng_Latn, the language of its anchor"),
        ([{"id": "1", "text": {"swh_Latn": "a"}}], r"no text in the anchor language eng_Latn; there is swh_Latn"),
        ([{"id": "1", "text": "a"}], r"line 1: text must be \{language: sentence\}, .* not a sentence alone"),
        ([{"id": "1", "text": ["a", "b"]}], r"line 1: text must be \{language: sentence\}, .* not list"),
        ([], "no rows in it"),
        ([{"id": "1", "text": {"eng_Latn": "A"}}], r"no text in a language other than the anchor's"),
        (
            [_pair("1", "swh_Latn", "a", "A"), {"id": "2", "language": "swh_Latn", "prompt": "a", "completion": "b"}],
            r"line 2: prompt and completion, where .*line 1 has text",
        ),
        ([{"id": "1", "language": "swh_Latn", "txt": "a"}], r"did you mean 'text'|no content"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_sides(_write(tmp_path / "p.jsonl", rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["swa_Latn"]}, "unknown language 'swa_Latn'"),
        ({"languages": ["yor_Latn"]}, "no row in yor_Latn"),
        ({"languages": ["eng_Latn"]}, "name at least one other language"),
        ({"anchor": "english"}, "unknown language 'english'.*eng_Latn"),
        ({"limit": 0}, "limit is 0"),
        ({"exclude_groups": ["g0", "g1", "g2", "g3"]}, r"no text in the anchor language .*12 of 12 rows left out"),
    ],
)
def test_options_that_are_refused(parallel: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_sides(parallel, **options)
