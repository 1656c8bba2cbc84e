from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, digest_answer

from innerlingua.data.work import ChatClient, Endpoint, Journal, Outcome, Pace, Task, read_key, run_tasks
from innerlingua.data.work.keys import ApiKey
from innerlingua.data.work.progress import WorkProgress
from innerlingua.errors import DataError

NO_KEY = ApiKey("", "no key")


def ask(
    server: FaultServer,
    folder: Path,
    count: int = 40,
    *,
    limit: int = 8,
    timeout: float = 5.0,
    key: ApiKey = NO_KEY,
    job: dict[str, Any] | None = None,
    reply_model: str | None = None,
    **options: Any,
) -> tuple[Outcome, dict[str, Any]]:
    """`count` questions through client, engine and journal; the outcome and what the journal holds."""
    endpoint = Endpoint(server.url, "tiny", key, timeout=timeout, reply_model=reply_model)
    client = ChatClient(endpoint, limit=limit)

    async def work(task: Task) -> Any:
        return (await client.complete(task.payload, {"seed": 1})).text

    with Journal(folder / "journal.jsonl", job or {"a": 1}) as journal:
        tasks = [Task(f"k{i}", [{"role": "user", "content": f"question {i}"}]) for i in range(count)]
        outcome = run_tasks(
            tasks, work, journal, limit=limit, around=client, **{"base_wait": 0.01, "patience": 20.0, **options}
        )
        return outcome, {task.key: journal.result(task.key) for task in tasks if task.key in journal}


def expected(count: int = 40) -> dict[str, str]:
    return {
        f"k{i}": digest_answer({"messages": [{"role": "user", "content": f"question {i}"}], "seed": 1})
        for i in range(count)
    }


def test_every_task_is_asked_once_and_answered(tmp_path: Path) -> None:
    with FaultServer() as server:
        outcome, results = ask(server, tmp_path)
    assert results == expected()
    assert (server.requests, outcome.done, outcome.fresh, outcome.failed) == (40, 40, 40, 0)


@pytest.mark.parametrize(
    "fault", ["429", "500", "503", "truncate", "not_json", "no_choices", "drop", "gzip", "surrogate", "flood"]
)
def test_a_fault_is_retried_until_the_answer_is_good(tmp_path: Path, fault: str) -> None:
    with FaultServer(script=lambda number, seen: fault if seen < 2 and number % 3 == 0 else None) as server:
        outcome, results = ask(server, tmp_path)
    assert results == expected()
    assert outcome.retries == server.faults[fault] > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_request_without_a_whole_answer_in_time_is_given_up_and_sent_again(tmp_path: Path, fault: str) -> None:
    with FaultServer(script=lambda number, seen: fault if number == 3 else None) as server:
        outcome, results = ask(server, tmp_path, 10, timeout=2.0)
    assert results == expected(10)
    assert outcome.retries >= 1


def test_a_server_that_asks_to_wait_too_long_ends_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    with FaultServer(script=lambda number, seen: "wait_long" if number == 5 else None) as server:
        with pytest.raises(DataError, match=r"asks to wait 901 s .*longer than this run waits for one \(900 s\)"):
            ask(server, tmp_path, 50, limit=1)
        outcome, results = ask(server, tmp_path, 50, limit=1)
    assert results == expected(50)
    assert outcome.fresh == 45


def test_what_fails_to_the_last_is_no_result_and_is_tried_by_the_next_run(tmp_path: Path) -> None:
    with FaultServer(script=lambda number, seen: "500") as server:
        outcome, results = ask(server, tmp_path, 3, attempts=2)
        assert (outcome.done, outcome.failed, results) == (0, 3, {})
        assert server.requests == 6
    with FaultServer() as server:
        outcome, results = ask(server, tmp_path, 3)
    assert results == expected(3)
    assert (outcome.done, outcome.failed) == (3, 0)


def test_a_second_run_asks_nothing_that_is_done(tmp_path: Path) -> None:
    with FaultServer() as server:
        ask(server, tmp_path, 10)
        outcome, results = ask(server, tmp_path, 15)
        assert server.requests == 15
    assert results == expected(15)
    assert (outcome.done, outcome.fresh) == (15, 5)


def test_retry_after_stops_all_sending(tmp_path: Path) -> None:
    with FaultServer(script=lambda number, seen: "429" if number == 0 else None, latency=0.01) as server:
        ask(server, tmp_path, 20, limit=1)
        assert server.times[1] - server.times[0] >= 0.05


def test_refused_rows_fail_without_another_attempt(tmp_path: Path) -> None:
    with FaultServer(script=lambda number, seen: "400" if number == 4 else None) as server:
        outcome, results = ask(server, tmp_path, limit=1)
        assert server.requests == 40
    assert (outcome.failed, len(results)) == (1, 39)


def test_a_server_that_refuses_everything_stops_the_run(tmp_path: Path) -> None:
    with FaultServer(script=lambda number, seen: "400") as server, pytest.raises(DataError, match="were all refused"):
        ask(server, tmp_path, 1000)
    assert server.requests < 60


def test_a_server_that_is_down_stops_the_run_and_is_named(tmp_path: Path) -> None:
    with FaultServer() as server:
        pass
    with pytest.raises(DataError, match=r"cannot connect to http://127\.0\.0\.1"):
        ask(server, tmp_path, 5, patience=0.2, attempts=1000)


@pytest.mark.parametrize(("fault", "message"), [("wrong_model", "answers as 'another'"), ("404", "Check --url")])
def test_a_wrong_server_stops_the_run(tmp_path: Path, fault: str, message: str) -> None:
    with FaultServer(script=lambda number, seen: fault) as server, pytest.raises(DataError, match=message):
        ask(server, tmp_path, 50)


def test_the_model_is_compared_up_to_its_revision(tmp_path: Path) -> None:
    with FaultServer(reply_model="served@rev") as server:
        with pytest.raises(DataError, match="--reply-model 'served'"):
            ask(server, tmp_path, 1)
        assert ask(server, tmp_path, 1, reply_model="served")[0].done == 1


def test_a_key_is_sent_and_appears_in_no_error_and_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    planted = "sk-planted-0123456789"
    monkeypatch.setenv("PLANTED", planted)
    (tmp_path / "key").write_text(planted + "\n")
    caplog.set_level("DEBUG")
    for key in (read_key(environment="PLANTED"), read_key(file=tmp_path / "key")):
        with FaultServer(script=lambda number, seen: "401") as server, pytest.raises(DataError) as caught:
            ask(server, tmp_path, 5, key=key)
        assert f"Bearer {planted}" in server.headers[0]
        with FaultServer(script=lambda number, seen: "500") as server:
            outcome, _ = ask(server, tmp_path, 5, key=key, attempts=1)
        told = f"{caught.value} {outcome} {key!r} {Endpoint(server.url, 'm', key)!r} {caplog.text}"
        assert "[key]" in str(caught.value)
        assert planted not in told + (tmp_path / "journal.jsonl").read_text()


@pytest.mark.parametrize("url", ["nowhere", "http://", "http://[bad", "http://host:99999/v1", "ftp://host/v1", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(DataError, match=r"--url .*: not an address"):
        Endpoint(url, "m", NO_KEY)


@pytest.mark.parametrize("url", ["http://user:secret@host/v1", "http://host/v1?api_key=secret"])
def test_keys_in_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(DataError, match="keys belong in") as caught:
        Endpoint(url, "m", NO_KEY)
    assert "secret" not in str(caught.value)


def test_missing_keys_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(DataError, match="ABSENT: the variable is not set"):
        read_key(environment="ABSENT")
    (tmp_path / "two").write_text("a b")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for file, told in (
        ("two", "nothing else"),
        ("none", "no such file"),
        ("binary", "no text"),
        (".", "cannot be read .Is a directory."),
    ):
        with pytest.raises(DataError, match=told):
            read_key(file=tmp_path / file)


def test_a_journal_drops_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, {}) as journal:
        journal.append([("a", 1), ("b", 2)])
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[-1])):
        path.write_bytes(whole[:-cut])
        with Journal(path, {}) as journal:
            assert "b" not in journal
            assert journal.result("a") == 1
            journal.append([("b", 3)])
        with Journal(path, {}) as journal:
            assert journal.result("b") == 3


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, {}) as journal:
        journal.append([("a", 1), ("b", 2)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"?" + lines[1] + lines[2])
    with pytest.raises(DataError, match="line 2: damaged"):
        Journal(path, {})


def test_a_journal_of_another_job_is_refused_with_the_difference(tmp_path: Path) -> None:
    Journal(tmp_path / "j.jsonl", {"model": "a", "seed": 1}).close()
    with pytest.raises(DataError, match=r"model: 'a' then, 'b' now"):
        Journal(tmp_path / "j.jsonl", {"model": "b", "seed": 1})
    with Journal(tmp_path / "j.jsonl", {"model": "b", "seed": 1}, restart=True) as journal:
        assert len(journal) == 0


def test_two_processes_cannot_hold_one_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", {}), pytest.raises(DataError, match="another process"):
        Journal(tmp_path / "j.jsonl", {})


def test_a_failed_row_that_succeeds_later_is_failed_no_more(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        journal.append([], [("a", "bad")])
        assert "a" not in journal
        journal.append([("a", 1)])
        journal.append([("a", 2)])
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        assert (journal.result("a"), journal.failed) == (1, {})


def test_the_window_doubles_then_halves_once_per_round_then_creeps() -> None:
    async def play() -> list[float]:
        pace = Pace(100, start=4)
        seen = []
        for _ in range(2):
            entered = [await pace.enter() for _ in range(int(pace.width))]
            for e in entered:
                pace.leave(e, congested=False)
            seen.append(pace.width)
        entered = [await pace.enter() for _ in range(16)]
        for e in entered:
            pace.leave(e, congested=True)
        seen.append(pace.width)
        entered = [await pace.enter() for _ in range(8)]
        for e in entered:
            pace.leave(e, congested=False)
        seen.append(pace.width)
        return seen

    doubled, again, halved, crept = asyncio.run(play())
    assert (doubled, again, halved) == (8, 16, 8)
    assert crept == pytest.approx(9, abs=0.1)


def test_the_window_reaches_the_limit_and_never_passes_it(tmp_path: Path) -> None:
    with FaultServer(latency=1.0) as server:  # long, so that even a slow machine sends all that it may meanwhile
        ask(server, tmp_path, 50, limit=20)
        assert server.most_at_once == 20


def test_a_server_with_few_places_is_asked_less(tmp_path: Path) -> None:
    """A server that takes four at once and answers 429 to the rest: the window settles near it."""

    def script(number: int, seen: int) -> str | None:
        return "429" if server._at_once > 4 else None

    with FaultServer(script=script, latency=0.02) as server:
        _, results = ask(server, tmp_path, 150, limit=64, attempts=50)
        settled = server.requests - 150
    assert results == expected(150)
    assert settled < 150  # far fewer repeats than a client that keeps sending 64


def test_progress_tells_rate_failures_and_time_left() -> None:
    bar = WorkProgress("work", total=100, done=0)
    outcome = Outcome(done=50)
    bar._history = [(time.monotonic() - 10, 0)]
    bar.update(outcome, 8)
    told = bar.describe(outcome, 8)
    assert told.startswith("5.0/s, 0 failed, 0 retried, 8 at once")
    assert told.endswith("10 s left")


def test_a_task_that_is_opened_again_is_asked_again_and_remembers_its_past(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        journal.append([("a", 1), ("b", 2)])
        journal.reopen({"a": {"tries": 3}})
        assert ("a" in journal, len(journal), journal.past) == (False, 1, {"a": {"tries": 3}})
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        assert ("a" in journal, journal.past) == (False, {"a": {"tries": 3}})
        journal.append([("a", 4)])
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        assert (journal.result("a"), journal.result("b")) == (4, 2)


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    for content in (b"mine", b'{"id": 1}\n', b'{"id": 1}\n{"id": 2}\n'):
        (tmp_path / "j.jsonl").write_bytes(content)
        with pytest.raises(DataError, match=r"damaged|not a journal"):
            Journal(tmp_path / "j.jsonl", {})
        assert (tmp_path / "j.jsonl").read_bytes() == content


def test_journal_lines_are_plain_json(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", {"m": "é"}) as journal:
        journal.append([("k", {"text": "नमस्ते"})])
    lines = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[1] == {"key": "k", "result": {"text": "नमस्ते"}}
