"""`innerlingua train RECIPE`: one run, from a recipe to a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from innerlingua.cli.output import say
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
    """
    loaded = recipe_from(recipe, context.args, options=("--resume", "--overwrite", "--help"), verb="train")

    from innerlingua.recipe.build import run_training

    run_training(loaded, resume=resume, overwrite=overwrite, say=say)
