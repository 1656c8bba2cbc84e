"""How every command begins that runs a recipe: its trainer is resolved, tried and seeded, and nothing is loaded yet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from accelerate import PartialState
from transformers import enable_full_determinism, set_seed

from innerlingua.recipe.rehearsal import rehearse
from innerlingua.recipe.schema import Recipe
from innerlingua.recipe.trainer import resolve_trainer, sft_config
from innerlingua.recipe.writable import refusing_full
from innerlingua.recipe.zero import load_whole

if TYPE_CHECKING:
    from trl import SFTConfig

__all__ = ["begin", "resolved"]


def begin(recipe: Recipe, say: Callable[[str], None]) -> tuple[Recipe, SFTConfig, PartialState]:
    """The recipe with every key of its trainer, checked and rehearsed, and the arguments of it; seeds the process."""
    given = resolved(recipe, say)
    recipe = resolve_trainer(given)
    with refusing_full(f"the folder for temporary files (TMPDIR, {tempfile.gettempdir()})"):
        rehearse(given)
    if recipe.trainer.get("use_cpu"):
        say(f"no CUDA device is used: use_cpu: true, bf16: {str(recipe.trainer['bf16']).lower()}")
    args = sft_config(recipe)
    load_whole(args)
    # The trainer seeds itself, but only after adapters were drawn.
    if args.full_determinism:
        enable_full_determinism(args.seed)
    else:
        set_seed(args.seed)
    return recipe, args, PartialState()


def resolved(recipe: Recipe, say: Callable[[str], None]) -> Recipe:
    """`recipe` with the keys of ours that depend on other sections."""
    model, data = recipe.model, recipe.data
    if model.dtype is None:
        model = model.model_copy(update={"dtype": "float32" if recipe.peft is None else "auto"})
        why = "full fine-tuning" if recipe.peft is None else "the checkpoint's own, under adapters"
        say(f"model.dtype: {model.dtype} ({why})")
    if data.missing_anchor is None:
        data = data.model_copy(update={"missing_anchor": "error" if recipe.terms else "keep"})
    return recipe.model_copy(update={"model": model, "data": data})
