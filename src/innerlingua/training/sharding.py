"""Whether a training takes the weights apart, so that no process has the whole model once it has begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelerate.utils import parse_flag_from_env

if TYPE_CHECKING:
    from trl import SFTConfig

__all__ = ["is_fsdp", "is_zero_3"]


def is_zero_3(args: SFTConfig) -> bool:
    """Whether DeepSpeed takes the weights apart, by the launcher's word or by `trainer.deepspeed`."""
    return args.deepspeed_plugin is not None and args.deepspeed_plugin.zero_stage == 3


def is_fsdp(args: SFTConfig) -> bool:
    """Whether FSDP takes the weights apart, by the launcher's word or by `trainer.fsdp`.

    On a CPU accelerate leaves both unheard.
    """
    asked = bool(args.fsdp) or bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))
    return asked and args.device.type != "cpu"
