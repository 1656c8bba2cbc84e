"""Kill the command with SIGKILL at random moments, continue, and compare with a run that was never interrupted."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer

from trust.soak_record import record

Write = Callable[..., Path]

FAULTS = ("429", "500", "truncate", "not_json", "drop")


def answer(body: dict[str, Any]) -> str:
    """A pretended translation into Hindi that only the request decides."""
    return "नदी चौड़ी है और नाव छोटी है " + "क" * (sum(map(ord, body["messages"][0]["content"])) % 7)


def script(number: int, seen: int) -> str | None:
    """One request in ten fails the first time."""
    return FAULTS[number // 10 % len(FAULTS)] if number % 10 == 3 and seen == 0 else None


def command(server: FaultServer, source: Path, out: Path) -> list[str]:
    words = ["data", "translate", str(source), "--to", "hin_Deva", "--model", "tiny", "--url", server.url]
    more = ["--template", "bare", "--no-identify", "--concurrency", "8", "-o", str(out)]
    return [sys.executable, "-m", "innerlingua.cli", *words, *more]


def prepared(words: list[str], *, largest: int | None = None) -> list[str]:
    """The command, with a limit on the size of files, and open to Ctrl-C even where a test runs in the background."""
    lines = ["import os, resource, signal, sys", "signal.signal(signal.SIGINT, signal.SIG_DFL)"]
    if largest is not None:
        lines.append(f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))")
    return [
        words[0],
        "-c",
        "; ".join([*lines, "os.execv(sys.executable, sys.orig_argv[:1] + sys.argv[1:])"]),
        *words[1:],
    ]


def run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


def killed(server: FaultServer, words: list[str], after: int) -> bool:
    """Start, kill as soon as the server has had `after` more requests; whether it was alive then."""
    target = server.requests + after
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and server.requests < target:
        time.sleep(0.002)
    alive = process.poll() is None
    if alive:
        process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def without_dates(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["provenance"]["date"]
    return rows


def play(tmp_path: Path, write: Write, kills: int, rows: int) -> None:
    rng = random.Random(kills)
    source = write(
        [
            {"id": f"r{n}", "language": "eng_Latn", "text": f"The river is wide and the boat is old {'x' * (n % 50)}"}
            for n in range(rows)
        ],
        "source.jsonl",
    )
    with FaultServer(answer=answer, script=script, latency=0.01) as server:
        run(command(server, source, tmp_path / "whole.jsonl"))
    out = tmp_path / "killed.jsonl"
    with FaultServer(answer=answer, script=script, latency=0.01) as server:
        words = command(server, source, out)
        alive = [killed(server, words, rng.randint(1, max(2, rows // (kills + 1)))) for _ in range(kills)]
        assert all(alive)
        assert not out.exists()
        run(words)
        asked = server.requests - sum(server.faults.values())
    assert without_dates(out) == without_dates(tmp_path / "whole.jsonl")
    done: Counter[str] = Counter()
    for line in (tmp_path / "killed.jsonl.journal").read_text(encoding="utf-8").splitlines()[1:]:
        done[json.loads(line)["key"]] += 1
    assert done == Counter({f"r{n}|hin_Deva|text": 1 for n in range(rows)})
    # What was under way, or answered in the tenth of a second before a kill, is asked again; nothing else.
    assert asked <= rows + kills * (8 + 8 * 12)


def test_a_killed_run_continues_to_the_same_rows(write: Write, tmp_path: Path) -> None:
    play(tmp_path, write, kills=3, rows=120)


def test_control_c_keeps_what_is_done_and_says_so(write: Write, tmp_path: Path) -> None:
    source = write(
        [{"id": f"r{n}", "language": "eng_Latn", "text": "The river is wide and the boat is old"} for n in range(60)],
        "source.jsonl",
    )
    out = tmp_path / "out.jsonl"
    with FaultServer(answer=answer, latency=0.2) as server:
        words = command(server, source, out)
        process = subprocess.Popen(prepared(words), stderr=subprocess.PIPE, text=True)
        while process.poll() is None and server.requests < 20:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1]
        assert process.returncode == 130, told
        assert "What is done is kept" in told
        assert "Traceback" not in told
        assert not out.exists()
        kept = len((tmp_path / "out.jsonl.journal").read_bytes().splitlines()) - 1
        assert kept > 0
        before = server.requests
        run(words)
        assert server.requests == before + 60 - kept


def test_a_full_disk_stops_the_run_at_once_and_loses_nothing(write: Write, tmp_path: Path) -> None:
    """Played by the limit that the system sets on the size of a file."""
    source = write(
        [{"id": f"r{n}", "language": "eng_Latn", "text": f"The river number {n} is wide."} for n in range(400)],
        "source.jsonl",
    )
    numbered = re.compile(r"\d+")
    out = tmp_path / "out.jsonl"
    with FaultServer(answer=lambda b: f"नदी {numbered.findall(str(b['messages']))[-1]} चौड़ी है", latency=0.05) as server:
        words = command(server, source, out)
        most = 4000  # bytes: of some 250 a line
        limited = subprocess.run(prepared(words, largest=most), capture_output=True, text=True)
        assert limited.returncode == 2, limited.stderr
        assert "out.jsonl.journal: File too large" in limited.stderr
        assert len(limited.stderr.strip().splitlines()) == 1
        assert server.requests < 400
        journal = (tmp_path / "out.jsonl.journal").read_bytes()
        assert journal.endswith(b"\n")
        kept = len(journal.splitlines()) - 1
        assert kept > 0
        before = server.requests
        run(words)
        assert server.requests == before + 400 - kept
    assert len(without_dates(out)) == 400


@pytest.mark.parametrize("name", ["out.parquet", "folder"])
def test_a_full_disk_leaves_no_half_file_of_pairs(write: Write, tmp_path: Path, name: str) -> None:
    rows = [
        {"id": f"r{n}", "language": "swh_Latn", "text": f"mto {n} {n * n}", "anchor_text": f"river {n} {n * n}"}
        for n in range(2000)
    ]
    source = write(rows, "source.jsonl")
    words = [sys.executable, "-m", "innerlingua.cli", "data", "pair", str(source), "-o", str(tmp_path / name)]
    limited = subprocess.run(prepared(words, largest=4000), capture_output=True, text=True)
    assert limited.returncode == 2, limited.stderr
    assert f"{name}: " in limited.stderr
    assert "Traceback" not in limited.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source.jsonl"]


@pytest.mark.slow
def test_twenty_kills_lose_and_repeat_nothing(write: Write, tmp_path: Path) -> None:
    play(tmp_path, write, kills=20, rows=900)
    record(
        "data work that is killed loses and repeats nothing",
        "`innerlingua data translate` against a faulty server, killed by SIGKILL and gone on with; rows and journal "
        "compared with a run that nothing interrupted",
        20,
        "kills",
        "the same rows; each answered once",
    )
