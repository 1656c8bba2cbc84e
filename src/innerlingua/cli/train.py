"""`innerlingua train RECIPE`: one run, from a recipe to a checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from innerlingua.cli.output import fail, is_main_process, say
from innerlingua.cli.overrides import CONTEXT, recipe_from

__all__ = ["CONTEXT", "train"]


def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The YAML file that describes the run.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last complete checkpoint in trainer.output_dir.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that trainer.output_dir already holds.")
    ] = False,
) -> None:
    """Train as RECIPE says. Any key can be changed on the command line, where hyphen and underscore are the same.

    \b
    innerlingua train recipe.yaml
    innerlingua train recipe.yaml --alignment.weight 1.0 --trainer.learning-rate 1e-5
    innerlingua train recipe.yaml --data.train '[hi.jsonl, sw.jsonl]' --trainer.bf16
    innerlingua train recipe.yaml --resume
    accelerate launch --num_processes 8 -m innerlingua.cli train recipe.yaml

    Ctrl-C and SIGTERM end a run with exit code 130 and 143; --resume continues it from its last checkpoint.
    """
    loaded = recipe_from(recipe, context.args, options=("--resume", "--overwrite", "--help"), verb="train")
    try:
        with _ended_by_signals():
            from innerlingua.recipe.build import run_training

            run_training(loaded, resume=resume, overwrite=overwrite, say=say)
    except _Ended as ended:
        if is_main_process():
            fail(f"ended by {ended.signal.name}. {_left(loaded.trainer)}")
        raise SystemExit(128 + ended.signal) from None


class _Ended(KeyboardInterrupt):
    """A signal asked for the end. Libraries let a KeyboardInterrupt pass."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise `_Ended`, once: a second one acts as it did before."""
    owner = os.getpid()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(number: int, frame: FrameType | None) -> None:
        restore()
        if os.getpid() != owner:  # a worker that was forked from this process
            os.kill(os.getpid(), number)
            return
        raise _Ended(number)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        restore()


def _left(trainer: Mapping[str, Any]) -> str:
    from innerlingua.recipe.checkpoints import left

    return left(
        Path(str(trainer.get("output_dir"))),
        weights_only=bool(trainer.get("save_only_model")),
        whole="is whole: the same command with --resume continues from it",
        none="No checkpoint had been written; the same command starts again, with --overwrite where a run was begun",
    )
