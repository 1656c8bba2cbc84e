"""Servers by name: a name is looked up as ever, and one that nobody answers for holds no run beyond its patience."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fault_server import FaultServer

from innerlingua.data.asking import ModelSpec
from innerlingua.data.verify import verify

Write = Callable[..., Path]

ROWS = [{"id": str(n), "language": "eng_Latn", "prompt": f"What is {n} + 2?", "answer": str(n + 2)} for n in range(20)]

# The one part that is not real: a resolver whose server is silent, for ever.
SILENT = """
import socket, sys, threading
asked = []
def getaddrinfo(host, *rest, **options):
    asked.append(host)
    threading.Event().wait()
socket.getaddrinfo = getaddrinfo
from innerlingua.cli import main
try:
    main()
finally:
    print(len(asked), "lookups under way")
"""


def test_a_server_is_found_by_its_name(write: Write, tmp_path: Path) -> None:
    with FaultServer(answer=lambda body: r"\boxed{4}") as server:
        model = ModelSpec(model="tiny", url=server.url.replace("127.0.0.1", "localhost"))
        done = verify([write(ROWS)], tmp_path / "v.jsonl", model=model, quiet=True)
    assert done.counts["asked"] == 20
    assert done.counts["kept"] == 1


def test_a_name_without_an_answer_ends_the_run_when_its_patience_does(write: Write, tmp_path: Path) -> None:
    words = ["data", "verify", str(write(ROWS)), "--model", "m", "--url", "http://silent.test/v1", "--patience", "0.5"]
    ended = subprocess.run(
        [sys.executable, "-c", SILENT, *words, "-o", str(tmp_path / "v.jsonl")],
        capture_output=True,
        text=True,
        timeout=100,  # of two; a run that waits for the resolver has no end
    )
    assert ended.returncode == 2, ended.stderr
    assert "cannot connect to http://silent.test/v1/chat/completions in 0.5 s" in ended.stderr
    assert "(--patience)" in ended.stderr
    assert ended.stdout.split("\n")[-2] == "1 lookups under way"  # one for all that ask for the same name
