"""One pass over pairs: counts and lengths per language, duplicates, untranslated rows, overlap with evaluation sets.

A row that cannot be read at all is an error with its place. Everything else is counted, and the first places of each
kind are listed. Held in memory per row: a hash of its text, two lengths, a 256-byte signature, and a hash of its id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from innerlingua.data.checking.grams import Words, hash_words, shares_of_runs
from innerlingua.data.checking.near import group_alike, signatures
from innerlingua.data.checking.overlap import EvaluationSet, Hit, open_evaluation_sets, pieces_of
from innerlingua.data.checking.report import CheckReport, LanguageReport, OverlapReport
from innerlingua.data.checking.tokens import token_counter
from innerlingua.data.languages import ENGLISH, check_language, known_languages
from innerlingua.data.licences import NOT_STATED, licence_of
from innerlingua.data.parallel import expand_parallel
from innerlingua.data.rows import (
    PREFIX,
    Content,
    Kind,
    Shape,
    check_spans,
    group_of,
    is_blank,
    read_content,
    row_id_of,
    shape_of,
)
from innerlingua.data.scripts import code_points, script_of, script_shares
from innerlingua.data.sources import Source, open_sources
from innerlingua.errors import DataError

__all__ = ["check_pairs"]

_BATCH: Final = 5000
_CHARACTERS: Final = 1 << 22
_EXAMPLES: Final = 5
_KINDS: Final = (
    "empty",
    "same_as_anchor",
    "untranslated",
    "wrong_script",
    "id_collision",
    "anchor_conflict",
    "duplicate",
    "near_duplicate",
)
_COPIED: Final = 0.5  # of a target's 5-word runs found in its anchor
_SCRIPT: Final = 0.3  # of a target's letters in its language's script


def check_pairs(
    paths: str | Path | Sequence[str | Path],
    *,
    tests: Sequence[str | Path] = (),
    tokenizer: str | Path | None = None,
    near: float = 0.7,
    languages: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> CheckReport:
    """Count what pairs hold and what is wrong with them. Nothing is changed.

    Args:
        paths: rows as `train` reads them, or the parallel layout.
        tests: evaluation sets in any of the layouts of `english_pieces`.
        tokenizer: folder or file of a fast tokenizer (`tokenizer.json`), for lengths in tokens of the bare content,
            without a chat template; lengths are in words without it.
        near: least likeness of near-duplicates, see `near.py`.
        languages: `{code: English name}` for languages outside FLORES-200.
        progress: called with the number of rows read so far.

    Raises:
        DataError: a file or row cannot be read, `near` is outside (0, 1], a tokenizer is missing.
    """
    if not 0 < near <= 1:
        raise DataError(f"--near {near}: a likeness is above 0 and at most 1")
    sources = open_sources(list(paths) if not isinstance(paths, str | Path) else paths)
    counter = token_counter(tokenizer)
    sets = open_evaluation_sets(tests)
    run = _Check(sources, sets, known_languages(languages), counter)
    run.read(progress)
    return run.report(near, "tokens" if counter else "words")


class _Language:
    """What is kept of the rows of one language until the end."""

    def __init__(self) -> None:
        self.report = LanguageReport()
        self.texts: list[NDArray[np.uint64]] = []
        self.signed: list[NDArray[np.uint32]] = []
        self.places: list[NDArray[np.int64]] = []
        self.lengths: list[NDArray[np.int64]] = []
        self.anchor_lengths: list[NDArray[np.int64]] = []


class _Row(NamedTuple):
    """One row: its target and its anchor as pieces of text, and which of the two is English, if any."""

    place: int
    row_id: str
    group: str | None
    language: str
    target: tuple[str, ...]
    anchor: tuple[str, ...] | None
    english: Literal["target", "anchor"] | None
    text: str


class _Check:
    def __init__(
        self,
        sources: Sequence[Source],
        sets: Sequence[EvaluationSet],
        known: Mapping[str, str],
        counter: Callable[[list[str]], list[int]] | None,
    ) -> None:
        self._sources = sources
        self._sets = sets
        self._known = known
        self._count = counter
        self._kind: Kind | None = None
        self._kind_place = 0
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._languages: dict[str, _Language] = {}
        self._seen: set[int] = set()
        self._anchors: dict[int, int] = {}
        self._rows = 0
        self._collisions = 0
        self._conflicts = 0
        self._ignored: set[str] = set()
        self._licences: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._overlap = {s.name: OverlapReport(s.rows, s.without_english, s.too_short, s.templates) for s in sets}

    def read(self, progress: Callable[[int], None] | None) -> None:
        """Read all rows. What is looked for in many rows together runs beside the reading of the next ones."""
        with ThreadPoolExecutor(1) as beside:
            under_way: Future[None] | None = None
            for batch in _batches(self._each()):
                if under_way is not None:
                    under_way.result()
                    if progress is not None:
                        progress(self._rows)
                self._rows += len(batch)
                under_way = beside.submit(self._batch, batch)
            if under_way is not None:
                under_way.result()
        if not self._rows:
            raise DataError(f"{', '.join(s.name for s in self._sources)}: no rows")

    def _each(self) -> Iterator[_Row]:
        for index, source in enumerate(self._sources):
            for number, row in _pairs_of(source):
                yield self._row(row, index << 40 | number)

    def _place(self, place: int) -> str:
        return self._sources[place >> 40].place(place & (1 << 40) - 1)

    def _row(self, row: dict[str, Any], place: int) -> _Row:
        present = tuple([name for name, value in row.items() if value is not None])
        where = self._place(place)
        shape = self._shapes.get(present)
        if shape is None:
            shape = self._shapes[present] = shape_of(present, where)
            self._ignored.update(shape.ignored)
        language, row_id = row["language"], row_id_of(row, where)
        if not isinstance(language, str):
            raise DataError(f"{where}: language must be text, not {language!r}")
        check_language(language, where, known=self._known)
        kind, content = read_content(row, shape.columns, "", where)
        if self._kind != kind:
            self._check_kind(kind, place)
        target = tuple(pieces_of(list(content.values())))
        text = "\n".join(target)
        faults = self._languages.setdefault(language, _Language()).report
        faults.rows += 1
        anchor: tuple[str, ...] | None = None
        anchor_content: Content | None = None
        blank = is_blank(content)
        if shape.has_anchor:
            anchor_kind, anchor_content = read_content(row, shape.columns, PREFIX, where)
            if anchor_kind != kind:
                raise DataError(f"{where}: the target has {kind} and the anchor {anchor_kind}; give both the same form")
            anchor = tuple(pieces_of(list(anchor_content.values())))
            blank = blank or is_blank(anchor_content)
            if target == anchor:
                faults.same_as_anchor += 1
                self._example("same_as_anchor", place, row_id)
        else:
            faults.without_anchor += 1
        if blank:
            faults.empty += 1
            self._example("empty", place, row_id)
        if row.get("spans") is not None:
            check_spans(row["spans"], content, anchor_content, where)
        self._note_ids(row_id, language, anchor, place)
        self._licences[licence_of(row) or NOT_STATED] += 1
        english: Literal["target", "anchor"] | None = "target" if language == ENGLISH else None
        if anchor is not None and (row.get("anchor_language") or ENGLISH) == ENGLISH:
            english = "anchor"
        return _Row(place, row_id, group_of(row, where), language, target, anchor, english, text)

    def _check_kind(self, kind: Kind, place: int) -> None:
        if self._kind is not None:
            raise DataError(
                f"{self._place(place)}: {kind}, where {self._place(self._kind_place)} has {self._kind}. One dataset "
                "has one form of content; check the two apart."
            )
        self._kind, self._kind_place = kind, place

    def _note_ids(self, row_id: str, language: str, anchor: tuple[str, ...] | None, place: int) -> None:
        key = xxhash.xxh3_64_intdigest(f"{language}\0{row_id}".encode())
        if key in self._seen:
            self._collisions += 1
            self._example("id_collision", place, row_id)
        self._seen.add(key)
        if anchor is not None:
            digest = xxhash.xxh3_64_intdigest("\n".join(anchor).encode())
            if self._anchors.setdefault(xxhash.xxh3_64_intdigest(row_id.encode()), digest) != digest:
                self._conflicts += 1
                self._example("anchor_conflict", place, row_id)

    def _example(self, kind: str, place: int, row_id: str, more: str = "") -> None:
        self._listed(kind, f"{self._place(place)} (id {row_id!r}){more}")

    def _listed(self, kind: str, told: str) -> None:
        listed = self._examples.setdefault(kind, [])
        if len(listed) < _EXAMPLES:
            listed.append(told)

    def _batch(self, rows: list[_Row]) -> None:
        """What arrays of all texts show: lengths, signatures, untranslated rows, scripts, overlap."""
        folded = [[piece.casefold() for piece in row.target] for row in rows]
        pieces = hash_words([piece for target in folded for piece in target], folded=True)
        words = pieces.joined(_owners([len(row.target) for row in rows]), len(rows))
        anchored = np.array([i for i, row in enumerate(rows) if row.anchor is not None], dtype=np.int64)
        anchors = [row.anchor for row in rows if row.anchor is not None]
        anchor_pieces = hash_words([piece for anchor in anchors for piece in anchor])
        anchor_words = anchor_pieces.joined(_owners([len(anchor) for anchor in anchors]), len(anchors))
        lengths, anchor_lengths = words.lengths, anchor_words.lengths
        if self._count is not None:
            lengths = np.array(self._count([row.text for row in rows]), dtype=np.int64)
            anchor_lengths = np.array(self._count(["\n".join(anchor) for anchor in anchors]), dtype=np.int64)
        wholes = ("\n".join(target).strip().encode() for target in folded)
        texts = np.array([xxhash.xxh3_64_intdigest(whole) for whole in wholes], dtype=np.uint64)
        places = np.array([row.place for row in rows], dtype=np.int64)
        signed = signatures(words)
        # Runs of five words that stand in the anchor too: the row was left in that language.
        untranslated = shares_of_runs(words, anchor_words, anchored, 5) >= _COPIED
        codes = np.array([row.language for row in rows])
        for code in np.unique(codes).tolist():
            mine = codes == code
            kept = self._languages[code]
            kept.texts.append(texts[mine])
            kept.signed.append(signed[mine])
            kept.places.append(places[mine])
            kept.lengths.append(lengths[mine])
            kept.anchor_lengths.append(anchor_lengths[mine[anchored]])
            numbers = np.flatnonzero(mine)
            for i in numbers[untranslated[mine]].tolist():
                if rows[i].target != rows[i].anchor:
                    kept.report.untranslated += 1
                    self._example("untranslated", rows[i].place, rows[i].row_id)
            script = script_of(code)
            if script is not None and script != "Latn":
                shares = script_shares(code_points([rows[i].text for i in numbers]), script)
                for at in np.flatnonzero(shares < _SCRIPT).tolist():
                    row = rows[numbers[at]]
                    kept.report.wrong_script += 1
                    self._example(
                        "wrong_script", row.place, row.row_id, f": {shares[at]:.0%} of its letters in {script}"
                    )
        if self._sets:
            self._compare(rows, pieces, anchor_pieces)

    def _compare(self, rows: list[_Row], pieces: Words, anchor_pieces: Words) -> None:
        """Overlap of the rows' English sides with every evaluation set."""
        of_target = np.array([row.english == "target" for row in rows for _ in row.target], dtype=bool)
        of_anchor = np.array([row.english == "anchor" for row in rows for _ in row.anchor or ()], dtype=bool)
        owner = np.array([i for i, row in enumerate(rows) for _ in row.target], dtype=np.int64)
        anchor_owner = np.array([i for i, row in enumerate(rows) for _ in row.anchor or ()], dtype=np.int64)
        sides = [
            (pieces.select(of_target), owner[of_target]),
            (anchor_pieces.select(of_anchor), anchor_owner[of_anchor]),
        ]
        for tests in self._sets:
            found = self._overlap[tests.name]
            by_words: dict[int, Hit] = {}
            for words, owners in sides:
                by_words |= tests.by_words(words, owners)
            for i, row in enumerate(rows):
                hit = tests.by_name(row.row_id, row.group) or by_words.get(i)
                if hit is None:
                    comparable = (row.english and tests.has_english) or (row.group is not None and tests.has_groups)
                    found.not_checkable += not comparable
                    continue
                found.overlapping += 1
                found.by[hit.by] = found.by.get(hit.by, 0) + 1
                found.languages[row.language] = found.languages.get(row.language, 0) + 1
                if len(found.examples) < _EXAMPLES:
                    found.examples.append(f"{self._place(row.place)} (id {row.row_id!r}) = {hit.test}, by {hit.by}")

    def report(self, near: float, unit: str) -> CheckReport:
        for code, kept in self._languages.items():
            self._duplicates(code, kept, near)
            kept.report.lengths = _spread(kept.lengths)
            kept.report.anchor_lengths = _spread(kept.anchor_lengths)
        return CheckReport(
            sources=[source.name for source in self._sources],
            rows=self._rows,
            ids=len(self._anchors) or len(self._seen),
            id_collisions=self._collisions,
            anchor_conflicts=self._conflicts,
            length_unit=unit,
            near_threshold=near,
            licences=dict(sorted(self._licences.items())),
            languages={code: kept.report for code, kept in sorted(self._languages.items())},
            overlap=self._overlap,
            ignored_columns=sorted(self._ignored),
            examples={kind: self._examples[kind] for kind in _KINDS if kind in self._examples},
        )

    def _duplicates(self, code: str, kept: _Language, near: float) -> None:
        texts, places = np.concatenate(kept.texts), np.concatenate(kept.places)
        signed = np.concatenate(kept.signed)
        kept.signed.clear()
        _, first = np.unique(texts, return_index=True)
        kept.report.duplicates = len(texts) - len(first)
        if kept.report.duplicates:
            again = np.setdiff1d(np.arange(len(texts)), first)
            for i in again[:_EXAMPLES].tolist():
                self._listed("duplicate", f"{self._place(int(places[i]))} ({code})")
        first.sort()
        heads = group_alike(signed[first], near)
        alike = np.flatnonzero(heads != np.arange(len(heads)))
        kept.report.near_duplicates = len(alike)
        for i in alike[:_EXAMPLES].tolist():
            pair = (self._place(int(places[at])) for at in (first[i], first[heads[i]]))
            self._listed("near_duplicate", f"{' and '.join(pair)} ({code})")


def _pairs_of(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a source; rows that hold one meaning in many languages become their pairs."""
    rows = source.rows()
    first = next(rows, None)
    if first is None:
        return
    opened = replace(source, rows=lambda: chain((first,), rows))
    yield from expand_parallel(opened) if isinstance(first[1].get("text"), dict) else opened.rows()


def _batches(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    """Rows in lists that are short, and whose texts are short together."""
    batch: list[_Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.text) + sum(map(len, row.anchor or ()))
        if len(batch) == _BATCH or size > _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _owners(counts: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), counts)


def _spread(parts: list[NDArray[np.int64]]) -> list[int]:
    values = np.concatenate(parts) if parts else np.empty(0)
    if not len(values):
        return []
    return [int(np.median(values)), int(np.percentile(values, 95)), int(values.max())]
