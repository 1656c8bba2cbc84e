"""The verbs on the command line: exit codes, messages, JSON, and no key anywhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_server import FaultServer

from innerlingua.cli import main

Write = Callable[..., Path]
Ended = tuple[int, str, str]

ROW = {"id": "1", "language": "eng_Latn", "prompt": "What is 2 + 2?", "answer": "4"}
PAIR = {"id": "1", "language": "swh_Latn", "text": "mto ni mpana", "anchor_text": "the river is wide"}


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def run(*words: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["innerlingua", "data", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_an_endpoint_that_is_down_ends_with_one_message(
    data: Callable[..., Ended], write: Write, tmp_path: Path
) -> None:
    with FaultServer() as server:
        url = server.url
    options = ("--patience", "0.2", "--attempts", "100", "-o", tmp_path / "v.jsonl")
    code, _, err = data("verify", write([ROW]), "--model", "m", "--url", url, *options)
    assert code == 2
    assert f"cannot connect to {url}" in err
    assert "run the same command again" in err
    assert "Traceback" not in err


def test_a_key_is_in_nothing_that_is_printed_or_written(
    data: Callable[..., Ended], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = "sk-planted-9876543210"
    monkeypatch.setenv("PLANTED", planted)
    source = write([ROW])
    told = ""
    for fault in ("401", None):
        with FaultServer(answer=lambda body: r"\boxed{4}", script=lambda number, seen, f=fault: f) as server:
            out = ("-o", tmp_path / "v.jsonl")
            code, printed, err = data(
                "verify", source, "--model", "m", "--url", server.url, "--key-env", "PLANTED", *out
            )
            assert f"Bearer {planted}" in server.headers[0]
        assert code == (2 if fault else 0)
        told += printed + err
    written = sorted(tmp_path.iterdir())
    assert {"v.card.md", "v.jsonl", "v.jsonl.journal", "v.labels.jsonl"} <= {path.name for path in written}
    assert planted not in told + "".join(path.read_text(encoding="utf-8") for path in written)


def test_what_comes_after_the_last_answer_shows_how_far_it_is(
    data: Callable[..., Ended], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what it writes to for a terminal
    with FaultServer(answer=lambda body: r"\boxed{4}") as server:
        common = ("--model", "m", "--url", server.url, "-o")
        *_, verified = data("verify", write([ROW]), *common, tmp_path / "v.jsonl")
        *_, translated = data("translate", write([ROW]), "--to", "swh_Latn", *common, tmp_path / "t.jsonl")
    for told, titles in (
        (verified, ("verify: judging", "verify: writing")),
        (translated, ("translate: writing what passed", "translate: writing what is set aside")),
    ):
        for title in titles:
            assert re.search(rf"{title} .*1/1", told.replace("\x1b", "")), title


def test_check_prints_json_for_scripts_and_nothing_beside_it(data: Callable[..., Ended], write: Write) -> None:
    code, out, _ = data("check", write([PAIR]), "--json")
    assert code == 0
    assert json.loads(out)["languages"]["swh_Latn"]["rows"] == 1


def test_pair_says_what_it_wrote(data: Callable[..., Ended], write: Write, tmp_path: Path) -> None:
    code, out, _ = data("pair", write([PAIR]), "-o", tmp_path / "train.parquet")
    assert code == 0
    assert "kept: 1" in out
    assert "train.card.md" in out
    assert "pairs.jsonl" in (tmp_path / "train.card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pair", "{source}", "-o", "out.xlsx"), "unknown format"),
        (("pair", "{source}", "-o", "."), "give the output a name of its own"),
        (("check", "nothing.jsonl"), "no such file"),
        (("verify", "{source}", "--model", "m", "--url", "nowhere", "-o", "{out}"), "not an address"),
        (("translate", "{source}", "--to", "swahili", "--model", "m", "-o", "{out}"), "did you mean swh_Latn"),
    ],
)
def test_bad_requests_end_with_exit_code_two(
    data: Callable[..., Ended], write: Write, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    source, out = write([ROW]), tmp_path / "out.jsonl"
    code, _, err = data(*(word.format(source=source, out=out) for word in words))
    assert code == 2
    assert message in err
    assert "Traceback" not in err
