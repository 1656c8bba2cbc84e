"""The numeric type of a forward pass: that of the weights, or autocast's where a training casts automatically.

Two passes in different types route some tokens differently, and that gap has no meaning. So anchors are computed in the
type of the training.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["compute_type", "mixed_precision"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def mixed_precision(name: str, device: torch.device) -> torch.autocast:
    """Automatic casting on `device` as training arguments name it (`bf16`, `fp16`; any other word: none)."""
    return torch.autocast(device.type, dtype=_AUTOCAST.get(name, torch.bfloat16), enabled=name in _AUTOCAST)


def compute_type(model: nn.Module) -> str:
    """The numeric type that a pass of `model` would use now, such as `float32`; `model` may be wrapped."""
    device = next(model.parameters()).device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    else:
        dtype = next(module for module in model.modules() if isinstance(module, PreTrainedModel)).dtype
    return str(dtype).removeprefix("torch.")
