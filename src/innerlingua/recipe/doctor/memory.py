"""What a training needs on its device, and what the device has.

Weights, buffers and gradients are counted from the model. The states of the optimiser come from a trial: the optimiser
itself makes one step on a lone tensor of every shape that is trained. Activations are measured: the peak, beyond
weights and gradients, of a forward and a backward pass. On a GPU that is the allocator's own peak; on a CPU it is the
sum of the storages that are alive, counted at every operation, since the size of a process says little.

Not counted: the context of CUDA and the allocator's gaps, what an optimiser holds only while it steps, what gathering
or reducing takes among several processes, evaluation, and saving.
"""

from __future__ import annotations

import math
import shutil
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from trl import SFTConfig

from innerlingua.recipe.doctor.prepared import Prepared
from innerlingua.recipe.doctor.report import Batch, Memory, Share
from innerlingua.training import Trainer

__all__ = [
    "LiveBytes",
    "Room",
    "StateTrial",
    "counted",
    "memory_facts",
    "missing_bytes",
    "optimizer_trial",
    "peak_of",
    "shares",
]


def memory_facts(
    args: SFTConfig,
    model: nn.Module,
    trial: StateTrial | None,
    folder: Path,
    *,
    least: Batch | None,
    most: Batch | None,
    processes: int,
    steps: int | None,
) -> Memory:
    """The section of the report on a `model` whose trained parameters require gradients.

    `steps` of the training, for how many checkpoints are written; None when that is not known.
    """
    weights, buffers, gradients = model_bytes(model)
    states = trial.bytes if trial is not None else None
    room = room_on(args.device)
    here = _bytes(tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.device == args.device)
    # Adapters are saved alone.
    saved = gradients if gradients < weights and type(model).__name__.startswith("Peft") else weights
    return Memory(
        device=room.device,
        capacity=room.capacity,
        free=room.free + here,
        weights=weights,
        buffers=buffers,
        gradients=gradients,
        optimizer=states,
        optimizer_name=str(args.optim.value),
        least=least,
        most=most,
        shares=shares(
            processes,
            weights=weights,
            gradients=gradients,
            optimizer=states or 0,
            rest=buffers + (most.bytes or 0 if most is not None else 0),
        ),
        checkpoint=saved + (0 if args.save_only_model else states or 0),
        checkpoints=_checkpoints(args, steps),
        disk_free=disk_free(folder),
    )


def missing_bytes(args: SFTConfig, model: nn.Module) -> int:
    """How much more memory the device would need for weights and gradients alone; 0 when they fit.

    That little is needed to look at gradients at all; a training needs more.
    """
    weights, buffers, gradients = model_bytes(model)
    here = _bytes(tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.device == args.device)
    return max(0, weights + buffers + gradients - here - room_on(args.device).free)


@dataclass(frozen=True)
class Room:
    """Bytes of a device: what it has, and what is free now."""

    device: str
    capacity: int
    free: int


def room_on(device: torch.device) -> Room:
    """The memory of `device`; the machine's for a CPU."""
    if device.type == "cuda":
        free, capacity = torch.cuda.mem_get_info(device)
        # What this process holds in reserve is free to it.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Room(f"{device} ({torch.cuda.get_device_name(device)})", capacity, free)
    memory = psutil.virtual_memory()
    return Room(str(device), int(memory.total), int(memory.available))


def disk_free(folder: Path) -> int:
    """Free bytes on the disk where `folder` is or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def model_bytes(model: nn.Module) -> tuple[int, int, int]:
    """Bytes of (parameters, buffers, gradients of what is trained)."""
    parameters = list(model.parameters())
    return (
        _bytes(parameters),
        _bytes(model.buffers()),
        _bytes(parameter for parameter in parameters if parameter.requires_grad),
    )


def _checkpoints(args: SFTConfig, steps: int | None) -> int:
    """How many checkpoints a training leaves on the disk at most."""
    if args.save_strategy == "no":
        return 0
    written = 1
    if args.save_strategy == "steps" and steps:
        every = args.save_steps if args.save_steps >= 1 else math.ceil(args.save_steps * steps)
        written = max(1, math.ceil(steps / every))
    elif args.save_strategy == "epoch":
        written = math.ceil(args.num_train_epochs)
    # Before the oldest goes, the newest is written.
    return written if args.save_total_limit is None else min(written, args.save_total_limit + 1)


# -- the optimiser ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StateTrial:
    """Bytes of the optimiser's states, and seconds of one step of it over everything that is trained (a sum over lone
    tensors, so rather too long)."""

    bytes: int
    seconds: float


def optimizer_trial(args: SFTConfig, model: nn.Module) -> StateTrial | None:
    """Let the optimiser of `args` step on one tensor of every shape and type that is trained in `model`.

    At most one tensor with its gradient and states is there at a time. None for an optimiser that needs the whole
    model.
    """
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    if {"params", "model", "optimizer_dict"} & options.keys():
        return None
    kinds = Counter((tuple(p.shape), p.dtype, p.device) for p in model.parameters() if p.requires_grad)
    states, seconds = 0, 0.0
    for (shape, dtype, device), count in kinds.items():
        tensor = nn.Parameter(torch.zeros(shape, dtype=dtype, device=device))
        optimizer = optimizer_class([tensor], **options)
        for _ in range(2):  # states are made in the first step
            tensor.grad = torch.zeros_like(tensor)
            started = time.perf_counter()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            elapsed = time.perf_counter() - started
        states += count * _bytes(value for value in tree_iter(dict(optimizer.state)) if isinstance(value, Tensor))
        seconds += count * elapsed
        del tensor, optimizer
    return StateTrial(states, seconds)


# -- activations ------------------------------------------------------------------------------------------------------


def peak_of(prepared: Prepared, work: Callable[[], Any]) -> int | None:
    """The peak in bytes, beyond weights and gradients, while `work` runs; the gradients are there from the beginning.

    None under a compiler, whose operations cannot be counted on a CPU.
    """
    device = prepared.trainer.args.device
    for _, parameter in prepared.trained():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    try:
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            work()
            return int(torch.cuda.max_memory_allocated(device)) - before
        if prepared.trainer.args.torch_compile:
            return None
        with counted(prepared.trainer.model) as count:
            work()
        return count.peak
    finally:
        prepared.clear_gradients()


@contextmanager
def counted(model: nn.Module) -> Iterator[LiveBytes]:
    """Count the storages that live inside, without those of `model` and its gradients."""
    count = LiveBytes()
    for tensor in (*model.parameters(), *model.buffers()):
        count.overlook(tensor)
        if tensor.grad is not None:
            count.overlook(tensor.grad)
    with count:
        yield count


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, from when they are made until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def overlook(self, tensor: Tensor) -> None:
        """Never count the storage of `tensor`, which was there before."""
        self._known.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._add(value)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


# -- several processes ------------------------------------------------------------------------------------------------


def shares(processes: int, *, weights: int, gradients: int, optimizer: int, rest: int) -> list[Share]:
    """What one of `processes` devices holds, by the way of spreading; `rest` is what every one has in full.

    DDP spreads nothing (and keeps a second copy of the gradients for its exchange); ZeRO-2 gradients and states; FSDP
    (fully_shard, as ZeRO-3) weights, too.
    """
    if processes == 1:
        return []
    return [
        Share("DDP", weights + 2 * gradients + optimizer + rest),
        Share("DeepSpeed ZeRO-2", weights + (gradients + optimizer) // processes + rest),
        Share("FSDP, all sharded", (weights + gradients + optimizer) // processes + rest),
    ]


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
