"""`innerlingua routing ...`: what a model's routing does, apart from training it."""

from __future__ import annotations

from typing import Annotated

import typer

from innerlingua.cli import routing_profile, routing_report
from innerlingua.cli.output import say
from innerlingua.cli.overrides import CONTEXT, recipe_from

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Read a model's routing.", rich_markup_mode=None)


@app.command("prior", context_settings=CONTEXT)
def prior(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The YAML file that describes the run.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a stored prior that is out of date.")] = False,
) -> None:
    """Compute the routing of the anchors in the untrained model and store it under trainer.output_dir.

    `train` does the same when the prior is missing; do it ahead on one machine when training runs on many.

    \b
    innerlingua routing prior recipe.yaml
    innerlingua routing prior recipe.yaml --alignment.layers 7-16
    """
    loaded = recipe_from(recipe, context.args, options=("--overwrite", "--help"), verb="routing prior")

    from innerlingua.recipe.build import run_prior

    run_prior(loaded, overwrite=overwrite, say=say)


app.command("profile", cls=routing_profile.ManyValues)(routing_profile.profile)
app.command("compare")(routing_profile.compare)
app.command("layers")(routing_profile.layers)
app.command("report")(routing_report.report)
