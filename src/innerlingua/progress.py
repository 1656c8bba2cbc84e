"""How far long work is: bars in a terminal, and now and then a plain line elsewhere (a log, a pipe, a batch system)."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

__all__ = ["EVERY", "LineProgress"]

EVERY = 30.0
"""Seconds between two lines of a task."""


class LineProgress(Progress):
    """`rich.progress.Progress` that off a terminal prints a line for each task that moves, every half minute.

    rich itself prints nothing there until all is over.
    """

    def __init__(
        self, *columns: str | ProgressColumn, console: Console | None = None, disable: bool = False, **options: Any
    ) -> None:
        console = console or Console()
        bars = console.is_terminal or console.is_jupyter
        self._writes_lines = not disable and not bars
        self._said: dict[TaskID, float] = {}
        super().__init__(*columns, console=console, disable=disable or not bars, **options)

    def add_task(self, description: str, *args: Any, **options: Any) -> TaskID:
        """As rich's."""
        task = super().add_task(description, *args, **options)
        self._said[task] = self.get_time()
        return task

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's, and a line when one is due."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's, and a line when one is due."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now = self.get_time()
        if not self._writes_lines or now - self._said[task_id] < EVERY:
            return
        self._said[task_id] = now
        task = self._tasks[task_id]
        total = "" if task.total is None else f" of {task.total:,.0f}"
        self.console.print(f"{task.description}: {task.completed:,.0f}{total}", soft_wrap=True, highlight=False)
