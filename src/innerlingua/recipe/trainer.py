"""The section `trainer` against the real `trl.SFTConfig`: which fields exist, of which type and range, and what we set.

Importing this module imports torch and TRL. Nothing is loaded yet when `resolve_trainer` has spoken: a misspelt field
costs seconds, not the time that it takes to load a model. What only the libraries can judge is tried by `rehearsal.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from trl import SFTConfig

from innerlingua.errors import RecipeError, nearest
from innerlingua.recipe.schema import TRAINER_DEFAULTS, Recipe

__all__ = ["resolve_trainer", "sft_config", "shown", "trainer_values"]

# Consumed when rows are tokenised, before TRL sees them; TRL would refuse them for rows that are tokenised already.
_TOKENISING = frozenset({"assistant_only_loss", "completion_only_loss"})

# The libraries count without looking: a clip at -1 turns every gradient round, a share of NaN trains to NaN, and zero
# steps train one. A number is finite and at least 0, and beyond that:
_FROM_1 = frozenset(
    {
        *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
        *("save_total_limit", "eval_accumulation_steps", "torch_empty_cache_steps", "dataset_num_proc"),
        *("dataloader_prefetch_factor", "ddp_bucket_cap_mb", "ddp_timeout", "pad_to_multiple_of"),
    }
)
_ABOVE_0 = frozenset({"num_train_epochs", "logging_steps", "save_steps", "eval_steps"})
_BELOW_1 = frozenset({"adam_beta1", "adam_beta2", "label_smoothing_factor"})
_SEEDS = frozenset({"seed", "data_seed"})


def resolve_trainer(recipe: Recipe) -> Recipe:
    """`recipe` with the section `trainer` complete: our defaults, the machine's, and what the user said.

    Raises `RecipeError` for a field that `trl.SFTConfig` does not have (with the nearest one), a value of a wrong type,
    or a number out of its range.
    """
    given = _checked(recipe)
    cpu = bool(given.get("use_cpu", not torch.cuda.is_available()))
    machine = {"use_cpu": True, "bf16": False} if cpu else {"bf16": not given.get("fp16", False)}
    evaluation = {"eval_strategy": "epoch"} if recipe.data.eval is not None else {}
    forced = {"max_length": None, "remove_unused_columns": False}
    return recipe.model_copy(update={"trainer": {**TRAINER_DEFAULTS, **evaluation, **machine, **given, **forced}})


def sft_config(recipe: Recipe) -> SFTConfig:
    """The `trl.SFTConfig` of a resolved recipe. Raises `RecipeError` with TRL's words for what it refuses."""
    try:
        return SFTConfig(**trainer_values(recipe))
    except (ValueError, ImportError) as error:
        raise RecipeError(f"trainer: {' '.join(str(error).split())}") from error


def trainer_values(recipe: Recipe) -> dict[str, Any]:
    """The arguments of `trl.SFTConfig` in a resolved recipe."""
    return {key: value for key, value in recipe.trainer.items() if key not in _TOKENISING}


def _checked(recipe: Recipe) -> dict[str, Any]:
    """The section's fields, each as its type: on the command line 5 may be text, and 0 stands for 0.0 everywhere."""
    fields = {field.name: field for field in dataclasses.fields(SFTConfig) if field.init}
    hints = get_type_hints(SFTConfig)
    values: dict[str, Any] = {}
    problems = []
    for key, value in recipe.trainer.items():
        problem = f"trainer.{key} is no field of trl.SFTConfig{nearest(key, fields)}"
        if key in fields:
            values[key] = _as_meant(value, recipe.written(f"trainer.{key}"), hints[key])
            problem = _problem_of(key, values[key], hints[key], fields[key].metadata.get("choices"))
        if problem:
            problems.append(f"{recipe.where(f'trainer.{key}')}: {problem}")
    if problems:
        raise RecipeError("\n".join(problems))
    return values


def _as_meant(value: Any, written: str | None, hint: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and float in _kinds(hint) and int not in _kinds(hint):
        return float(value)
    if written is not None and value is not None and not _is_of(value, hint) and _is_of(written, hint):
        return written
    return value


def _is_of(value: Any, hint: Any) -> bool:
    adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def _problem_of(key: str, value: Any, hint: Any, choices: Collection[str] | None) -> str:
    """What is wrong with a value, in words; nothing when it is right."""
    if not _is_of(value, hint):
        return f"trainer.{key} is {shown(value)}; it must be {_type_name(hint)}"
    choices = choices or _enumerated(hint)
    if choices and value is not None and value not in choices:
        return f"trainer.{key} is {shown(value)}{nearest(str(value), choices)}"
    demand = _demand(key, value)
    written = int(value) if isinstance(value, float) and value.is_integer() else value  # -1 became -1.0 above
    return f"trainer.{key} is {shown(written)}; it must be {demand}" if demand else ""


def _demand(key: str, value: Any) -> str | None:
    """What a number, or the numbers in a mapping or list, had to be and are not."""
    if isinstance(value, Mapping | list):
        inside = value.values() if isinstance(value, Mapping) else value
        return next((demand for item in inside if (demand := _demand("", item)) is not None), None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return "a finite number" if key else "of finite numbers"
    if not key:
        return None
    if key == "max_steps":
        return None if value == -1 or value >= 1 else "at least 1; leave it out to train for num_train_epochs"
    if key == "save_total_limit" and value < 1:
        return "at least 1; leave it out to keep every checkpoint"
    if key in _FROM_1 and value < 1:
        return "at least 1"
    if key in _ABOVE_0 and value <= 0:
        return "above 0"
    if key in _BELOW_1 and not 0 <= value < 1:
        return "at least 0 and below 1"
    if key in _SEEDS and not 0 <= value < 2**32:
        return f"at least 0 and below {2**32}"
    return None if value >= 0 else "at least 0"


def shown(value: Any) -> str:
    """`value` as a recipe says it, cut where it is long."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _enumerated(hint: Any) -> list[str]:
    """The words of the enumeration that a field takes as text; none for other fields."""
    kinds = [kind for kind in _kinds(hint) if isinstance(kind, type) and issubclass(kind, Enum)]
    return [str(member.value) for kind in kinds for member in kind]


def _type_name(hint: Any) -> str:
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    # An enumeration of the libraries is written as text, and its annotation names text beside it.
    known = []
    for kind in _kinds(hint):
        word = words.get(get_origin(kind) or kind)
        inner = words.get(get_args(kind)[-1]) if get_origin(kind) in (list, dict) else None
        if word:
            known.append(f"{word} {'to' if get_origin(kind) is dict else 'of'} {inner}" if inner else word)
    return " or ".join(known) or str(hint)
