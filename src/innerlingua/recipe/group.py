"""What the main process of a group does alone, and how the others learn that it failed.

A process that only waits at a barrier does not hear of an error in the main one: it waits until the launcher or a
timeout ends it. So the outcome is sent to all, and an error is raised in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from innerlingua.errors import InnerlinguaError

__all__ = ["on_main"]


def on_main(action: Callable[[], Any]) -> None:
    """Run `action` in the main process while the others wait; what it raises is raised in all of them.

    An error of `innerlingua.errors` comes as it is. Of any other the main process keeps the traceback, and the others
    raise a `RuntimeError` with its words.
    """
    if not PartialState().is_main_process:
        told: list[Exception | None] = [None]
        broadcast_object_list(told)
        if told[0] is not None:
            raise told[0]
        return
    try:
        action()
    except Exception as error:
        known = isinstance(error, InnerlinguaError)
        broadcast_object_list([error if known else RuntimeError(f"the main process failed: {error}")])
        raise
    broadcast_object_list([None])
