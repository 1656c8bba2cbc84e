"""What `translate` reads and writes: rows as texts by field, and the same rows with translated texts.

A field is `prompt`, `completion`, `text`, or one message: `messages.0`, `prompt.1` and so on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from innerlingua.data.languages import check_language
from innerlingua.data.lines import Row
from innerlingua.data.rows import KINDS, row_id_of
from innerlingua.data.sources import Source
from innerlingua.errors import DataError

__all__ = ["Translatable", "read_texts", "translated_row"]

_CARRIED: Final = ("group", "answer", "accepted", "choices", "label", "source", "license")


@dataclass(frozen=True)
class Translatable:
    """A row to translate: its id, language, texts by field, what goes along, and where it stood."""

    id: str
    language: str
    texts: dict[str, str]
    row: Row
    origin: dict[str, Any]


def read_texts(sources: Sequence[Source], language: str, known: Mapping[str, str]) -> Iterator[Translatable]:
    """The rows of the sources, in order.

    Args:
        sources: opened files.
        language: of rows that do not name theirs.
        known: language code -> English name.

    Raises:
        DataError: a row lacks an id or a text, repeats an id, or has an unknown language or a text of another type.
    """
    seen: dict[str, tuple[int, int]] = {}
    for index, source in enumerate(sources):
        for number, row in source.rows():
            where = source.place(number)
            row_id = row_id_of(row, where)
            where = f"{where} (id {row_id!r})"
            if (first := seen.setdefault(row_id, (index, number))) != (index, number):
                raise DataError(
                    f"{where}: the id occurs twice, first at {sources[first[0]].place(first[1])}. Rename or remove "
                    "one of the two."
                )
            code = str(row.get("language") or row.get("lang") or language)
            check_language(code, where, known=known)
            texts = dict(_texts(row, where))
            if not texts:
                raise DataError(
                    f"{where}: no text to translate. A row needs prompt and completion, or messages, or text; its "
                    f"columns: {', '.join(sorted(row))}."
                )
            empty = next((field for field, text in texts.items() if not text.strip()), None)
            if empty is not None:
                raise DataError(f"{where}: {empty} is empty. Fill it in, or leave the row out.")
            yield Translatable(row_id, code, texts, row, {"file": Path(source.name).name, source.unit: number})


def _texts(row: Row, where: str) -> Iterator[tuple[str, str]]:
    for column in (column for columns in KINDS.values() for column in columns):
        value = row.get(column)
        if isinstance(value, str):
            yield column, value
        elif isinstance(value, list):
            for index, message in enumerate(value):
                if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                    raise DataError(f"{where}: {column}[{index}] must be an object with role and content")
                yield f"{column}.{index}", message["content"]
        elif value is not None:
            raise DataError(f"{where}: {column} must be text or a list of messages")


def translated_row(
    row: Translatable, target: str, results: Mapping[str, Mapping[str, Any]], made: Mapping[str, Any]
) -> Row:
    """The row in the target language.

    Args:
        row: what was translated.
        target: the language it is in now.
        results: field -> what came back: `text`, `model`, `tries`, `date`, `drawn`, and `score` where there is one.
        made: what all rows of the run share: model, revision, template, settings.
    """
    out: Row = {"id": row.id, "language": target}
    for field, result in results.items():
        column, _, index = field.partition(".")
        if index:
            out.setdefault(column, []).append({**row.row[column][int(index)], "content": result["text"]})
        else:
            out[column] = result["text"]
    out |= {name: row.row[name] for name in _CARRIED if row.row.get(name) is not None}
    given = row.row.get("provenance")
    out["provenance"] = {
        **made,
        "reply_model": next(iter(results.values()))["model"],
        "tries": {field: result["tries"] for field, result in results.items()},
        "drawn": {field: result["drawn"] for field, result in results.items()},
        "scores": {field: result["score"] for field, result in results.items() if "score" in result} or None,
        "date": max(result["date"] for result in results.values()),
        "translated_from": {
            "language": row.language,
            **row.origin,
            **{name: row.row[name] for name in ("source", "license") if row.row.get(name) is not None},
        },
        "source_provenance": _object(given),
    }
    return out


def _object(given: Any) -> Any:
    """Provenance that is JSON in a text, as `pair` writes it, as the object that it is."""
    try:
        return json.loads(given) if isinstance(given, str) and given.startswith("{") else given
    except (ValueError, RecursionError):
        return given
