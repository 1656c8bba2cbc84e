"""The end of a group of processes. What they say to each other before is in `innerlingua.routing.processes`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed

__all__ = ["own_group"]


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
