"""A group of processes: what the main one does alone, how the others learn that it failed, and the end of the group.

A process that only waits at a barrier does not hear of an error in the main one: it waits until the launcher or a
timeout ends it. So the outcome is sent to all, and an error is raised in every process.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from innerlingua.errors import InnerlinguaError

__all__ = ["on_main", "own_group"]


@contextmanager
def own_group() -> Iterator[None]:
    """Takes the process group down that was made inside; one that was there before stays.

    Nobody else does. gloo's threads then live until the interpreter ends, and a thread that frees a tensor while the
    interpreter goes down aborts a process whose work was done (pytorch/pytorch#190489). Models that are wrapped for the
    group keep it alive, so what only refers to itself is freed first. After an error under NCCL the group is left to
    the launcher: its end would wait for processes that may never come.
    """
    before = _is_up()
    try:
        yield
    except BaseException:
        if not before and _is_up() and torch.distributed.get_backend() == "gloo":
            torch.distributed.destroy_process_group()
        raise
    if not before and _is_up():
        gc.collect()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _is_up() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


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
