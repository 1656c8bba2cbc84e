"""What the verbs that read a recipe share: the recipe comes first, all that follows are its overrides."""

from __future__ import annotations

from pathlib import Path

from innerlingua.cli.output import hide_renames
from innerlingua.errors import RecipeError
from innerlingua.recipe import Recipe, load_recipe

__all__ = ["CONTEXT", "recipe_from"]

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Lets `--section.key value` through to us: which keys exist is the recipe's to say, not the parser's."""


def recipe_from(recipe: str, overrides: list[str], *, options: tuple[str, ...], verb: str) -> Recipe:
    """Load `recipe` with `overrides`. `options` are the verb's own, for the hint when one is misspelt."""
    if recipe.startswith("-"):
        raise RecipeError(
            f"command line: the recipe comes before the options: innerlingua {verb} recipe.yaml {recipe} ..."
        )
    hide_renames()
    return load_recipe(Path(recipe), overrides, options=options)
