"""Changes to a recipe file that leave the rest as it was written: comments, order, quotes. Imports no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from innerlingua.errors import RecipeError
from innerlingua.recipe.loading import load_recipe
from innerlingua.recipe.schema import Recipe

__all__ = ["write_layers"]


def write_layers(path: str | Path, layers: Sequence[int], text: str) -> None:
    """Set `alignment.layers` of the recipe in `path` to `text`, which stands for `layers`.

    Only the characters of that value change, or one line is added where the recipe leaves it out. The result is read
    back before it replaces the file. Raises `RecipeError` when the recipe is faulty, has no section `alignment`, or is
    written so that this value cannot be changed alone (aliases).
    """
    path = Path(path).resolve()  # a link stays a link
    recipe = load_recipe(path)
    if recipe.alignment is None:
        raise RecipeError(f"{path}: no section alignment, so there are no layers to write; add `alignment:` to it")
    source = path.read_bytes().decode("utf-8")  # with the file's own ends of lines
    changed = _replaced(source, text)
    wanted = recipe.model_copy(update={"alignment": recipe.alignment.model_copy(update={"layers": list(layers)})})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if changed is None or _read(changed, temporary) != wanted:
            raise RecipeError(
                f"{path}: alignment.layers cannot be changed by itself there; write `layers: {text}` by hand"
            )
        shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(text: str, path: Path) -> Recipe | None:
    """The recipe that `text`, written to `path`, reads as; None when it reads as none."""
    path.write_bytes(text.encode("utf-8"))
    try:
        return load_recipe(path)
    except RecipeError:
        return None


def _replaced(source: str, text: str) -> str | None:
    """`source` with the new value, or None where the value has no place of its own."""
    root = YAML(pure=True).compose(source)
    section = _child(root, "alignment")
    if section is None:
        return None
    if isinstance(section[1], ScalarNode) and str(section[1].tag).endswith(":null"):
        return _filled(source, *section, text)
    if not isinstance(section[1], MappingNode):
        return None
    found = _child(section[1], "layers")
    if found is None:
        return _inserted(source, section[1], text)
    key, value = found
    start, end = value.start_mark.index, _end(value)
    between = source[key.end_mark.index : start]
    if isinstance(value, SequenceNode) and not value.flow_style:
        # A list on lines of its own moves up behind its key, before a comment that stands there.
        start = key.end_mark.index
        text = f": {text}{between.partition(':')[2].rstrip()}"
    return source[:start] + text + source[end:]


def _child(node: Node | None, name: str) -> tuple[Node, Node] | None:
    pairs = node.value if isinstance(node, MappingNode) else []
    return next(((key, value) for key, value in pairs if key.value == name), None)


def _end(node: Node) -> int:
    """Where the text of a node ends; a block's own mark lies behind the blank lines and comments that follow it."""
    if isinstance(node, SequenceNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    return int(node.end_mark.index)


def _inserted(source: str, section: MappingNode, text: str) -> str:
    start = int(section.start_mark.index)
    if section.flow_style:
        comma = ", " if section.value else ""
        return f"{source[: start + 1]}layers: {text}{comma}{source[start + 1 :]}"
    indent = " " * int(section.start_mark.column)
    return f"{source[:start]}layers: {text}{_newline(source)}{indent}{source[start:]}"


def _filled(source: str, key: Node, value: Node, text: str) -> str:
    """A section that is open and empty gets a line of its own below."""
    if value.end_mark.index > value.start_mark.index:  # null is written out
        source = source[: value.start_mark.index].rstrip(" ") + source[value.end_mark.index :]
    end = source.find("\n", key.end_mark.index) + 1
    newline = _newline(source)
    if end == 0:
        return f"{source}{newline}  layers: {text}{newline}"
    return f"{source[:end]}  layers: {text}{newline}{source[end:]}"


def _newline(source: str) -> str:
    return "\r\n" if "\r\n" in source else "\n"
