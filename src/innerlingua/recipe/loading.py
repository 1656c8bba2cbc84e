"""From a file and command-line options to a checked `Recipe`, and back to YAML.

Checking is pydantic's; the messages are ours: every problem at once, each with the file and line or the option, the
dotted key, and the nearest known key.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from innerlingua.errors import InnerlinguaError, RecipeError, nearest
from innerlingua.recipe.origin import Origin
from innerlingua.recipe.overrides import Override, apply_overrides, parse_overrides
from innerlingua.recipe.reading import read_document
from innerlingua.recipe.schema import TEXT_WANTED, Recipe

__all__ = ["about", "load_recipe", "placed", "to_yaml"]

_EXPECTED = {
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "too_short": "a list that is not empty",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "finite_number": "a finite number",
}

_OURS = ("recipe", TEXT_WANTED)

_LIMITS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, options: Sequence[str] = ()) -> Recipe:
    """Read the recipe in `path`, with `overrides` as on the command line (`["--alignment.weight", "1.0"]`).

    A section that the file opens and leaves empty has its defaults; `--alignment null` switches one off. `options` are
    the names of the verb's own options, for the hint when an option is misspelt. Imports no torch. Raises
    `RecipeError` with every problem that was found, each naming the file and line (or the option) and the remedy.
    """
    document = read_document(path)
    # `alignment:` with nothing under it is the section with its defaults. Only an option switches a section off.
    optional = [name for name, field in Recipe.model_fields.items() if not field.is_required()]
    values = {key: {} if value is None and key in optional else value for key, value in document.values.items()}
    parsed = parse_overrides(overrides, sections=tuple(Recipe.model_fields), options=options)
    while True:
        try:
            recipe = Recipe.model_validate(apply_overrides(values, parsed))
        except ValidationError as error:
            as_text = _texts_for_strings(parsed, error)
            if as_text == parsed:
                problems = "\n".join(_messages(Origin(document, tuple(parsed)), error))
                raise RecipeError(problems) from error
            parsed = as_text
        else:
            return recipe.from_origin(Origin(document, tuple(parsed)))


@contextmanager
def about(key: str) -> Iterator[None]:
    """Around what `key` asks for: an error opens with the key."""
    try:
        yield
    except InnerlinguaError as error:
        error.args = (f"{key}: {error}",)
        raise


@contextmanager
def placed(recipe: Recipe) -> Iterator[None]:
    """Around what works with `recipe`: an error whose message opens with a key gets the key's file and line, or option.

    `model.path: there is no folder x` becomes `recipe.yaml, line 2: model.path: there is no folder x`.
    """
    try:
        yield
    except InnerlinguaError as error:
        sections = "|".join(Recipe.model_fields)
        opening = re.match(rf"(?:{sections})(?:\.[a-z_0-9]+)+", str(error))
        if opening is not None:
            error.args = (f"{recipe.where(opening[0])}: {error}",)
        raise


def to_yaml(values: Mapping[str, Any]) -> str:
    """`values` as YAML that `load_recipe` reads back to the same values."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(dict(values), stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Lists on one line (layers, paths), mappings one key a line."""

    def represent_list(self, data: list[Any]) -> Any:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Representer.add_representer(list, _Representer.represent_list)


def _texts_for_strings(overrides: list[Override], error: ValidationError) -> list[Override]:
    """On the command line `--model.revision 1234567` can only mean the text: quotes do not survive the shell."""
    wanted = {_path(item) for item in error.errors() if item["type"] in ("string_type", TEXT_WANTED)}
    return [
        Override(path=o.path, value=o.text, written=o.written, text=o.text)
        if o.path in wanted and o.text is not None and o.value is not None and not isinstance(o.value, str)
        else o
        for o in overrides
    ]


def _messages(origin: Origin, error: ValidationError) -> list[str]:
    messages: dict[str, None] = {}
    for item in error.errors(include_url=False):
        kind, value = item["type"], item["input"]
        path = _path(item)
        dotted = ".".join(path)
        override = origin.override(path)
        where = origin.where(path)
        if override and override.text is None and override.path == path and kind.endswith("_type"):
            text = f"{override.written} needs a value."
        elif kind == "extra_forbidden":
            text = f"unknown key {dotted}{nearest(path[-1], _known_keys(path[:-1]))}"
        elif kind == "missing":
            text = f"{dotted} is missing." if len(path) > 1 else f"the section {dotted} is missing."
        elif kind in _OURS:
            text = f"{item['msg']}." if dotted in item["msg"] else f"{dotted} {item['msg']}."
        elif kind in _EXPECTED:
            quotes = "; put it in quotes" if kind == "string_type" and isinstance(value, bool | int | float) else ""
            text = f"{dotted} is {_show(value)}; it must be {_EXPECTED[kind]}{quotes}."
        elif kind in _LIMITS:
            text = f"{dotted} is {_show(value)}; it must be {_LIMITS[kind]} {next(iter(item['ctx'].values()))}."
        elif kind == "literal_error":
            expected = item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            text = f"{dotted} is {_show(value)}{nearest(str(value), expected)}"
            if "; known" not in text:
                text += f" Known: {', '.join(expected)}."
        else:
            text = f"{dotted} is {_show(value)}: {item['msg'][:1].lower()}{item['msg'][1:]}."
        messages[f"{where}: {text}"] = None
    return list(messages)


def _path(item: ErrorDetails) -> tuple[str, ...]:
    """The key to blame; a contradiction between sections opens with it."""
    named = re.match(r"[a-z_]+(\.[a-z_]+)+", item["msg"]) if item["type"] in _OURS else None
    return tuple(named[0].split(".")) if named else _strings(item["loc"])


def _strings(location: Sequence[int | str]) -> tuple[str, ...]:
    return tuple(str(part) for part in location)


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    if key not in model.model_fields:
        return None
    annotation = model.model_fields[key].annotation
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _known_keys(path: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] | None = Recipe
    for key in path:
        model = _section(model, key) if model is not None else None
    return list(model.model_fields) if model is not None else []


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
