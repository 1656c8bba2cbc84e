from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_from_disk

from innerlingua.data import PACK_VARIABLE, read_pairs
from innerlingua.data.joining import pair
from innerlingua.data.licences import is_non_commercial, licence_of
from innerlingua.errors import DataError

ANCHORS = [
    {"id": "1", "language": "eng_Latn", "prompt": "2 + 2?", "completion": "It is \\boxed{4}.", "answer": "4"},
    {"id": "2", "language": "eng_Latn", "prompt": "3 + 3?", "completion": "It is \\boxed{6}.", "answer": "6"},
]
TARGETS = [
    {"id": "1", "language": "swh_Latn", "prompt": "2 + 2 ni?", "completion": "Ni \\boxed{4}."},
    {"id": "2", "language": "swh_Latn", "prompt": "3 + 3 ni?", "completion": "Ni \\boxed{6}."},
]

Write = Callable[..., Path]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_two_files_join_by_id(write: Write, tmp_path: Path) -> None:
    joined = pair([write(TARGETS[::-1], "t.jsonl")], tmp_path / "out.jsonl", anchors=[write(ANCHORS, "a.jsonl")])
    rows = rows_of(tmp_path / "out.jsonl")
    assert [(r["id"], r["prompt"], r["anchor_prompt"]) for r in rows] == [
        ("2", "3 + 3 ni?", "3 + 3?"),
        ("1", "2 + 2 ni?", "2 + 2?"),
    ]
    assert [r["answer"] for r in rows] == ["6", "4"]
    assert joined.counts["kept"] == 2
    assert joined.languages == {"swh_Latn": 2}


def test_one_file_with_both_sides_gives_the_same(write: Write, tmp_path: Path) -> None:
    pair([write(TARGETS, "t.jsonl")], tmp_path / "two.jsonl", anchors=[write(ANCHORS, "a.jsonl")])
    pair([write([TARGETS[0], *ANCHORS, TARGETS[1]], "both.jsonl")], tmp_path / "one.jsonl")
    without = [{k: v for k, v in r.items() if k != "provenance"} for r in rows_of(tmp_path / "one.jsonl")]
    assert without == [{k: v for k, v in r.items() if k != "provenance"} for r in rows_of(tmp_path / "two.jsonl")]


def test_what_is_written_is_what_training_reads(write: Write, tmp_path: Path) -> None:
    both = write([*TARGETS, *ANCHORS])
    read = []
    for name in ("out.jsonl", "out.jsonl.gz", "out.parquet", "folder"):
        pair([both], tmp_path / name, overwrite=True)  # they share a card
        read.append(read_pairs(tmp_path / name).dataset.to_list())
    assert read[0] == read[1] == read[2] == read[3]
    assert read[0][0]["anchor_completion"] == "It is \\boxed{4}."


def test_csv_parquet_and_folders_are_read(write: Write, tmp_path: Path) -> None:
    csv = tmp_path / "t.csv"
    csv.write_text('id,prompt,completion\n1,"2 + 2, ni?","Ni\n\\boxed{4}."\n', encoding="utf-8")
    Dataset.from_list(ANCHORS).save_to_disk(tmp_path / "anchors")
    Dataset.from_list(ANCHORS).to_parquet(tmp_path / "anchors.parquet")
    for anchors in ("anchors", "anchors.parquet"):
        out = tmp_path / f"{anchors}.out.jsonl"
        pair([csv], out, anchors=[tmp_path / anchors], language="swh_Latn")
        (row,) = rows_of(out)
        assert (row["prompt"], row["completion"]) == ("2 + 2, ni?", "Ni\n\\boxed{4}.")
        assert row["anchor_prompt"] == "2 + 2?"


def test_provenance_names_both_sides(write: Write, tmp_path: Path) -> None:
    made = {"model": "m", "template": "t"}
    pair(
        [write(TARGETS, "t.jsonl")],
        tmp_path / "out.parquet",
        anchors=[write([{**row, "provenance": made} for row in ANCHORS], "a.jsonl")],
    )
    cells = pq.read_table(tmp_path / "out.parquet")["provenance"].to_pylist()
    assert json.loads(cells[1]) == {"target": {"file": "t.jsonl", "line": 2}, "anchor": made}


@pytest.mark.parametrize("side", ["target", "anchor", "parallel"])
@pytest.mark.parametrize("policy", ["error", "drop", "keep"])
def test_non_commercial_rows_come_in_only_when_asked_for(write: Write, tmp_path: Path, side: str, policy: str) -> None:
    barred = {"source": "news", "license": "CC-BY-NC-4.0"}
    targets = [{**TARGETS[0], "source": "GSM8K", **(barred if side == "target" else {})}, TARGETS[1]]
    anchors = [{**ANCHORS[0], **(barred if side == "anchor" else {"source": "GSM8K"})}, ANCHORS[1]]
    files: dict[str, Any] = {"non_commercial": policy, "missing_anchor": "drop"}
    if side == "parallel":
        text = {"eng_Latn": "The river.", "swh_Latn": "Mto."}
        given = [write([{"id": "1", "text": text, "source": "LAFAND/MAFAND-MT"}, {"id": "2", "text": text}], "p.jsonl")]
    else:
        given = [write(targets, "t.jsonl")]
        files["anchors"] = [write(anchors, "a.jsonl")]
    out = tmp_path / "out.jsonl"
    if policy == "error":
        with pytest.raises(DataError, match=r"\.jsonl, line 1: a row for non-commercial use only \(CC-BY-NC-4\.0\)"):
            pair(given, out, **files)
        return
    joined = pair(given, out, **files)
    rows = rows_of(out)
    assert [row["id"] for row in rows] == (["2"] if policy == "drop" else ["1", "2"])
    assert joined.counts["left_out_non_commercial"] == (policy == "drop")
    if policy == "keep":
        expected = {"target": "CC-BY-NC-4.0 AND MIT", "anchor": "MIT AND CC-BY-NC-4.0", "parallel": "CC-BY-NC-4.0"}
        assert rows[0]["license"] == expected[side]
        made = json.loads(rows[0]["provenance"])
        assert made["anchor" if side == "anchor" else "target"]["license"] == "CC-BY-NC-4.0"
        card = joined.card.read_text(encoding="utf-8")
        name = "LAFAND/MAFAND-MT" if side == "parallel" else "news"
        assert f"| {name} | CC-BY-NC-4.0 | 1 |" in card
        assert "1 row that went in is for non-commercial use only." in card


@pytest.mark.parametrize(
    ("licence", "barred"),
    [
        ("CC-BY-NC-4.0", True),
        ("cc by-nc-sa 3.0", True),
        ("Non-commercial use only", True),
        ("noncommercial", True),
        ("MIT AND CC-BY-NC-4.0", True),
        ("CC-BY-4.0", False),
        ("Apache-2.0", False),
        ("Incorporated", False),
        (None, False),
    ],
)
def test_non_commercial_licences_are_known_by_their_names(licence: str | None, barred: bool) -> None:
    assert is_non_commercial(licence) is barred


def test_every_source_of_the_pack_has_a_licence() -> None:
    if PACK_VARIABLE not in os.environ:
        pytest.skip(f"{PACK_VARIABLE} is not set")
    given = re.compile(r'"source": "([^"]+)"(?:, "license": "([^"]+)")?')
    silent = set()
    for file in Path(os.environ[PACK_VARIABLE]).glob("*/*.jsonl.gz"):
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            named = {match.groups() for line in stream if (match := given.search(line))}
        assert named, file
        silent |= {source for source, licence in named if licence_of({"source": source, "license": licence}) is None}
    assert silent == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["hin_Deva"]}, "no target in the languages of --only; 2 rows in others"),
        ({"only": ["eng_Latn"]}, "--only eng_Latn: that is the anchor language"),
        ({"only": ["hindi"]}, "--only: unknown language 'hindi'"),
        ({"non_commercial": "kep"}, "non_commercial: 'kep' is no policy; did you mean 'keep'"),
    ],
)
def test_requests_that_leave_nothing_are_named(
    write: Write, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        pair([write([*TARGETS, *ANCHORS])], tmp_path / "out.jsonl", **options)
    assert not list(tmp_path.glob("*out*"))


def test_files_without_targets_are_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only anchors \(eng_Latn\) and no targets"):
        pair([write(ANCHORS)], tmp_path / "out.jsonl")
    with pytest.raises(DataError, match=r"empty\.jsonl: no rows"):
        pair([write([], "empty.jsonl")], tmp_path / "out.jsonl")
    parallel = write([{"id": "1", "text": {"eng_Latn": "a", "swh_Latn": "b"}}], "p.jsonl")
    with pytest.raises(DataError, match=r"p\.jsonl, line 1: a row with many languages among the anchors"):
        pair([write(TARGETS)], tmp_path / "out.jsonl", anchors=[parallel])


def test_an_input_is_never_overwritten_nor_a_folder_that_is_no_dataset(write: Write, tmp_path: Path) -> None:
    both = write([*TARGETS, *ANCHORS])
    before = both.read_bytes()
    with pytest.raises(DataError, match="is an input as well"):
        pair([both], both, overwrite=True)
    with pytest.raises(DataError, match="a folder that save_to_disk did not write is not overwritten"):
        pair([both], tmp_path, overwrite=True)
    assert both.read_bytes() == before
    with pytest.raises(DataError, match="a name of its own"):
        pair([both], ".", overwrite=True)
    for _ in range(2):
        pair([both], tmp_path / "folder", overwrite=True)
    assert load_from_disk(str(tmp_path / "folder"))["id"][:] == ["1", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "folder.card.md", "pairs.jsonl"]


@pytest.mark.parametrize("policy", ["error", "drop", "keep"])
def test_a_target_without_anchor_follows_the_policy(write: Write, tmp_path: Path, policy: str) -> None:
    files = {"anchors": [write(ANCHORS[:1], "a.jsonl")], "missing_anchor": policy}
    if policy == "error":
        with pytest.raises(DataError, match=r"t\.jsonl, line 2 \(id '2'\): no anchor"):
            pair([write(TARGETS, "t.jsonl")], tmp_path / "out.jsonl", **files)
        assert not list(tmp_path.glob("*out*"))  # neither the file nor a part of it
        return
    counts = pair([write(TARGETS, "t.jsonl")], tmp_path / "out.jsonl", **files).counts
    assert counts["read"] == counts["kept"] + counts["dropped_missing_anchor"] == 2
    assert counts["kept_without_anchor"] == (policy == "keep")


def test_two_anchors_under_one_id_are_refused(write: Write, tmp_path: Path) -> None:
    other = [*ANCHORS, {**ANCHORS[0], "prompt": "5 - 1?"}]
    with pytest.raises(DataError, match=r"a\.jsonl, line 3 \(id '1'\): another anchor has the same id"):
        pair([write(TARGETS, "t.jsonl")], tmp_path / "out.jsonl", anchors=[write(other, "a.jsonl")])


def test_a_repeated_target_is_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.jsonl, line 3 \(id '1'\): the id occurs twice in swh_Latn"):
        pair([write([*TARGETS, TARGETS[0]], "t.jsonl")], tmp_path / "o.jsonl", anchors=[write(ANCHORS, "a.jsonl")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,prompt\n1,a,b\n", r"line 2: 3 cells where the header names 2"),
        ("id,id\n1,2\n", r"line 1: the column 'id' occurs twice"),
        ('id,prompt\n1,"a\n', r"broken CSV"),
        ("id,prompt\n1,caf\xe9\n", r"line 2: not UTF-8 \(byte 0xe9"),
    ],
)
def test_broken_csv_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        pair([path], tmp_path / "out.jsonl", language="swh_Latn")


def test_an_output_that_exists_is_kept(write: Write, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        pair([write([*TARGETS, *ANCHORS])], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_the_parallel_pack_pairs(tmp_path: Path) -> None:
    if PACK_VARIABLE not in os.environ:
        pytest.skip(f"{PACK_VARIABLE} is not set")
    source = Path(os.environ[PACK_VARIABLE]) / "parallel" / "ntrex.jsonl.gz"
    joined = pair([source], tmp_path / "out.parquet", only=["swh_Latn", "bod_Tibt"], same_as_anchor="drop")
    with gzip.open(source, "rt", encoding="utf-8") as stream:
        first = json.loads(next(stream))
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert joined.counts["kept"] == len(rows)
    assert {r["language"] for r in rows} == {"swh_Latn", "bod_Tibt"}
    assert (rows[0]["text"], rows[0]["anchor_text"]) == (first["text"]["swh_Latn"], first["text"]["eng_Latn"])
    assert rows[0]["group"] == first["group"]


def test_a_folder_is_a_dataset(write: Write, tmp_path: Path) -> None:
    pair([write([*TARGETS, *ANCHORS])], tmp_path / "folder")
    assert load_from_disk(str(tmp_path / "folder"))["id"][:] == ["1", "2"]
