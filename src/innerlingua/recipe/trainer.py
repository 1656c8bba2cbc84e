"""The section `trainer` against the real `trl.SFTConfig`: which fields exist, of which type, and what we set.

Importing this module imports torch and TRL. Nothing is loaded yet when `resolve_trainer` has spoken: a misspelt field
costs seconds, not the time that it takes to load a model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from trl import SFTConfig

from innerlingua.errors import RecipeError, nearest
from innerlingua.recipe.schema import TRAINER_DEFAULTS, Recipe

__all__ = ["resolve_trainer", "sft_config"]

# Consumed when rows are tokenised, before TRL sees them; TRL would refuse them for rows that are tokenised already.
_TOKENISING = frozenset({"assistant_only_loss", "completion_only_loss"})


def resolve_trainer(recipe: Recipe) -> Recipe:
    """`recipe` with the section `trainer` complete: our defaults, the machine's, and what the user said.

    Raises `RecipeError` for a field that `trl.SFTConfig` does not have (with the nearest one) or a value of a wrong
    type.
    """
    given = recipe.trainer
    _check_fields(given)
    cpu = bool(given.get("use_cpu", not torch.cuda.is_available()))
    machine = {"use_cpu": True, "bf16": False} if cpu else {"bf16": not given.get("fp16", False)}
    evaluation = {"eval_strategy": "epoch"} if recipe.data.eval is not None else {}
    forced = {"max_length": None, "remove_unused_columns": False}
    return recipe.model_copy(update={"trainer": {**TRAINER_DEFAULTS, **evaluation, **machine, **given, **forced}})


def sft_config(recipe: Recipe) -> SFTConfig:
    """The `trl.SFTConfig` of a resolved recipe. Raises `RecipeError` with TRL's words for what it refuses."""
    values = {key: value for key, value in recipe.trainer.items() if key not in _TOKENISING}
    try:
        return SFTConfig(**values)
    except (ValueError, ImportError) as error:
        raise RecipeError(f"trainer: {' '.join(str(error).split())}") from error


def _check_fields(values: Mapping[str, Any]) -> None:
    fields = {field.name: field for field in dataclasses.fields(SFTConfig) if field.init}
    hints = get_type_hints(SFTConfig)
    problems = []
    for key, value in values.items():
        if key not in fields:
            problems.append(f"trainer.{key} is no field of trl.SFTConfig{nearest(key, fields)}")
            continue
        choices = fields[key].metadata.get("choices")
        adapter: TypeAdapter[Any] = TypeAdapter(
            hints[key], config=ConfigDict(strict=True, arbitrary_types_allowed=True)
        )
        try:
            adapter.validate_python(value)
        except ValidationError:
            problems.append(f"trainer.{key} is {value!r}; it must be {_type_name(fields[key].type)}")
            continue
        if choices is not None and value is not None and value not in choices:
            problems.append(f"trainer.{key} is {value!r}{nearest(str(value), choices)}")
    if problems:
        raise RecipeError("\n".join(problems))


def _type_name(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    parts = [part.strip().rpartition(".")[2] for part in text.split("|")]
    return " or ".join(words.get(part, part) for part in parts if part != "None")
