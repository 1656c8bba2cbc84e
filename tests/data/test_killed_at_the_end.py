"""A kill while the outputs of data work are written: the same command goes on, and nothing is asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer

Write = Callable[..., Path]

QUESTIONS = [{"id": str(n), "language": "eng_Latn", "prompt": f"{n} + {3 - n}?", "answer": "3"} for n in (1, 2)]
TEXTS = [{"id": str(n), "language": "eng_Latn", "text": "The river is wide and the boat is old"} for n in (1, 2)]
PAIRS = [{"id": str(n), "language": "swh_Latn", "text": f"mto {n}", "anchor_text": f"river {n}"} for n in (1, 2)]

# Real kills at moments that no clock would hit: the command is killed just before its first file gets its name, then
# begun again and killed before the second, and so on; the last time nothing kills it. Forked, because a start of
# Python for each takes longer than all else.
KILLS = """
import json, os, pathlib, signal, sys
import innerlingua.cli, innerlingua.data.joining, innerlingua.data.translate, innerlingua.data.verify
import innerlingua.data.work.client

kills, folder = int(sys.argv.pop(1)), pathlib.Path(sys.argv.pop(1))
for before in (*range(1, kills + 1), 0):
    child = os.fork()
    if child == 0:
        named, replace = [], pathlib.Path.replace
        def counted(self, target):
            named.append(target)
            if len(named) == before:
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(self, target)
        pathlib.Path.replace = counted
        sys.exit(innerlingua.cli.main())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("ended", json.dumps([code, sorted(path.name for path in folder.iterdir())]), flush=True)
"""


def killed(words: list[str], folder: Path, kills: int) -> tuple[list[tuple[int, set[str]]], str]:
    """Exit code and files after each of `kills` kills and after a last run without one, and all that was said."""
    start = [sys.executable, "-c", KILLS, str(kills), str(folder), "data", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(start, capture_output=True, text=True, env=environment, check=True)
    lines = (line.removeprefix("ended ") for line in done.stdout.splitlines() if line.startswith("ended "))
    return [(code, set(names)) for code, names in map(json.loads, lines)], done.stderr


@pytest.mark.parametrize(
    ("verb", "options", "rows", "reply", "beside"),
    [
        ("verify", [], QUESTIONS, r"\boxed{3}", ["rejected.jsonl", "labels.jsonl", "card.md"]),
        (
            "translate",
            ["--to", "hin_Deva", "--template", "bare", "--no-identify"],
            TEXTS,
            "नदी चौड़ी है और नाव छोटी है",
            ["set_aside.jsonl", "card.md"],
        ),
    ],
)
def test_the_same_command_goes_on_wherever_the_writing_was_killed(
    write: Write, tmp_path: Path, verb: str, options: list[str], rows: list[Any], reply: str, beside: list[str]
) -> None:
    source, out = write(rows), tmp_path / "out.jsonl"
    with FaultServer(answer=lambda body: reply) as server:
        words = [verb, str(source), "--model", "tiny", "--url", server.url, *options, "-o", str(out)]
        ends, told = killed(words, tmp_path, kills=len(beside) + 1)
        assert [code for code, _ in ends] == [-signal.SIGKILL] * (len(beside) + 1) + [0], told
        assert server.requests == len(rows)
    for number, (_, there) in enumerate(ends[:-1]):
        assert {name for name in there if name.startswith("out.")} >= {f"out.{name}" for name in beside[:number]}
        assert "out.jsonl" not in there  # it comes last
    assert [json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()] == ["1", "2"]


def test_pairs_appear_with_their_card(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "train.parquet"
    ends, told = killed(["pair", str(write(PAIRS)), "-o", str(out)], tmp_path, kills=1)
    assert [code for code, _ in ends] == [-signal.SIGKILL, 0], told
    assert not ends[0][1] & {"train.parquet", "train.card.md"}
    assert out.exists()
    assert "# train.parquet" in (tmp_path / "train.card.md").read_text(encoding="utf-8")
