"""What a user may hand over by mistake, in files, names and replies: nothing is lost, and one message says what."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_server import FaultServer

from innerlingua.data.asking import ModelSpec
from innerlingua.data.checking import check_pairs, render
from innerlingua.data.files import check_beside, check_output, write_rows
from innerlingua.data.languages import LANGUAGES
from innerlingua.data.questions import read_questions
from innerlingua.data.sources import open_sources
from innerlingua.data.translate import translate
from innerlingua.data.verify import Verified, verify
from innerlingua.data.work import ChatClient, Endpoint, Journal
from innerlingua.data.work.keys import ApiKey
from innerlingua.errors import DataError

Write = Callable[..., Path]

QUESTION = {"id": "1", "language": "eng_Latn", "prompt": "What is 2 + 2?", "answer": "4"}
TEXT = {"id": "1", "language": "eng_Latn", "text": "the river is wide"}


def run(paths: list[Path], out: Path, **options: Any) -> Verified:
    with FaultServer(answer=lambda body: r"\boxed{4}") as server:
        return verify(paths, out, model=ModelSpec("tiny", url=server.url), quiet=True, **options)


@pytest.mark.parametrize("name", ["v.rejected.jsonl", "v.labels.jsonl"])
def test_what_is_written_beside_an_output_never_takes_the_place_of_an_input(write: Write, name: str) -> None:
    source = write([QUESTION], name)
    before = source.read_bytes()
    with pytest.raises(DataError, match=rf"{name}, which is written beside the output, is an input as well"):
        run([source], source.with_name("v.jsonl"))
    with pytest.raises(DataError, match="is an input"):
        run([source], source.with_name("v.jsonl"), overwrite=True)
    assert source.read_bytes() == before


def test_translate_does_not_write_over_the_rows_set_aside_that_it_reads(write: Write) -> None:
    source = write([TEXT], "t.set_aside.jsonl")
    with pytest.raises(DataError, match="is an input"):
        translate(
            [source], source.with_name("t.jsonl"), to=["swh_Latn"], model=ModelSpec("m", url="http://127.0.0.1:9")
        )
    assert json.loads(source.read_text()) == TEXT


def test_a_file_beside_the_output_that_is_not_ours_is_kept(write: Write, tmp_path: Path) -> None:
    notes = tmp_path / "v.card.md"
    notes.write_text("notes of mine")
    with pytest.raises(DataError, match=r"v\.card\.md: exists already"):
        run([write([QUESTION])], tmp_path / "v.jsonl")
    assert notes.read_text() == "notes of mine"
    assert run([write([QUESTION])], tmp_path / "v.jsonl", overwrite=True).counts["kept"] == 1
    (tmp_path / "v.jsonl").unlink()  # its journal is there: what lies beside is the earlier run's
    assert run([write([QUESTION])], tmp_path / "v.jsonl").counts["kept"] == 1


def test_a_folder_in_the_place_of_a_file_is_not_removed(tmp_path: Path) -> None:
    folder = tmp_path / "v.labels.jsonl"
    folder.mkdir()
    (folder / "precious").write_text("x")
    with pytest.raises(DataError, match="a folder, where a file is written"):
        check_beside([folder], overwrite=True)
    with pytest.raises(OSError, match=r"v\.labels\.jsonl"):
        write_rows(folder, [{"id": "1"}])
    assert (folder / "precious").read_text() == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.labels.jsonl"]


def test_an_output_inside_a_dataset_that_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(DataError, match="lies in the input"):
        check_output(tmp_path / "data" / "train", overwrite=True, inputs=[f"{tmp_path / 'data'}:train"])


def test_pipes_and_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="a pipe or a device"):
        open_sources([tmp_path / "rows.jsonl"])
    with pytest.raises(DataError, match="a pipe or a device"):
        check_output(tmp_path / "rows.jsonl", overwrite=True)
    for refuse in (lambda name: open_sources([name]), lambda name: check_output(name, overwrite=False)):
        with pytest.raises(DataError, match="the name is not UTF-8"):
            refuse(os.fsdecode(b"rows\xff.jsonl"))
    (tmp_path / "link.jsonl").symlink_to("nowhere.jsonl")
    with pytest.raises(DataError, match="a link that leads nowhere"):
        open_sources([tmp_path / "link.jsonl"])


def test_one_file_given_twice_is_an_id_given_twice(write: Write, tmp_path: Path) -> None:
    questions, texts = write([QUESTION], "q.jsonl"), write([TEXT], "t.jsonl")
    with pytest.raises(DataError, match=r"the id occurs twice in eng_Latn, first at .*q\.jsonl, line 1"):
        run([questions, questions], tmp_path / "v.jsonl")
    nobody = ModelSpec("m", url="http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"the id occurs twice, first at .*t\.jsonl, line 1"):
        translate([texts, texts], tmp_path / "t.out.jsonl", to=["swh_Latn"], model=nobody)


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1", "question": {"eng_Latn": "2 + 2?", "swh_Latn": None}, "answer": "4"},
        {"id": "1", "items": {"eng_Latn": {"question": "2 + 2?"}, "swh_Latn": None}, "answer": "4"},
    ],
)
def test_a_language_that_is_null_is_absent(write: Write, row: dict[str, Any]) -> None:
    [question] = read_questions(open_sources(write([row])), known=LANGUAGES)
    assert (question.language, question.text) == ("eng_Latn", "2 + 2?")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choices": ["x", "y", "z"], "answer": "AB"}, "neither a choice nor the letter of one"),
        ({"choices": [None, "y"], "answer": "A"}, "choices hold None"),
        ({"choices": ["", "y"], "answer": "B"}, "choices hold ''"),
        ({"group": ["g"]}, "group must be text"),
        ({"prompt": None, "question": {"eng_Latn": 5}}, "must be text, not 5"),
    ],
)
def test_questions_that_would_be_asked_wrongly_are_refused(write: Write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_questions(open_sources(write([{**QUESTION, **changes}])), known=LANGUAGES))


def test_parquet_that_holds_what_is_no_row_is_named_with_its_column(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb")])
    tables = {
        "text": pa.table({"id": ["1"], "text": broken}),
        "when": pa.table({"id": ["1"], "when": pa.array([2**62], pa.timestamp("us"))}),
        "zone": pa.table({"id": ["1"], "zone": pa.array([1], pa.timestamp("us", "Mars/Phobos"))}),
    }
    for column, table in tables.items():
        pq.write_table(table, tmp_path / f"{column}.parquet")
        [source] = open_sources(tmp_path / f"{column}.parquet")
        with pytest.raises(DataError, match=rf"rows 0 to 0: column '{column}'"):
            list(source.rows())
    twice = pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"])], names=["id", "id"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="the column 'id' occurs twice"):
        list(open_sources(tmp_path / "twice.parquet")[0].rows())


def test_a_server_that_repeats_the_key_in_its_reply_gets_it_into_nothing() -> None:
    planted = "sk-planted-9876543210"
    client = ChatClient(Endpoint("http://127.0.0.1:9", "m", ApiKey(planted, "a test")), limit=1)
    said = {"message": {"content": f"Bearer {planted} \\boxed{{4}}"}, "finish_reason": planted}
    reply = client._reply({"model": f"m@{planted}", "choices": [said]})
    assert planted not in repr(reply)
    assert "\\boxed{4}" in reply.text
    with pytest.raises(DataError) as told:
        client._reply({"model": planted + "x" * 10_000, "choices": [said]})
    assert planted not in str(told.value)
    assert len(str(told.value)) < 1500


@pytest.mark.parametrize("finish", [["stop"], {"type": "stop"}, 3])
def test_a_server_that_ends_its_reply_in_a_form_of_its_own(finish: object) -> None:
    client = ChatClient(Endpoint("http://127.0.0.1:9", "m", ApiKey("sk-planted-9876543210", "a test")), limit=1)
    reply = client._reply({"model": "m", "choices": [{"message": {"content": "4"}, "finish_reason": finish}]})
    assert reply.text == "4"


def test_a_journal_with_two_heads_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, {"a": 1}) as journal:
        journal.append([("k", 1)])
    head, entry = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(head + head + entry)
    with pytest.raises(DataError, match="line 2: damaged"):
        Journal(path, {"a": 1})


def test_rows_without_an_anchor_are_not_called_faultless(write: Write) -> None:
    from rich.console import Console

    console = Console(record=True, width=120, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(render(check_pairs(write([{**TEXT, "language": "swh_Latn"}]))))
    told = console.export_text()
    assert "1 row without an anchor" in told
    assert "nothing else wrong was found" in told


def test_a_journal_whose_result_was_edited(write: Write) -> None:
    source = write([QUESTION], "q.jsonl")
    out = source.with_name("v.jsonl")
    journal = run([source], out).journal
    head, *entries = journal.read_text(encoding="utf-8").splitlines()
    edited = [json.dumps(json.loads(line) | {"result": 4}) for line in entries]
    journal.write_text("\n".join([head, *edited]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"damaged: the result of .* is no object, so it was edited"):
        run([source], out, overwrite=True)
