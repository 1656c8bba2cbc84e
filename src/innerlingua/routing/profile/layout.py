"""What `profile.json` and `samples.json` must hold, checked whenever one is read.

A profile may have been copied in part, edited by hand or written by another program; what reads it further on relies
on every key, type and length being as here. docs/profile.md describes the same in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from innerlingua.errors import DataError

__all__ = ["MEASURES", "PAIR_MEASURES", "SCHEMA", "check_record", "check_samples"]

SCHEMA: Final = 1
PAIR_MEASURES: Final = ("js", "js_normalised", "overlap")
"""Measures of a pair of sentences, which the anchor language has none of."""
MEASURES: Final = (*PAIR_MEASURES, "entropy", "load_cv", "dead_experts", "shared_experts", "exclusive_experts")
"""The measures with an interval, in the order in which they are written. `js_of_means` stands beside them without
one."""

_AGAIN = "Make the profile anew."
_Count = Annotated[int, Field(ge=0)]
_Some = Annotated[int, Field(ge=1)]
_Row = list[FiniteFloat | None]


class _Part(BaseModel):
    # Strict: the text "8" is no number. Keys beyond these do no harm.
    model_config = ConfigDict(strict=True, extra="ignore")


class _Model(_Part):
    name: str
    model_type: str
    layers: Annotated[list[_Count], Field(min_length=1)]
    depth: _Some
    experts: _Some
    top_k: _Some
    score: str
    weights: str


class _Language(_Part):
    name: str
    pairs: _Count
    tokens: _Count
    anchor_tokens: _Count
    ids_digest: str


class _Data(_Part):
    files: list[str]
    ids_read: _Count
    pairs_read: _Count
    pairs: _Count
    excluded_rows: _Count
    skipped: dict[str, _Count | dict[str, _Count]]
    skipped_by_language: dict[str, dict[str, _Count]]
    same_as_anchor: dict[str, _Count]
    seen_in_training: list[str] | None


class _Measured(_Part):
    mean: _Row
    low: _Row | None
    high: _Row | None


class _Between(_Part):
    order: list[str]
    js: list[_Row]
    low: list[_Row]
    high: list[_Row]
    js_by_layer: list[list[_Row]]
    ids: list[list[_Count]]


class _Suggested(_Part):
    layers: Annotated[list[_Count], Field(min_length=1)]
    trough: bool
    rule: str


class _Settings(_Part):
    bootstrap: _Some
    level: FiniteFloat
    K: _Some
    threshold: FiniteFloat
    max_length: _Some | None


class _Record(_Part):
    command: str
    versions: dict[str, str]
    seed: int
    created: str
    model: _Model
    label: str
    anchor: str
    data: _Data
    languages: Annotated[dict[str, _Language], Field(min_length=1)]
    measures: dict[str, dict[str, _Measured | None]]
    between_languages: _Between
    suggested_layers: _Suggested
    settings: _Settings


class _Side(_Part):
    tokens: list[str]
    experts: list[list[list[_Count]]]


class _Pair(_Part):
    id: str
    language: str
    target: _Side
    anchor: _Side
    js: _Row


_PAIRS: Final = TypeAdapter(list[_Pair])


def check_record(record: Any, path: Path) -> None:
    """Raise `DataError` unless `record`, read from `path`, is the record of a whole profile."""
    if not isinstance(record, dict):
        raise DataError(f"{path}: a JSON object was expected, not {type(record).__name__}. {_AGAIN}")
    if record.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema {record.get('schema')!r}, and this version reads {SCHEMA}. {_AGAIN}")
    try:
        checked = _Record.model_validate(record)
    except ValidationError as error:
        raise DataError(f"{path}: {_first(error)}. {_AGAIN}") from None
    fault = _fault(checked)
    if fault:
        raise DataError(f"{path}: {fault}. {_AGAIN}")


def check_samples(stored: Any, path: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs of `samples.json`; `DataError` when they do not fit the checked `record` of their profile."""
    pairs = stored.get("pairs") if isinstance(stored, dict) else None
    if not isinstance(pairs, list):
        raise DataError(f"{path}: no pairs in it. {_AGAIN}")
    try:
        checked = _PAIRS.validate_python(pairs)
    except ValidationError as error:
        raise DataError(f"{path}: {_first(error)}. {_AGAIN}") from None
    model, layers = record["model"], len(record["model"]["layers"])
    for number, pair in enumerate(checked, start=1):
        where = f"{path}: pair {number} (id {pair.id!r})"
        if pair.language not in record["languages"]:
            raise DataError(f"{where}: language {pair.language!r} is not in the profile. {_AGAIN}")
        if len(pair.js) != layers:
            raise DataError(f"{where}: js has {len(pair.js)} values for {layers} layers. {_AGAIN}")
        for name, side in (("target", pair.target), ("anchor", pair.anchor)):
            shape = (layers, len(side.tokens), model["top_k"])
            if not _is_array(side.experts, shape) or np.max(side.experts, initial=0) >= model["experts"]:
                raise DataError(
                    f"{where}, {name}: experts must be (layers, tokens, k) = {shape} numbers below {model['experts']}. "
                    f"{_AGAIN}"
                )
    return pairs


def _first(error: ValidationError) -> str:
    """The first fault of a validation: where, and what."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg'][:1].lower()}{fault['msg'][1:]}" if place else str(fault["msg"])


def _fault(record: _Record) -> str | None:
    """What does not fit together, in words."""
    layers, languages = record.model.layers, list(record.languages)
    missing = [name for name in MEASURES if name not in record.measures]
    if missing:
        return f"measures lacks {', '.join(missing)}"
    if layers != sorted(set(layers)) or layers[-1] >= record.model.depth:
        return f"model.layers are no rising decoder layers below the depth of {record.model.depth}"
    if not set(record.suggested_layers.layers) <= set(layers):
        return "suggested_layers has layers that are not in model.layers"
    if languages[0] != record.anchor:
        return f"the first of languages is {languages[0]!r}, where the anchor {record.anchor!r} belongs"
    for measure, rows in record.measures.items():
        if set(rows) != set(languages):
            odd = ", ".join(sorted(set(rows) ^ set(languages)))
            return f"measures.{measure} and languages differ in {odd}"
        for code, entry in rows.items():
            for key, values in entry or ():
                if values is not None and len(values) != len(layers):
                    return f"measures.{measure}.{code}.{key} has {len(values)} values for {len(layers)} layers"
    between = record.between_languages
    if set(between.order) != set(languages) or len(between.order) != len(languages):
        return "between_languages.order and languages are not the same codes"
    square = (len(languages), len(languages))
    for name, table in (("js", between.js), ("low", between.low), ("high", between.high), ("ids", between.ids)):
        if not _is_array(table, square):
            return f"between_languages.{name} is not {square[0]} x {square[1]}"
    if not _is_array(between.js_by_layer, (len(layers), *square)):
        return f"between_languages.js_by_layer is not {len(layers)} x {square[0]} x {square[1]}"
    return None


def _is_array(values: Any, shape: Sequence[int]) -> bool:
    """Whether nested lists have exactly this shape."""
    if not shape:
        return not isinstance(values, list)
    return isinstance(values, list) and len(values) == shape[0] and all(_is_array(one, shape[1:]) for one in values)
