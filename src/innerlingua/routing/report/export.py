"""Every number of the profiles as CSV for spreadsheets and JSON for scripts.

The numbers are written in full (shortest text that reads back as the same float), whatever the page rounds or packs.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from innerlingua.errors import DataError
from innerlingua.routing.report.read import Profile
from innerlingua.routing.report.results import Results
from innerlingua.routing.report.summary import correlations, measures_of, wilson

__all__ = ["check_place", "export", "write_text"]

Row = Sequence[Any]


def export(directory: Path, profiles: Sequence[Profile], results: Results | None = None) -> list[Path]:
    """Write `measures.csv`, `experts.csv`, `between_languages.csv`, `languages.csv`, `skipped.csv`, with results also
    `accuracy.csv` and `correlations.csv`, and all of it as `report.json`. Returns the paths."""
    tables: dict[str, tuple[Row, list[Row]]] = {
        "measures": (
            ("profile", "measure", "language", "name", "layer", "mean", "low", "high"),
            list(_measures(profiles)),
        ),
        "experts": (("profile", "language", "layer", "expert", "mean", "load"), list(_experts(profiles))),
        "between_languages": (
            ("profile", "layer", "language_a", "language_b", "js", "low", "high", "shared_ids"),
            list(_between(profiles)),
        ),
        "languages": (
            ("profile", "language", "name", "pairs", "tokens", "anchor_tokens", "seen_in_training"),
            list(_languages(profiles)),
        ),
        "skipped": (("profile", "reason", "language", "count"), list(_skipped(profiles))),
    }
    if results is not None:
        tables["accuracy"] = (
            ("profile", "benchmark", "language", "n", "correct", "accuracy", "low", "high"),
            list(_accuracy(results)),
        )
        tables["correlations"] = (
            ("profile", "measure", "layer", "pearson_r", "languages"),
            list(_correlations(profiles, results)),
        )
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (header, rows) in tables.items():
        path = directory / f"{name}.csv"
        write_text(path, _csv(header, rows))
        written.append(path)
    whole = {
        "schema": 1,
        "profiles": {
            profile.label: {
                "model": profile.model,
                "anchor": profile.anchor,
                "data": profile.data,
                "settings": profile.record.get("settings"),
                "suggested_layers": profile.suggested,
            }
            for profile in profiles
        },
        **{name: [dict(zip(header, row, strict=True)) for row in rows] for name, (header, rows) in tables.items()},
    }
    path = directory / "report.json"
    write_text(path, json.dumps(whole, ensure_ascii=True, allow_nan=False))
    return [*written, path]


def write_text(path: Path, text: str) -> None:
    """Write `text` under a temporary name and rename it, so that a killed run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_place(path: Path, *, folder: bool, option: str) -> None:
    """Raise `DataError` unless the file `path`, or files in the folder `path`, can be written; `option` names it."""
    if path.is_dir() != folder and path.exists():
        raise DataError(f"{option}: {path} is a {'file; name a folder' if folder else 'folder; name a file in it'}")
    existing = next(place for place in (path, *path.absolute().parents) if place.is_dir() or place.exists())
    if existing.is_file() and existing != path:
        raise DataError(f"{option}: {path} cannot be written: {existing} is a file")
    try:
        with tempfile.TemporaryFile(dir=existing if existing.is_dir() else existing.parent):
            pass
    except OSError as error:
        raise DataError(f"{option}: {path} cannot be written: {error.strerror or error}") from error


def _csv(header: Row, rows: Iterable[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _number(value: Any) -> float | None:
    """A float in its shortest exact form; None (an empty cell, null) where there is no value."""
    return float(str(value)) if np.isfinite(value) else None


def _measures(profiles: Sequence[Profile]) -> Iterator[Row]:
    for profile in profiles:
        for measure in measures_of([profile]):
            for code, table in profile.measures[measure.key].items():
                name = profile.languages[code].get("name", code)
                for index, layer in enumerate(profile.layers):
                    yield (profile.label, measure.key, code, name, layer, *(_number(x) for x in table[:, index]))


def _experts(profiles: Sequence[Profile]) -> Iterator[Row]:
    for profile in profiles:
        for row, code in enumerate(profile.languages):
            for index, layer in enumerate(profile.layers):
                pairs = zip(profile.mean[row, index], profile.load[row, index], strict=True)
                for expert, (mean, load) in enumerate(pairs):
                    yield profile.label, code, layer, expert, _number(mean), _number(load)


def _between(profiles: Sequence[Profile]) -> Iterator[Row]:
    for profile in profiles:
        between = profile.between
        for a, b in zip(*np.triu_indices(len(between.order), k=1), strict=True):
            names, ids = (between.order[a], between.order[b]), int(between.ids[a, b])
            interval = (_number(table[a, b]) for table in (between.js, between.low, between.high))
            yield profile.label, "mean", *names, *interval, ids
            for index, layer in enumerate(profile.layers):
                yield profile.label, layer, *names, _number(between.js_by_layer[index, a, b]), None, None, ids


def _languages(profiles: Sequence[Profile]) -> Iterator[Row]:
    for profile in profiles:
        unseen = profile.unseen
        for code, entry in profile.languages.items():
            seen = None if unseen is None else code not in unseen
            counts = (entry.get("pairs"), entry.get("tokens"), entry.get("anchor_tokens"))
            yield profile.label, code, entry.get("name", code), *counts, seen


def _skipped(profiles: Sequence[Profile]) -> Iterator[Row]:
    for profile in profiles:
        by_language = profile.data.get("skipped_by_language", {})
        for reason, total in profile.data.get("skipped", {}).items():
            count = by_language.get(reason) or total
            if isinstance(count, dict) and not count:
                yield profile.label, reason, None, 0
            elif isinstance(count, dict):
                yield from ((profile.label, reason, code, number) for code, number in count.items())
            else:
                yield profile.label, reason, None, count


def _accuracy(results: Results) -> Iterator[Row]:
    for label, rows in results.accuracy.items():
        for code, (n, correct) in rows.items():
            yield label, results.benchmark, code, n, correct, correct / n, *wilson(n, correct)


def _correlations(profiles: Sequence[Profile], results: Results) -> Iterator[Row]:
    for profile in profiles:
        if profile.label not in results.accuracy:
            continue
        for measure in measures_of([profile]):
            r, n = correlations(profile, results, measure.key)
            for index, layer in enumerate(profile.layers):
                yield profile.label, measure.key, layer, _number(r[index]), int(n[index])
