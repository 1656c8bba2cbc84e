"""Around the training itself: what is left when it fails, and what is kept off its output."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState

from innerlingua.errors import RecipeError
from innerlingua.recipe import run

if TYPE_CHECKING:
    from trl import SFTConfig

__all__ = ["attempt", "too_large", "without_unexpected_keys"]


@contextmanager
def attempt(folder: Path, args: SFTConfig) -> Iterator[None]:
    """Around the training. One that fails before it has left anything leaves no unfinished run behind, either."""
    try:
        yield
    except BaseException as error:
        if PartialState().is_main_process and set(run.held(folder)) <= {run.RECORD, run.RECIPE}:
            run.clear_folder(folder)
        if isinstance(error, torch.OutOfMemoryError):
            raise too_large(args, error) from error
        raise


def too_large(args: SFTConfig, error: torch.OutOfMemoryError) -> RecipeError:
    """What to do when a pass forward and backward does not fit on the device."""
    return RecipeError(
        f"trainer.per_device_train_batch_size: {args.per_device_train_batch_size} rows at once do not fit on "
        f"{args.device}: {' '.join(str(error).split())[:200]}. Lower it and raise "
        "trainer.gradient_accumulation_steps as much; trainer.gradient_checkpointing: true, shorter rows "
        "(data.max_length), adapters (section peft) or more devices need less memory, too"
    )


@contextmanager
def without_unexpected_keys() -> Iterator[None]:
    """Keeps one notice of transformers off a resume of full fine-tuning.

    A checkpoint holds every expert under a name of its own, the model holds them fused. `load_model` has fused them;
    the Trainer then reads the file again, finds thousands of names that the model lacks, and lists them all on one
    line. `ResumeGuard` sees to it that nothing is missing.
    """
    noisy = logging.getLogger("transformers.trainer")

    def wanted(entry: logging.LogRecord) -> bool:
        return not entry.getMessage().startswith("There were unexpected keys in the checkpoint model loaded")

    noisy.addFilter(wanted)
    try:
        yield
    finally:
        noisy.removeFilter(wanted)
