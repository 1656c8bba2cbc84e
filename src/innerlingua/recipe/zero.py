"""DeepSpeed ZeRO-3: every weight is whole until the training begins, and the result is written whole.

transformers would hand each process its part of every weight while it loads them. The prior, the places of adapters and
the checks before training are read from whole weights, so the model is loaded as without DeepSpeed, by every process,
into main memory; DeepSpeed takes the weights apart when the training begins. What it costs is one copy of the model in
main memory for each process of a machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from innerlingua.errors import RecipeError
from innerlingua.training.sharding import is_zero_3

if TYPE_CHECKING:
    from trl import SFTConfig

__all__ = ["load_whole", "refuse_parts"]


def refuse_parts(args: SFTConfig) -> None:
    """Raise `RecipeError` when ZeRO-3 would leave the result in parts that no library loads as a model."""
    if is_zero_3(args) and not args.deepspeed_plugin.zero3_save_16bit_model:
        raise RecipeError(
            "DeepSpeed ZeRO-3 would save the weights in parts, one for each process, which nothing loads as a model: "
            "set zero3_save_16bit_model: true in the configuration of accelerate "
            "(stage3_gather_16bit_weights_on_model_save: true in DeepSpeed's own). The weights keep their type"
        )


def load_whole(args: SFTConfig) -> None:
    """Let transformers load models whole from here on, also under ZeRO-3; the trainer goes by `args` all the same."""
    if is_zero_3(args):
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
