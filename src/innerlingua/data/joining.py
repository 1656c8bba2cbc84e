"""Join anchors and targets by id, from one file or several, into the pairs that training reads.

What a row is, it says itself: one with `anchor_` columns is a pair already; one whose `text` is an object holds a
meaning in many languages; one in the anchor language is an anchor; every other is a target. An anchor file may leave
out `language`, and a target file may where the caller names it.

Held in memory: the anchors, as compact JSON, and what `RowChecker` keeps per row. Targets stream through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import xxhash

from innerlingua.data.card import LICENCE_NOTE, card_path, write_card
from innerlingua.data.files import check_beside, check_output, put_tables, replaced
from innerlingua.data.hashes import hash_of
from innerlingua.data.languages import ENGLISH, check_language, known_languages
from innerlingua.data.licences import Licences, both, licence_of
from innerlingua.data.pairs import RowChecker
from innerlingua.data.parallel import expand_parallel
from innerlingua.data.rows import KINDS, PREFIX, row_id_of
from innerlingua.data.sources import Source, open_sources
from innerlingua.data.wording import counted
from innerlingua.errors import DataError

__all__ = ["CARRIED", "Joined", "pair"]

CARRIED: Final = ("answer", "label", "source", "license", "provenance")
"""Columns that are no part of a pair and go along with the target; `provenance` holds both sides'."""

_WRITE: Final = json.JSONEncoder(ensure_ascii=False, default=str).encode
_SORTED: Final = json.JSONEncoder(sort_keys=True, default=str).encode
_CONTENT: Final = tuple(column for columns in KINDS.values() for column in columns)


@dataclass(frozen=True)
class Joined:
    """What a join wrote.

    `counts`: read = kept + the dropped; anchors, the repeated and unused ones among them; rows left out before.
    """

    path: Path
    card: Path
    counts: dict[str, int]
    languages: dict[str, int]
    ignored_columns: list[str]


def pair(
    targets: Sequence[str | Path],
    output: str | Path,
    *,
    anchors: Sequence[str | Path] = (),
    anchor_language: str = ENGLISH,
    language: str | None = None,
    only: Sequence[str] | None = None,
    languages: Mapping[str, str] | None = None,
    missing_anchor: str = "error",
    same_as_anchor: str = "error",
    empty: str = "error",
    duplicate: str = "error",
    non_commercial: str = "error",
    overwrite: bool = False,
) -> Joined:
    """Join targets with the anchors of the same id and write what `train` reads, with its card beside it.

    Args:
        targets: files of targets, of targets and anchors together, of pairs, or of the parallel layout.
        output: `.jsonl`, `.jsonl.gz`, `.parquet`, or the name of a `datasets` folder.
        anchors: files of anchors, when they lie apart. Their rows need no `language`.
        anchor_language: the language of the anchors.
        language: the language of target rows that do not name theirs.
        only: target languages to take; all unless given.
        languages: `{code: English name}` for languages outside FLORES-200.
        missing_anchor, same_as_anchor, empty, duplicate: policies of `read_pairs`.
        non_commercial: rows, anchors too, whose licence allows no commercial use: `error`, `drop` or `keep`.
        overwrite: replace an output that exists.

    Raises:
        DataError: a file or row cannot be read, two different anchors have one id, a language is unknown, or a rule
            is broken whose policy is `error`. The message names file, line and id.
    """
    out = check_output(output, overwrite=overwrite, inputs=[*targets, *anchors])
    check_beside([card_path(out)], overwrite=overwrite, inputs=[*targets, *anchors])
    known = known_languages(languages)
    for option, codes in (("anchor-language", [anchor_language]), ("language", [language]), ("only", only or [])):
        for code in codes:
            if code is not None:
                check_language(code, f"--{option}", known=known)
    if only is not None and anchor_language in only:
        raise DataError(f"--only {anchor_language}: that is the anchor language, and no target can be in it")
    policies = {
        "missing_anchor": missing_anchor,
        "same_as_anchor": same_as_anchor,
        "empty": empty,
        "duplicate": duplicate,
    }
    licences, again = Licences(non_commercial), Licences(non_commercial)
    target_sources = open_sources(list(targets))
    anchor_sources = open_sources(list(anchors)) if anchors else []
    join = _Join(anchor_language, language, None if only is None else frozenset(only))
    joined = [replace(source, rows=partial(join.rows, licences.admit(source))) for source in target_sources]
    checker = RowChecker(joined, known, policies, carry=CARRIED)
    for source in anchor_sources:
        join.collect(licences.admit(source), apart=True)
    for source in target_sources:
        join.collect(again.admit(source), apart=False)  # these are read again as targets, and counted then
    by_language: dict[str, int] = {}
    with replaced(out) as written:
        try:
            put_tables(written, out, _counting(checker, by_language))
        except DataError as error:
            raise (DataError(join.nothing([*targets, *anchors])) if checker.counts["read"] == 0 else error) from error
        counts = {
            **checker.counts,
            "anchors": len(join.anchors),
            "anchors_repeated": join.repeated,
            "anchors_unused": len(join.anchors) - len(join.used),
            "left_out_language": join.left_out,
            "left_out_non_commercial": licences.dropped,
        }
        ignored = sorted(checker.ignored - {"lang", "licence"})
        done = Joined(out, card_path(out), counts, dict(sorted(by_language.items())), ignored)
        settings = {**policies, "anchor_language": anchor_language, "only": only, "non_commercial": non_commercial}
        _describe(done, written, hash_of([*anchor_sources, *target_sources]), licences, settings)
    return done


def _describe(
    joined: Joined, written: Path, sources: Mapping[str, str], licences: Licences, settings: Mapping[str, Any]
) -> None:
    write_card(
        joined.path,
        written=written,
        title="Pairs of a target and its anchor, joined by `innerlingua data pair`",
        languages=joined.languages,
        counts=joined.counts,
        sources=sources,
        licences=licences.counts,
        settings={**settings, "columns_left_out": joined.ignored_columns},
        notes=[
            "`provenance` of each row says, as JSON, where target and anchor came from: model, template, settings and "
            "date where a model wrote them, file and line where a file held them.",
            LICENCE_NOTE,
        ],
    )


def _counting(checker: RowChecker, counted: dict[str, int]) -> Iterator[Any]:
    for table in checker.tables():
        for entry in table["language"].value_counts().to_pylist():
            counted[entry["values"]] = counted.get(entry["values"], 0) + entry["counts"]
        yield table


class _Join:
    """Anchors by id, and targets with their anchor's columns put beside them."""

    def __init__(self, anchor_language: str, language: str | None, only: frozenset[str] | None) -> None:
        self.anchors: dict[str, bytes] = {}
        self.used: set[str] = set()
        self.repeated = 0
        self.left_out = 0
        self._digests: dict[str, int] = {}
        self._anchor_language = anchor_language
        self._language = language
        self._only = only

    def collect(self, source: Source, *, apart: bool) -> None:
        """Keep the anchors of a source; `apart` when all of its rows are anchors."""
        for number, row in source.rows():
            language = row.get("language", row.get("lang"))
            if isinstance(row.get("text"), dict) and not apart:
                return  # the parallel layout: its rows carry both sides
            if apart and language is not None and language != self._anchor_language:
                raise DataError(
                    f"{source.place(number)}: an anchor in {language!r} where the anchor language is "
                    f"{self._anchor_language!r}. Set --anchor-language, or give this file as a target."
                )
            if not apart and (language != self._anchor_language or _is_pair(row)):
                continue
            if isinstance(row.get("text"), dict):
                raise DataError(
                    f"{source.place(number)}: a row with many languages among the anchors; it carries both sides, so "
                    "give its file as a target, without --anchors"
                )
            self._keep(row, source, number)

    def _keep(self, row: dict[str, Any], source: Source, number: int) -> None:
        where = source.place(number)
        row_id = row_id_of(row, where)
        content = {column: row[column] for column in _CONTENT if row.get(column) is not None}
        if not content:
            raise DataError(
                f"{where} (id {row_id!r}): no content. An anchor needs text, or prompt and completion, or messages; "
                f"its columns: {', '.join(sorted(row))}."
            )
        digest = xxhash.xxh3_64_intdigest(_SORTED(content).encode())
        first = self._digests.setdefault(row_id, digest)
        if first != digest:
            raise DataError(
                f"{where} (id {row_id!r}): another anchor has the same id and other content. An id names one meaning; "
                "rename one of the two, or remove it."
            )
        if row_id in self.anchors:
            self.repeated += 1
            return
        kept = {PREFIX + column: value for column, value in content.items()}
        kept["provenance"] = _provenance(row, source, number)
        for name in ("group", "answer", "source", "license"):
            if row.get(name) is not None:
                kept[name] = row[name]
        self.anchors[row_id] = _WRITE(kept).encode()

    def nothing(self, paths: Sequence[str | Path]) -> str:
        """Why there was no target to join."""
        names = ", ".join(str(path) for path in paths)
        if self.left_out:
            return f"{names}: no target in the languages of --only; {counted(self.left_out, 'row')} in others"
        if self.anchors:
            return (
                f"{names}: only anchors ({self._anchor_language}) and no targets; give files of targets as well, with "
                "rows in them"
            )
        return f"{names}: no rows"

    def rows(self, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
        """The targets of a source, each with its anchor's columns where there is one."""
        rows = source.rows()
        first = next(rows, None)
        if first is None:
            return
        opened = replace(source, rows=lambda: chain((first,), rows))
        if isinstance(first[1].get("text"), dict):
            expanded = expand_parallel(opened, anchor=self._anchor_language)
            yield from self._wanted((n, self._finished(row, _provenance(row, source, n))) for n, row in expanded)
            return
        yield from self._wanted(self._joined(opened))

    def _wanted(self, rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in rows:
            if self._only is not None and row.get("language") not in self._only:
                self.left_out += 1
                continue
            yield number, row

    def _joined(self, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, given in source.rows():
            row = dict(given)
            if row.get("language") is None:
                row["language"] = row.pop("lang", None) or self._language
            paired = _is_pair(row)
            if row["language"] == self._anchor_language and not paired:
                continue
            own = _provenance(row, source, number)
            stored = None if paired else self.anchors.get(str(row.get("id")))
            if stored is None:
                yield number, self._finished(row, own)
                continue
            self.used.add(str(row["id"]))
            anchor = json.loads(stored)
            origin = anchor.pop("provenance")
            licence = both(licence_of(row), anchor.get("license"))
            row = {
                **anchor,
                **{k: v for k, v in row.items() if v is not None},
                "anchor_language": self._anchor_language,
                "license": licence,
            }
            yield number, self._finished(row, own, origin)

    def _finished(
        self, row: dict[str, Any], own: dict[str, Any], anchor: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The row with `provenance` of both sides and carried columns as text."""
        whole = own if _of_pair(own) else {"target": own, **({"anchor": anchor} if anchor else {})}
        row["provenance"] = _WRITE(whole)
        for name in CARRIED:
            if row.get(name) is not None and not isinstance(row[name], str):
                row[name] = _WRITE(row[name])
        return row


def _is_pair(row: dict[str, Any]) -> bool:
    return any(row.get(PREFIX + column) is not None for column in _CONTENT)


@cache
def _file_name(path: str) -> str:
    return Path(path).name


def _of_pair(provenance: dict[str, Any]) -> bool:
    return "target" in provenance and set(provenance) <= {"target", "anchor"}


def _provenance(row: dict[str, Any], source: Source, number: int) -> dict[str, Any]:
    """What the row says of its origin, else the file and place that it was read from."""
    given = row.get("provenance")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return {"note": given}
    origin = {name: row[name] for name in ("source", "license") if row.get(name) is not None}
    if isinstance(given, dict):
        # What `pair` wrote holds both sides and goes through as it is.
        return given if _of_pair(given) else {**origin, **given}
    return {"file": _file_name(source.name), source.unit: number, **origin}
