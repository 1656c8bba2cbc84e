"""Models whose parameters are not whole in this process: sharded by FSDP, or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from innerlingua.errors import ModelError

__all__ = ["check_present", "dimensions", "is_sharded", "resharded", "whole"]


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP, of either version, gathers the parameters of `model` around each forward pass."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(module, FSDPModule | FullyShardedDataParallel) for module in model.modules())


@contextmanager
def resharded(model: nn.Module) -> Iterator[None]:
    """Around passes outside a training step: afterwards every parameter is in its pieces again.

    FSDP2 may keep the last layers whole after a forward pass and wait for the backward pass to let them go. Whoever
    makes an optimizer in between is handed the whole copies, and what it trains is lost.
    """
    try:
        yield
    finally:
        if is_sharded(model):
            from torch.distributed.fsdp import FSDPModule

            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """`tensor` itself, or the whole of it when it is spread over processes, all of which must ask then."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def dimensions(parameter: Tensor) -> int:
    """How many dimensions `parameter` has, also where DeepSpeed ZeRO-3 has left an empty tensor in its place."""
    return len(parameter.ds_shape) if hasattr(parameter, "ds_shape") else parameter.dim()


def check_present(model: nn.Module) -> None:
    """Raise `ModelError` when `model` has weights that this process cannot run: on the meta device, or partitioned."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"the weights of {type(model).__name__} are not in this process ({name} is on the meta device, as with "
                "FSDP's cpu_ram_efficient_loading, where the first process of a machine alone loads them): do this in "
                "the process that has them"
            )
        if hasattr(parameter, "ds_id") and parameter.numel() == 0:
            raise ModelError(
                f"the weights of {type(model).__name__} are partitioned by DeepSpeed ZeRO-3 ({name} is empty here); "
                "no process can run the model by itself: load the model before the arguments that name DeepSpeed, or "
                "launch with DeepSpeed ZeRO-2 or FSDP (fsdp_version: 2)"
            )
