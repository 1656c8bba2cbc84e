"""Run many tasks against something slow and unreliable, and lose nothing.

Results go to the journal in groups, a tenth of a second apart, and count as done only when they are on disk. A task
that cannot be answered now is tried again after a pause that grows and is jittered; one that fails to the last is
recorded as failed. When nothing has succeeded for `patience` seconds, the run stops with the last reason: hammering a
server that is down helps nobody, and the next run goes on from here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from innerlingua.data.work.journal import Journal
from innerlingua.data.work.lookup import LookupLoop
from innerlingua.data.work.pace import Pace, backoff
from innerlingua.errors import DataError

__all__ = ["Monitor", "Outcome", "Refused", "Retryable", "Task", "run_tasks"]

_FLUSH = 0.1
_LONGEST_PAUSE = 900.0
_REFUSALS = 10


@dataclass(frozen=True)
class Task:
    """One piece of work: a key that names it for good, and what is needed to do it."""

    key: str
    payload: Any


class Retryable(Exception):  # noqa: N818  (what is to be done, not what went wrong)
    """An attempt that failed for now.

    Args:
        reason: in words, without secrets.
        congested: whether it shows that too much was asked at once.
        wait: seconds that the server asked for.
    """

    def __init__(self, reason: str, *, congested: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.congested = congested
        self.wait = wait


class Refused(Exception):  # noqa: N818
    """A task that cannot succeed by trying again, such as a prompt beyond the model's context."""


@dataclass
class Outcome:
    """What a run came to: `done` counts all of the job, also from earlier runs; `failures` maps reasons to counts."""

    done: int = 0
    fresh: int = 0
    retries: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """How many tasks failed in this run."""
        return sum(self.failures.values())


class Monitor(Protocol):
    """What is told how the work goes, such as a progress bar."""

    def update(self, outcome: Outcome, width: int) -> None:
        """Called several times a second."""


def run_tasks(
    tasks: Iterable[Task],
    work: Callable[[Task], Awaitable[Any]],
    journal: Journal,
    *,
    limit: int,
    attempts: int = 8,
    patience: float = 120.0,
    base_wait: float = 0.5,
    done: int | None = None,
    monitor: Monitor | None = None,
    around: Any = None,
) -> Outcome:
    """Do every task that the journal does not hold as done.

    Args:
        tasks: in any order; keys must be unique. Read lazily.
        work: does one task and returns its result (JSON), or raises `Retryable`, `Refused`, or, to stop everything, an
            `InnerlinguaError`.
        journal: where results go.
        limit: the most tasks at once.
        attempts: tries per task in one run.
        patience: seconds without any success after which the run stops.
        base_wait: first bound of the pause between attempts, seconds.
        done: how many of the tasks the journal holds already; all that it holds unless given.
        monitor: told about progress.
        around: an asynchronous context manager that `work` needs, such as its client; entered inside the event loop.

    Raises:
        DataError: nothing succeeded for `patience` seconds, the first ten tasks were all refused, or the server asks
            to wait longer than a quarter of an hour.
        OSError: the journal cannot be written, as on a full disk; the work stops there and then.
    """
    if limit < 1 or attempts < 1:
        raise DataError(f"concurrency {limit} and attempts {attempts} must both be at least 1")
    held = len(journal) if done is None else done
    run = _Run(iter(tasks), work, journal, held, Pace(limit), attempts, patience, base_wait, monitor)
    with asyncio.Runner(loop_factory=LookupLoop) as runner:
        return runner.run(run.whole(limit, around))


class _Run:
    def __init__(
        self,
        tasks: Iterator[Task],
        work: Callable[[Task], Awaitable[Any]],
        journal: Journal,
        held: int,
        pace: Pace,
        attempts: int,
        patience: float,
        base_wait: float,
        monitor: Monitor | None,
    ) -> None:
        self._tasks = tasks
        self._work = work
        self._journal = journal
        self._pace = pace
        self._attempts = attempts
        self._patience = patience
        self._base_wait = base_wait
        self._monitor = monitor
        self._outcome = Outcome(done=held)
        self._held = held
        self._done: list[tuple[str, Any]] = []
        self._failed: list[tuple[str, str]] = []
        self._successes = 0
        self._last_success = time.monotonic()

    async def whole(self, limit: int, around: Any) -> Outcome:
        if around is None:
            return await self._all(limit)
        async with around:
            return await self._all(limit)

    async def _all(self, limit: int) -> Outcome:
        # Twice as many workers as places: those that wait for their next attempt hold no place.
        workers = [asyncio.create_task(self._worker()) for _ in range(2 * limit)]
        recorder = asyncio.create_task(self._recorder())
        everyone = asyncio.gather(*workers)
        try:
            # The recorder ends only by failing, and then nothing may go on: what is not on disk is not done.
            await asyncio.wait((everyone, recorder), return_when=asyncio.FIRST_COMPLETED)
            if recorder.done():
                recorder.result()
            await everyone
        finally:
            for task in (*workers, recorder):
                task.cancel()
            await asyncio.gather(everyone, *workers, recorder, return_exceptions=True)
            self._record()
        return self._outcome

    async def _recorder(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH)
            # In this thread: a hundredth of a second for many rows costs less than handing them over safely.
            self._record()

    def _record(self) -> None:
        done, failed = self._done, self._failed
        if done or failed:
            self._journal.append(done, failed)
            self._done, self._failed = [], []
        self._outcome.fresh += len(done)
        self._outcome.done = self._held + self._outcome.fresh
        self._outcome.failures.update(reason for _, reason in failed)
        if self._monitor is not None:
            self._monitor.update(self._outcome, int(self._pace.width))

    async def _worker(self) -> None:
        for task in self._tasks:
            if task.key not in self._journal:
                await self._attempt(task)

    async def _attempt(self, task: Task) -> None:
        attempt = 0
        while (trouble := await self._once(task)) is not None:
            attempt += 1
            if trouble.wait is not None:
                self._pause(trouble)
            self._give_up_in_time(trouble)
            if attempt == self._attempts:
                self._failed.append((task.key, trouble.reason))
                return
            self._outcome.retries += 1
            await asyncio.sleep(backoff(attempt - 1, base=self._base_wait))

    async def _once(self, task: Task) -> Retryable | None:
        """One attempt in one place of the window; what went wrong, if it is worth another."""
        entered = await self._pace.enter()
        congested: bool | None = None
        try:
            result = await self._work(task)
            congested = False
        except Refused as error:
            congested = False
            self._refuse(task, str(error))
            return None
        except Retryable as error:
            congested = True if error.congested else None
            return error
        finally:
            self._pace.leave(entered, congested=congested)
        self._successes += 1
        self._last_success = time.monotonic()
        self._done.append((task.key, result))
        return None

    def _pause(self, trouble: Retryable) -> None:
        wait = trouble.wait or 0.0
        if wait > _LONGEST_PAUSE:
            raise DataError(
                f"the server asks to wait {wait:.0f} s ({trouble.reason}), longer than this run waits for one "
                f"({_LONGEST_PAUSE:.0f} s). What is done is kept: run the same command again then."
            )
        self._pace.pause(wait)
        # Waiting because one was told to is no sign of a dead server.
        self._last_success = max(self._last_success, time.monotonic() + wait)

    def _give_up_in_time(self, trouble: Retryable) -> None:
        silent = time.monotonic() - self._last_success
        if silent > self._patience:
            raise DataError(
                f"no answer worth keeping for {silent:.0f} s (--patience); the last trouble: {trouble.reason}. What is "
                "done is kept: run the same command again when the server is well."
            )

    def _refuse(self, task: Task, reason: str) -> None:
        self._failed.append((task.key, reason))
        if not self._successes and self._outcome.failed + len(self._failed) >= _REFUSALS:
            raise DataError(f"the first {_REFUSALS} requests were all refused; the last answer: {reason}")
