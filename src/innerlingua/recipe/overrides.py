"""Command-line options that change a recipe: `--alignment.weight 1.0 --trainer.learning-rate=1e-5 --trainer.bf16`.

The path is dotted, hyphen and underscore are the same, the value is read as YAML (so a list is `[7, 8]` and null is
`null`), and a key without a value means true where that can be meant. The command line wins over the file; of an option
given twice the last one wins, as in every other command.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from innerlingua.errors import RecipeError, nearest
from innerlingua.recipe.reading import parse_value

__all__ = ["Override", "apply_overrides", "parse_overrides"]


@dataclass(frozen=True)
class Override:
    """One option: the key's `path` below the recipe, its `value`, and the option as it was `written`.

    `text` is the value before it was read as YAML, None for an option without a value. Such an option stands for true;
    the schema refuses it where a key is no switch.
    """

    path: tuple[str, ...]
    value: Any
    written: str
    text: str | None = None


def parse_overrides(
    arguments: Sequence[str], *, sections: Collection[str], options: Collection[str] = ()
) -> list[Override]:
    """Read `arguments` (what is left of the command line) into overrides.

    `sections` are the recipe's top-level keys and `options` the verb's own options (`--resume`), both for the hint when
    a name is misspelt. Raises `RecipeError` for an unknown section, a stray word, or a value that is not YAML.
    """
    overrides: list[Override] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise RecipeError(
                f"command line: {word!r} belongs to no option. Options are written `--section.key value`; "
                "a list is one value, such as '[a.jsonl, b.jsonl]'."
            )
        written, equals, text = word.partition("=")
        path = tuple(written[2:].replace("-", "_").split("."))
        if path[0] not in sections:
            known = [f"--{name}" for name in sections] + list(options)
            hint = nearest(f"--{path[0]}" if len(path) > 1 else written, known)
            raise RecipeError(f"command line: unknown option {written}{hint}")
        if "" in path:
            raise RecipeError(f"command line: {written} has an empty part; options are written `--section.key value`.")
        bare = not equals and (not rest or rest[0].startswith("--"))
        if not equals and not bare:
            text = rest.pop(0)
        value = True if bare else parse_value(text, f"command line, {written}")
        overrides.append(Override(path=path, value=value, written=written, text=None if bare else text))
    return overrides


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """A copy of `values` with every override set; a section or mapping that is missing on the way is made.

    Raises `RecipeError` when a path goes through something that is not a mapping.
    """
    merged = copy.deepcopy(dict(values))
    for override in overrides:
        target = merged
        for depth, part in enumerate(override.path[:-1], start=1):
            if target.get(part) is None:
                target[part] = {}
            if not isinstance(target[part], dict):
                inside = ".".join(override.path[:depth])
                raise RecipeError(f"command line: {override.written} reaches into {inside}, which holds one value.")
            target = target[part]
        target[override.path[-1]] = override.value
    return merged
