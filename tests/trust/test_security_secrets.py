"""docs/security.md, "Keys": keys are in no output, card, journal, record or traceback; and "Network"."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_rig import Done, invoke, pairs, save_tiny, texts_under, train_words, write_rows

from data.fault_server import FaultServer
from evaluation.evaluate_rig import belebele, write_jsonl
from innerlingua.data.work.engine import Retryable
from innerlingua.data.work.http import LARGEST, JsonClient
from innerlingua.data.work.keys import ApiKey

HUB, SERVER = "hf_PlantedHubToken0123456789abcdef", "sk-PlantedServerKey0123456789abcdef"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, HUB)
    for name in ("OPENAI_API_KEY", "SERVER_KEY"):
        monkeypatch.setenv(name, SERVER)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def clean(folder: Path, *ends: Done) -> None:
    for done in ends:
        for secret in (HUB, SERVER):
            assert secret not in done.out + done.err
    for path, content in texts_under(folder):
        for secret in (HUB, SERVER):
            assert secret.encode() not in content, path


def translate(server: FaultServer, folder: Path) -> Done:
    rows = [{"id": f"r{n}", "language": "eng_Latn", "text": f"The river is wide {n}"} for n in range(6)]
    return invoke(
        *("data", "translate", str(write_rows(folder / "rows.jsonl", rows)), "--to", "hin_Deva", "--template", "bare"),
        *("--no-identify", "--model", "tiny", "--url", server.url, "--key-env", "SERVER_KEY"),
        *("--patience", "5", "--attempts", "2", "-o", str(folder / "out.jsonl")),
    )


@pytest.mark.parametrize("fault", [None, "401", "500", "400", "404"])
def test_a_key_of_a_server_stays_with_the_server(tmp_path: Path, fault: str | None) -> None:
    """Its errors repeat the key that it was sent."""
    with FaultServer(answer=lambda body: "नदी चौड़ी है", script=lambda number, seen: fault) as server:
        done = translate(server, tmp_path)
        assert any(SERVER in head for head in server.headers)
    assert done.code == (0 if fault is None else 2), done.err
    clean(tmp_path, done)


def test_a_key_is_in_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours, while the key is in use."""
    from innerlingua.data.work import client

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(client.ChatClient, "_reply", broken)
    with FaultServer() as server:
        done = translate(server, tmp_path)
    assert done.code == 1
    assert "a fault of ours" in done.err
    clean(tmp_path, done)


def test_training_and_evaluation_write_no_key(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    trained = invoke(*train_words(tiny / "model", tiny / "pairs.jsonl", output))
    assert trained.code == 0, trained.err
    refusal = invoke(*train_words(tiny / "model", tiny / "pairs.jsonl", tmp_path / "other", "--trainer.hub-token", HUB))
    assert refusal.code == 2
    assert "a token would be stored with the run" in refusal.err
    write_jsonl(tmp_path / "pack" / "mcq" / "belebele.jsonl", belebele()[:4])
    evaluated = invoke(
        *("evaluate", str(output), "--tasks", "belebele", "--languages", "swh_Latn", "--data", str(tmp_path / "pack")),
        *("-o", str(tmp_path / "results"), "--limit", "2"),
    )
    assert evaluated.code == 0, evaluated.err
    profiled = invoke(
        *("routing", "profile", str(output), "--pairs", str(tiny / "pairs.jsonl"), "-o", str(tmp_path / "profile")),
    )
    assert profiled.code == 0, profiled.err
    clean(tmp_path, trained, refusal, evaluated, profiled)


_WATCHED = """
import json, sys
asked = []
def hook(event, args):
    if event in ("socket.bind", "socket.connect"):
        asked.append([event, str(args[1])])
    elif event == "socket.getaddrinfo":
        asked.append([event, str(args[0])])
sys.addaudithook(hook)
from innerlingua.cli import main
try:
    main()
except SystemExit as left:
    print("SOCKETS " + json.dumps([left.code, asked]), flush=True)
"""


def test_folders_are_trained_without_a_word_to_any_network(tiny: Path, tmp_path: Path) -> None:
    """No name is looked up, nothing is connected to, no port is opened; also when the hub could be reached."""
    words = train_words(tiny / "model", tiny / "pairs.jsonl", tmp_path / "out")
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, *words], capture_output=True, text=True, check=False, env=environment
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("SOCKETS ")]
    assert told, done.stderr
    code, asked = json.loads(told[0].removeprefix("SOCKETS "))
    assert not code, done.stderr
    assert asked == []


def test_a_reply_that_unpacks_to_more_than_any_answer_is_given_up() -> None:
    block = gzip.compress(b" " * (4 * LARGEST), 9)
    assert len(block) < LARGEST / 100

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(block)}\r\n\r\n"
        writer.write(head.encode() + block)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, JsonClient(key=ApiKey("", ""), timeout=60, limit=1, mend_key="", mend_url="") as client:
            with pytest.raises(Retryable, match="larger than 16 MiB"):
                await client.post(url, {})

    asyncio.run(ask())


def test_rows_with_a_key_in_the_address_are_refused_without_repeating_it(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", pairs())
    done = invoke(
        *("data", "translate", str(rows), "--to", "hin_Deva", "--model", "m", "-o", str(tmp_path / "out.jsonl")),
        *("--url", f"http://user:{SERVER}@127.0.0.1:9/v1"),
    )
    assert done.code == 2
    clean(tmp_path, done)
