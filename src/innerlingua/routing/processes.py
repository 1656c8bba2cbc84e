"""The processes that share a piece of work: what one says to all, what all say to each, and an error of any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from innerlingua.errors import InnerlinguaError

__all__ = ["ALONE", "Processes", "all_processes"]

T = TypeVar("T")
# Of a sum over processes, so that a GPU need not hold the whole of a large tensor.
_PIECE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Processes:
    """`size` processes, of which this is number `rank`; the first is the main one. One alone talks to nobody."""

    rank: int
    size: int

    @property
    def is_main(self) -> bool:
        """Whether this is the first of them."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order of rank."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, value)
        return cast("list[T]", found)

    def together(self, action: Callable[[], T]) -> T:
        """Run `action`, and wait until all have run theirs. What one of them raises is raised in every process.

        Errors of this package and of a device that is too small come as they are, others as a `RuntimeError` with their
        words in the processes that had none.
        """
        if self.size == 1:
            return action()
        result: T | None = None
        own: Exception | None = None
        try:
            result = action()
        except Exception as error:
            own = error
        told = [error for error in self.gather(_portable(own, self.rank)) if error is not None]
        if own is not None:
            raise own
        if told:
            raise told[0]
        return cast("T", result)

    def on_main(self, action: Callable[[], T]) -> T:
        """What `action` gives in the main process, in all of them."""
        found = self.gather(self.together(lambda: action() if self.is_main else None))
        return cast("T", found[0])

    def add_up(self, tensor: Tensor, device: torch.device) -> None:
        """Put the sum over all processes in place of `tensor` (on the CPU); `device` is where the weights are."""
        if self.size == 1:
            return
        place = _reducing_device(dist.get_backend(), device)
        flat, size = tensor.view(-1), _PIECE_BYTES // tensor.element_size()
        for start in range(0, flat.numel(), size):
            piece = flat[start : start + size]
            sent = piece.to(place)
            dist.all_reduce(sent)
            piece.copy_(sent)


ALONE = Processes(rank=0, size=1)


def all_processes() -> Processes:
    """The group that torch.distributed has made, or this process alone."""
    if not dist.is_available() or not dist.is_initialized():
        return ALONE
    return Processes(dist.get_rank(), dist.get_world_size())


def _reducing_device(backend: str, device: torch.device) -> torch.device:
    """Where `backend` can add up: NCCL on GPUs alone, also while the weights at `device` are offloaded or on meta."""
    if backend != "nccl":
        return torch.device("cpu")
    return device if device.type == "cuda" else torch.device("cuda", torch.cuda.current_device())


def _portable(error: Exception | None, rank: int) -> Exception | None:
    if error is None or isinstance(error, InnerlinguaError | OSError | torch.OutOfMemoryError):
        return error
    return RuntimeError(f"process {rank} failed: {type(error).__name__}: {error}")
