"""What one row of pairs must look like: its columns, its text on both sides, its spans.

A row has `id`, `language`, its content (`text`; or `prompt` and `completion`, both text or both messages; or
`messages`), and, when it has an anchor, the same content columns with the prefix `anchor_` and optionally
`anchor_language`. `spans` links pieces of the two sides: a list of
`[target_start, target_end, anchor_start, anchor_end]`, code points, half-open, into the final completion, the last
assistant message, or the text. `group` names rows that must stay on one side of a split. A column whose value is null
counts as absent. Other columns are left out and named; columns that look like a misspelling are refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from innerlingua.errors import DataError

__all__ = [
    "KINDS",
    "PREFIX",
    "Content",
    "Kind",
    "Shape",
    "check_spans",
    "final_text",
    "group_of",
    "is_blank",
    "read_content",
    "row_id_of",
    "shape_of",
]

PREFIX: Final = "anchor_"

Content = dict[str, Any]
"""Content column -> text or list of messages, without prefix."""

KINDS: Final[dict[str, tuple[str, ...]]] = {
    "text": ("text",),
    "prompt": ("prompt", "completion"),
    "messages": ("messages",),
}
_OWN = ("id", "language", "anchor_language", "group", "spans")
_CONTENT = tuple(column for columns in KINDS.values() for column in columns)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_KNOWN = frozenset((*_OWN, *_CONTENT, *(PREFIX + column for column in _CONTENT)))
# What TRL would read from a row and this format does not carry: to pass over it would change the text in silence.
_REFUSED = {
    "chat_template_kwargs": "pass chat_template_kwargs to tokenize_pairs: one setting for all rows and both sides",
    "tools": "rows with tools are not supported",
    "image": "rows with images are not supported",
    "images": "rows with images are not supported",
    "conversations": "rename it to messages, with the keys role and content",
}


@dataclass(frozen=True)
class Kind:
    """The form of a dataset's content: its columns, and whether they hold messages or plain text."""

    columns: tuple[str, ...]
    conversational: bool

    def __str__(self) -> str:
        form = " (lists of messages)" if self.conversational and self.columns != ("messages",) else ""
        return " and ".join(self.columns) + form


@dataclass(frozen=True)
class Shape:
    """What the non-null columns of a row say: content columns, whether there is an anchor, columns left out."""

    columns: tuple[str, ...]
    has_anchor: bool
    ignored: tuple[str, ...]


def shape_of(present: Iterable[str], where: str) -> Shape:
    """The shape of a row from the names of its non-null columns.

    Raises:
        DataError: a required column is missing, two forms of content are given, the anchor has another form than the
            target or lacks a part, or a column looks like a misspelling of one that is missing.
    """
    names = set(present)
    unknown = sorted(names - _KNOWN)
    for name in unknown:
        if name in _REFUSED:
            raise DataError(f"{where}: column {name!r}: {_REFUSED[name]}")
        close = difflib.get_close_matches(name, sorted(_KNOWN - names), n=1, cutoff=0.8)
        if close:
            raise DataError(f"{where}: unknown column {name!r}; did you mean {close[0]!r}?")
        if name.startswith(PREFIX):
            known = ", ".join(sorted(column for column in _KNOWN if column.startswith(PREFIX)))
            raise DataError(f"{where}: unknown column {name!r}; the anchor's columns are {known}")
    for name, remedy in (
        ("id", "It names the meaning and is shared by all languages of a row."),
        ("language", "It is a FLORES-200 code, such as swh_Latn."),
    ):
        if name not in names:
            raise DataError(f"{where}: no column {name!r} (or it is null){_beside(name, unknown)}. {remedy}")
    columns = _content_columns(names, where, unknown)
    anchor = {name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)} & set(_CONTENT)
    if anchor and anchor != set(columns):
        raise DataError(
            f"{where}: the anchor has {_and(PREFIX + a for a in sorted(anchor))} where the target has {_and(columns)}. "
            "Both sides need the same columns."
        )
    return Shape(columns, bool(anchor), tuple(unknown))


def row_id_of(row: dict[str, Any], where: str) -> str:
    """The id of a row as text: `1` and `"1"` are one id, whatever format a file has.

    Raises:
        DataError: there is none, it is blank, or it is neither text nor an integer.
    """
    value = row.get("id")
    if value is None:
        raise DataError(f"{where}: no column 'id' (or it is null). It names the meaning, in all languages.")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}: id must be text (or an integer), not {value!r}")
    if not str(value).strip():
        raise DataError(f"{where}: id is empty")
    return str(value)


def group_of(row: dict[str, Any], where: str) -> str | None:
    """The group of a row as text, if it has one.

    Raises:
        DataError: it is neither text nor an integer.
    """
    value = row.get("group")
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise DataError(f"{where}: group must be text (or an integer), not {value!r}")
    return None if value is None else str(value)


def _content_columns(names: set[str], where: str, unknown: list[str]) -> tuple[str, ...]:
    found = [columns for columns in KINDS.values() if names & set(columns)]
    if len(found) > 1:
        raise DataError(
            f"{where}: {_and(c for cs in found for c in cs if c in names)} in one row. Keep one form of content."
        )
    if not found:
        beside = f" Its columns: {', '.join(sorted(names))}." if names else ""
        hint = next((h for h in (_beside(c, unknown) for c in _CONTENT) if h), "")
        raise DataError(f"{where}: no content{hint}. A row needs text, or prompt and completion, or messages.{beside}")
    missing = [column for column in found[0] if column not in names]
    if missing:
        raise DataError(f"{where}: no column {missing[0]!r} (or it is null); prompt and completion belong together")
    return found[0]


def _beside(name: str, unknown: list[str]) -> str:
    close = difflib.get_close_matches(name, unknown, n=1, cutoff=0.6)
    return f"; the row has {close[0]!r}: rename it" if close else ""


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)


def read_content(row: dict[str, Any], columns: tuple[str, ...], prefix: str, where: str) -> tuple[Kind, Content]:
    """One side of a row, checked: every value is text, or every value is a list of messages.

    Raises:
        DataError: a value has another type, a message lacks role or content or has keys that are not carried, a text
            holds half a surrogate pair, or prompt and completion differ in form.
    """
    content: Content = {}
    forms: dict[str, bool] = {}
    for column in columns:
        name, value = prefix + column, row[prefix + column]
        if isinstance(value, str) and column != "messages":
            content[column], forms[column] = _text(value, name, where), False
        elif isinstance(value, list) and column != "text":
            content[column], forms[column] = _messages(value, name, where), True
        else:
            expected = {"text": "text", "messages": "a list of messages"}.get(column, "text or a list of messages")
            raise DataError(f"{where}: {name} must be {expected}, not {_type(value)}")
    if len(set(forms.values())) > 1:
        raise DataError(f"{where}: {prefix}prompt and {prefix}completion must be both text or both lists of messages")
    return Kind(columns, forms[columns[0]]), content


def _text(value: str, name: str, where: str) -> str:
    # JSON can spell half a surrogate pair (\ud800): no character, and neither Arrow nor a tokenizer takes it.
    if not value.isascii() and _HALF_PAIR.search(value):
        raise DataError(f"{where}: {name} holds half a surrogate pair (such as \\ud800), which is not a character")
    return value


def _messages(value: list[Any], name: str, where: str) -> list[dict[str, str]]:
    messages = []
    for index, message in enumerate(value):
        if not isinstance(message, dict):
            raise DataError(f"{where}: {name}[{index}] must be an object with role and content, not {_type(message)}")
        given = {key: part for key, part in message.items() if part is not None}
        for key in ("role", "content"):
            if not isinstance(given.get(key), str):
                raise DataError(f"{where}: {name}[{index}].{key} must be text, not {_type(given.get(key))}")
        others = sorted(set(given) - {"role", "content"})
        if others:
            raise DataError(f"{where}: {name}[{index}] has {_and(others)}; messages carry role and content only")
        messages.append({key: _text(given[key], f"{name}[{index}].{key}", where) for key in ("role", "content")})
    return messages


def _type(value: Any) -> str:
    names = {str: "text", dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"a number ({value!r})" if isinstance(value, int | float) else type(value).__name__)


def is_blank(content: Content) -> bool:
    """Whether one side has nothing to learn from: blank text, prompt or completion, or a blank last message."""
    for value in content.values():
        last = (value[-1]["content"] if value else "") if isinstance(value, list) else value
        if not last.strip():
            return True
    return False


def final_text(content: Content) -> str | None:
    """The text that spans point into: the final completion, the last assistant message, or the text; None without."""
    value = content[list(content)[-1]]
    if isinstance(value, str):
        return value
    replies = [str(message["content"]) for message in value if message["role"] == "assistant"]
    return replies[-1] if replies else None


def check_spans(spans: Any, target: Content, anchor: Content | None, where: str) -> list[list[int]]:
    """Span links of one row, checked: (n, 4) integers, non-empty, inside both texts, without overlap on either side.

    Overlap is refused on the anchor side too: a token belongs to one span at most.

    Raises:
        DataError: with the span at fault, and the length of the text that it leaves.
    """
    if anchor is None:
        raise DataError(f"{where}: spans in a row without an anchor; they link the target to an anchor")
    if not isinstance(spans, list):
        raise DataError(f"{where}: spans must be a list of [target_start, target_end, anchor_start, anchor_end]")
    texts = (("target", final_text(target)), ("anchor", final_text(anchor)))
    for index, span in enumerate(spans):
        if not isinstance(span, list) or len(span) != 4 or any(type(number) is not int for number in span):
            raise DataError(
                f"{where}: spans[{index}] is {span!r}; it must be four integers "
                "[target_start, target_end, anchor_start, anchor_end]"
            )
    for side, (name, text) in enumerate(texts):
        if text is None and spans:
            raise DataError(f"{where}: spans, and no assistant message on the {name} side for them to point into")
        previous = None
        for index, start, end in sorted(
            ((i, s[2 * side], s[2 * side + 1]) for i, s in enumerate(spans)), key=lambda s: s[1:]
        ):
            if text is None or not 0 <= start < end <= len(text):
                raise DataError(
                    f"{where}: spans[{index}] has [{start}, {end}) on the {name} side, whose text has "
                    f"{len(text or '')} characters; 0 <= start < end <= length must hold"
                )
            if previous is not None and start < previous[2]:
                raise DataError(
                    f"{where}: spans[{previous[0]}] and spans[{index}] overlap on the {name} side "
                    f"([{previous[1]}, {previous[2]}) and [{start}, {end})); a token belongs to one span. Join them."
                )
            previous = (index, start, end)
    return spans
