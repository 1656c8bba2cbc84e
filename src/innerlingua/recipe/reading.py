"""YAML text to plain Python values, within bounds, each key with the line it stands on.

YAML 1.2 through ruamel's pure parser, so `1e-5` is a number and `no` (Norwegian) a string. The text is checked as a
stream of events before anything is built, because a recipe may come from somebody else: its size, depth, number of
values after aliases are followed, and tags are bounded. Only plain values come out (mapping, list, string, number,
boolean, null); dates stay strings. Keys are strings, and a repeated key is an error: the YAML habit of letting the last
one win hides a mistake.

Left out: merge keys (`<<`), which the YAML 1.2 core schema does not have, and YAML 1.1 by directive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from innerlingua.errors import RecipeError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "Document", "parse_value", "read_document"]

MAX_BYTES = 262_144
MAX_DEPTH = 24
MAX_VALUES = 20_000

_TAG = "tag:yaml.org,2002:"
# Resolved by the YAML 1.2 core schema, but no recipe key is a date or a lone `=`: they stay the text that was written.
_TEXT_TAGS = {f"{_TAG}{name}" for name in ("str", "timestamp", "value")}
_NUMBER_TAGS = {f"{_TAG}int", f"{_TAG}float"}


@dataclass(frozen=True)
class Document:
    """One recipe file: `values` as plain Python, and `lines`, the 1-based line of each key by its path."""

    name: str
    values: dict[str, Any]
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)


def read_document(path: str | Path) -> Document:
    """Read the YAML mapping in `path`.

    Raises `RecipeError`, naming the file and the line, when the file is missing, too large, not UTF-8, not YAML, nested
    too deeply, expands to too many values, repeats a key, or is anything but one mapping with string keys.
    """
    path = Path(path)
    name = str(path)
    if not path.exists():
        raise RecipeError(f"{name}: no such recipe file; recipes to start from are in the project's recipes/ folder.")
    if path.is_dir():
        raise RecipeError(f"{name}: is a folder; name the recipe file in it, such as {path / 'recipe.yaml'}.")
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{name}: is larger than {MAX_BYTES:,} bytes; a recipe is a short YAML file. Is it the data?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RecipeError(f"{name}, line {line}: is not UTF-8 text; save the recipe as UTF-8.") from error
    lines: dict[tuple[str, ...], int] = {}
    values = _parse(text, name, lines)
    if values is None:
        raise RecipeError(f"{name}: is empty; a recipe needs at least the sections model, data and trainer.")
    if not isinstance(values, dict):
        raise RecipeError(f"{name}: holds {_kind(values)}; a recipe is a mapping with sections such as `model:`.")
    return Document(name=name, values=values, lines=lines)


def parse_value(text: str, where: str) -> Any:
    """The plain value that `text` means as one YAML value: `1e-5` a float, `no` a string, `[1, 2]` a list.

    `where` opens the message of the `RecipeError` that unreadable text raises.
    """
    if text.strip() == "":
        return ""
    return _parse(text, where, {})


def _parse(text: str, name: str, lines: dict[tuple[str, ...], int]) -> Any:
    try:
        _check_bounds(text, name)
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
        if node is None:
            return None
        _count_values(node, name)
        return _build(yaml, node, name, (), lines)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = name if mark is None else f"{name}, line {mark.line + 1}"
        raise RecipeError(f"{where}: is not valid YAML: {error.problem or error.context}.") from error
    except YAMLError as error:
        raise RecipeError(f"{name}: is not valid YAML: {' '.join(str(error).split())}.") from error


def _check_bounds(text: str, name: str) -> None:
    """Walk the events without recursion, so that a hostile text meets a message and not the interpreter's limit."""
    depth = documents = values = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        elif isinstance(event, DocumentStartEvent):
            documents += 1
            if event.version is not None and tuple(event.version) != (1, 2):
                raise RecipeError(f"{_at(name, event)}: asks for another YAML version; recipes are YAML 1.2.")
        if isinstance(event, CollectionStartEvent | ScalarEvent | AliasEvent):
            values += 1
        if depth > MAX_DEPTH:
            raise RecipeError(f"{_at(name, event)}: is nested more than {MAX_DEPTH} levels deep.")
        if values > MAX_VALUES:
            raise RecipeError(f"{_at(name, event)}: holds more than {MAX_VALUES:,} values. Is it the data?")
        if documents > 1:
            raise RecipeError(f"{_at(name, event)}: a second YAML document starts here; a recipe is one document.")


def _count_values(root: Node, name: str) -> None:
    """Refuse aliases that contain themselves, or that multiply into more than `MAX_VALUES` values."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: Node) -> int:
        if id(node) in open_nodes:
            raise RecipeError(f"{_at(name, node)}: a value refers to itself through an alias.")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
            open_nodes.discard(id(node))
            if sizes[id(node)] > MAX_VALUES:
                raise RecipeError(f"{_at(name, node)}: aliases expand to more than {MAX_VALUES:,} values.")
        return sizes[id(node)]

    size(root)


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, SequenceNode):
        yield from node.value
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _build(yaml: YAML, node: Node, name: str, path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Any:
    if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(key_node, name)
            if key in mapping:
                dotted = ".".join((*path, key))
                first = lines.get((*path, key))
                raise RecipeError(f"{_at(name, key_node)}: {dotted} is written twice (first on line {first}).")
            lines[(*path, key)] = key_node.start_mark.line + 1
            mapping[key] = _build(yaml, value_node, name, (*path, key), lines)
        return mapping
    if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
        return [_build(yaml, child, name, (*path, str(i)), lines) for i, child in enumerate(node.value)]
    if isinstance(node, ScalarNode):
        if node.tag in _TEXT_TAGS:
            return str(node.value)
        if node.tag == f"{_TAG}null":
            return None
        if node.tag == f"{_TAG}bool":
            return node.value.lower() == "true"
        if node.tag in _NUMBER_TAGS:
            constructor = yaml.constructor
            read = constructor.construct_yaml_int if node.tag == f"{_TAG}int" else constructor.construct_yaml_float
            try:
                return read(node)
            except (ValueError, OverflowError) as error:
                raise RecipeError(f"{_at(name, node)}: {node.value[:20]}... is no number that can be read.") from error
    raise RecipeError(f"{_at(name, node)}: the YAML tag {node.tag!r} is not used in recipes; write a plain value.")


def _key(node: Node, name: str) -> str:
    if isinstance(node, ScalarNode) and node.tag == f"{_TAG}merge":
        raise RecipeError(f"{_at(name, node)}: merge keys (<<) are not part of YAML 1.2; write the keys out.")
    if not isinstance(node, ScalarNode) or node.tag not in _TEXT_TAGS:
        written = node.value if isinstance(node, ScalarNode) else "a list or mapping"
        raise RecipeError(f"{_at(name, node)}: the key {written} is not a string; put it in quotes.")
    return str(node.value)


def _at(name: str, item: Any) -> str:
    return f"{name}, line {item.start_mark.line + 1}" if item.start_mark is not None else name


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "plain text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), f"a {type(value).__name__}")
