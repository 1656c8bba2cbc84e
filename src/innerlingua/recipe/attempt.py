"""Around the training itself: what is left when it fails, and what is kept off its output."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState

from innerlingua.errors import RecipeError
from innerlingua.recipe import run
from innerlingua.recipe.checkpoints import left, unfinished
from innerlingua.recipe.writable import write_failure
from innerlingua.training.divergence import DivergenceError

if TYPE_CHECKING:
    from trl import SFTConfig

__all__ = ["attempt", "too_large", "without_unexpected_keys"]


@contextmanager
def attempt(folder: Path, args: SFTConfig) -> Iterator[None]:
    """Around the training and the saving of its result.

    One that fails before it has left anything leaves no unfinished run behind, either. What a full disk cut short is
    taken away. Where the training diverges or the disk is full, the message says what can be gone on from.
    """
    try:
        yield
    except BaseException as error:
        reason = write_failure(error)
        if PartialState().is_main_process:
            for path in unfinished(folder, weights_only=args.save_only_model) if reason else ():
                shutil.rmtree(path, ignore_errors=True)
            _clear_beginning(folder)
        if isinstance(error, torch.OutOfMemoryError):
            raise too_large(args, error) from error
        if isinstance(error, DivergenceError):
            raise DivergenceError(f"{error}. {_kept(folder, args, 'is from before it and whole')}") from error
        if reason and isinstance(error, Exception):
            raise RecipeError(
                f"trainer.output_dir: nothing more can be written to {folder} ({reason}). Make room there. "
                f"{_kept(folder, args, 'is whole: go on from it with --resume')}"
            ) from error
        raise


def _clear_beginning(folder: Path) -> None:
    """Remove a run that has left nothing but its records and the card that TRL writes beside its first checkpoint."""
    held = set(run.held(folder))
    own = {run.RECORD, run.RECIPE}
    if run.CARD in held and run.RECORD in held and run.CARD not in run.read_record(folder).get("beside", [run.CARD]):
        own.add(run.CARD)
    if not held <= own:
        return
    for name in held & {run.CARD}:
        (folder / name).unlink()
    run.clear_folder(folder)


def _kept(folder: Path, args: SFTConfig, whole: str) -> str:
    begun = (folder / run.RECORD).exists()
    follows = "start again with --overwrite" if begun else "so nothing is left of this run"
    none = f"No checkpoint had been written{':' if begun else ','} {follows}"
    return left(folder, weights_only=args.save_only_model, whole=whole, none=none)


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
    """Keeps two notices of transformers off a resume of full fine-tuning.

    A checkpoint holds every expert under a name of its own, the model holds them fused. `load_model` has fused them;
    the Trainer then reads the file again, finds thousands of names that the model lacks and others missing, and lists
    them all. `ResumeGuard` sees to it that nothing is missing.
    """
    noisy = logging.getLogger("transformers.trainer")

    def wanted(entry: logging.LogRecord) -> bool:
        return not re.match("There were (unexpected|missing) keys in the checkpoint model", entry.getMessage())

    noisy.addFilter(wanted)
    try:
        yield
    finally:
        noisy.removeFilter(wanted)
