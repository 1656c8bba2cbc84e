"""Progress off a terminal: a line now and then, and nothing of a bar."""

import io

import pytest
from rich.console import Console

from innerlingua.progress import EVERY, LineProgress


class Clock:
    """Seconds, set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def progress(clock: Clock, *, terminal: bool = False, disable: bool = False) -> tuple[LineProgress, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal)
    return LineProgress(console=console, disable=disable, get_time=clock, auto_refresh=False), text


def test_a_line_is_printed_every_half_minute(clock: Clock) -> None:
    bar, text = progress(clock)
    with bar:
        first = bar.add_task("prior", total=4000)
        for _ in range(90):
            clock.now += 1
            bar.advance(first, 10)
    assert text.getvalue() == "prior: 300 of 4,000\nprior: 600 of 4,000\nprior: 900 of 4,000\n"


def test_tasks_have_lines_of_their_own(clock: Clock) -> None:
    bar, text = progress(clock)
    with bar:
        first, second = bar.add_task("base", total=10), bar.add_task("tuning", total=None)
        clock.now += EVERY
        bar.update(first, completed=3)
        bar.update(second, completed=1)
        bar.update(second, completed=2)
    assert text.getvalue() == "base: 3 of 10\ntuning: 1\n"


@pytest.mark.parametrize(("terminal", "disable"), [(True, False), (False, True)])
def test_a_terminal_has_bars_and_who_wants_nothing_gets_nothing(clock: Clock, terminal: bool, disable: bool) -> None:
    bar, text = progress(clock, terminal=terminal, disable=disable)
    with bar:
        task = bar.add_task("base", total=10)
        clock.now += EVERY
        bar.advance(task)
    assert "base: 1 of 10" not in text.getvalue()
    assert bool(text.getvalue()) == terminal
