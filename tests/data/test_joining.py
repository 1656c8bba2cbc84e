from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_from_disk

from innerlingua.data import PACK_VARIABLE, read_pairs
from innerlingua.data.joining import pair
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
        pair([both], tmp_path / name)
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
    import os

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
