"""How far long work is: a bar in a terminal, a line every half minute elsewhere, both on standard error."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from innerlingua.data.work.engine import Outcome
from innerlingua.progress import LineProgress

__all__ = ["WorkProgress", "counted_off"]

_EVERY = 30.0
_MEMORY = 60.0
_Item = TypeVar("_Item")


def counted_off(
    items: Iterable[_Item], title: str, *, total: int, console: Console | None = None, quiet: bool = False
) -> Iterator[_Item]:
    """The items, with progress while each is dealt with: for what comes after the last request, such as judging."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with LineProgress(*columns, console=console or Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task(title, total=total)
        for item in items:
            yield item
            bar.advance(task)


class WorkProgress:
    """Progress with rate, failures and time left. The rate is that of the last minute.

    Args:
        title: what is being done.
        total: tasks of the whole job.
        done: those that earlier runs have done.
        console: where to; standard error unless given.
        quiet: show nothing.
    """

    def __init__(
        self, title: str, *, total: int, done: int, console: Console | None = None, quiet: bool = False
    ) -> None:
        self._console = console or Console(stderr=True, quiet=quiet)
        self._title = title
        self._total = total
        self._history: list[tuple[float, int]] = [(time.monotonic(), done)]
        self._said = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, told="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            told = f"{self._title}: stopped. What is done is kept: run the same command again to go on."
            self._console.print(told, soft_wrap=True, highlight=False)

    def update(self, outcome: Outcome, width: int) -> None:
        """Show where the work is; called by the engine."""
        now = time.monotonic()
        self._history.append((now, outcome.done))
        while len(self._history) > 2 and now - self._history[0][0] > _MEMORY:
            self._history.pop(0)
        told = self.describe(outcome, width)
        self._bar.update(self._task, completed=outcome.done, told=told)
        if not self._console.is_terminal and now - self._said >= _EVERY:
            self._said = now
            self._console.print(f"{self._title}: {outcome.done:,} of {self._total:,}, {told}", soft_wrap=True)

    def describe(self, outcome: Outcome, width: int) -> str:
        """Rate, failures, attempts repeated, requests at once, and time left, in words."""
        (then, before), (now, done) = self._history[0], self._history[-1]
        rate = (done - before) / (now - then) if now > then else 0.0
        left = self._total - done
        parts = [f"{rate:.1f}/s", f"{outcome.failed} failed", f"{outcome.retries} retried", f"{width} at once"]
        if rate > 0 and left > 0:
            parts.append(f"{_span(left / rate)} left")
        return ", ".join(parts)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
