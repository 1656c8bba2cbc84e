"""Whether the parameters of a model are whole in this process."""

from __future__ import annotations

import torch
from torch import nn

from innerlingua.errors import ModelError

__all__ = ["check_present", "is_sharded"]


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP, of either version, gathers the parameters of `model` around each forward pass."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(module, FSDPModule | FullyShardedDataParallel) for module in model.modules())


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
