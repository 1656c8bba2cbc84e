"""The result of a training: the model's files, and `train_result.json` about them."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from innerlingua.recipe import run
from innerlingua.recipe.rows import Rows
from innerlingua.recipe.schema import Recipe

if TYPE_CHECKING:
    from innerlingua.training import Trainer

__all__ = ["result_of", "save_model", "versions"]

_PACKAGES = ("innerlingua", "torch", "transformers", "trl", "peft", "accelerate", "datasets")


def save_model(trainer: Trainer, folder: Path) -> list[str]:
    """Save the model and the tokenizer into `folder`, and return the names of the files, sorted.

    They are written aside and moved, configuration last: what is cut short does not load as a model.
    """
    aside, state = folder / ".saving", PartialState()
    if state.is_main_process and aside.exists():
        shutil.rmtree(aside)
    state.wait_for_everyone()
    try:
        trainer.save_model(str(aside))
    except BaseException:
        if state.is_main_process:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    state.wait_for_everyone()
    if not state.is_main_process:
        return []
    names = sorted((path.name for path in aside.iterdir()), key=lambda name: (name.endswith("config.json"), name))
    card = (folder / run.CARD).exists() and run.CARD not in run.read_record(folder)["beside"]
    run.record_files(folder, [*names, *([run.CARD] if card else [])])
    for name in names:
        os.replace(aside / name, folder / name)
    aside.rmdir()
    return sorted(names)


def result_of(
    trainer: Trainer, recipe: Recipe, rows: Rows, *, checkpoint: Path | None, prior: str | None, files: list[str]
) -> dict[str, Any]:
    """The record of a finished training; `checkpoint` is what it was resumed from, `prior` the digest of its prior."""
    return {
        "schema": 1,
        "command": "train",
        "versions": versions(),
        "seed": trainer.args.seed,
        "rows": rows.counts,
        "layers": recipe.alignment.layers if recipe.alignment else None,
        "prior": prior,
        "steps": trainer.state.global_step,
        "distributed": _distribution(trainer),
        "metrics": _last_values(trainer.state.log_history, trained=_steps_made(trainer, checkpoint) > 0),
        "files": files,
    }


def versions() -> dict[str, str]:
    """The versions of this package and of those that a training is made of."""
    return {name: version(name) for name in _PACKAGES}


def _distribution(trainer: Trainer) -> dict[str, Any]:
    """How the training was spread: a launcher that was asked for two processes may have started one."""
    accelerator, plugin = trainer.accelerator, trainer.args.deepspeed_plugin
    return {
        "processes": accelerator.num_processes,
        "kind": accelerator.distributed_type.value,
        "wrapper": type(trainer.model_wrapped).__name__,
        "zero_stage": None if plugin is None else plugin.zero_stage,
    }


def _steps_made(trainer: Trainer, checkpoint: Path | None) -> int:
    """The steps of this process; none for a run that was resumed after its last one."""
    before = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    return int(trainer.state.global_step) - before


def _last_values(history: list[dict[str, float]], *, trained: bool) -> dict[str, float]:
    merged: dict[str, float] = {}
    for entry in history:
        merged |= entry
    # The Trainer's mean loss and speed are those of this process; over no step, they are numbers of nothing.
    return {key: value for key, value in merged.items() if trained or not key.startswith("train_")}
