"""One pass over pairs: counts and lengths per language, duplicates, untranslated rows, overlap with evaluation sets.

A row that cannot be read at all is an error with its place. Everything else is counted, and the first places of each
kind are listed. Held in memory per row: a hash of its text, two lengths, a 256-byte signature, and a hash of its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from innerlingua.data.checking.grams import WordHasher, windows
from innerlingua.data.checking.near import group_alike, signatures
from innerlingua.data.checking.overlap import EvaluationSet, open_evaluation_sets, pieces_of
from innerlingua.data.languages import ENGLISH, check_language, known_languages
from innerlingua.data.parallel import expand_parallel
from innerlingua.data.rows import PREFIX, Content, Shape, is_blank, read_content, shape_of
from innerlingua.data.scripts import script_of, script_share
from innerlingua.data.sources import Source, open_sources
from innerlingua.errors import DataError

__all__ = ["CheckReport", "LanguageReport", "OverlapReport", "check_pairs"]

_BATCH: Final = 5000
_EXAMPLES: Final = 5
_COPIED: Final = 0.5  # of a target's 5-word runs found in its anchor
_SCRIPT: Final = 0.3  # of a target's letters in its language's script


@dataclass
class LanguageReport:
    """What one target language holds. Lengths are [median, 95th percentile, largest] of target and anchor."""

    rows: int = 0
    without_anchor: int = 0
    empty: int = 0
    same_as_anchor: int = 0
    untranslated: int = 0
    wrong_script: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    lengths: list[int] = field(default_factory=list)
    anchor_lengths: list[int] = field(default_factory=list)


@dataclass
class OverlapReport:
    """Overlap with one evaluation set: rows by how it was seen, and rows for which nothing could be compared."""

    test_rows: int
    test_rows_without_english: int
    test_rows_too_short: int
    templates: int
    overlapping: int = 0
    by: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    not_checkable: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class CheckReport:
    """Everything that was found; `to_dict` for scripts, `render` for people."""

    sources: list[str]
    rows: int
    ids: int
    id_collisions: int
    anchor_conflicts: int
    length_unit: str
    near_threshold: float
    languages: dict[str, LanguageReport]
    overlap: dict[str, OverlapReport]
    ignored_columns: list[str]
    examples: dict[str, list[str]]

    @property
    def problems(self) -> int:
        """The sum of all faults, where a row with two counts twice; 0 means that nothing was found."""
        faults = ("empty", "same_as_anchor", "untranslated", "wrong_script", "duplicates", "near_duplicates")
        own: int = sum(getattr(report, name) for report in self.languages.values() for name in faults)
        return own + self.id_collisions + self.anchor_conflicts + sum(o.overlapping for o in self.overlap.values())

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {"schema": "innerlingua.check/1", **asdict(self), "problems": self.problems}


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
        raise DataError(f"near is {near}; a likeness is above 0 and at most 1")
    sources = open_sources(list(paths) if not isinstance(paths, str | Path) else paths)
    counter = _token_counter(tokenizer)
    sets = open_evaluation_sets(tests)
    run = _Check(sources, sets, known_languages(languages), counter)
    run.read(progress)
    return run.report(near, "tokens" if counter else "words")


def _token_counter(path: str | Path | None) -> Callable[[list[str]], list[int]] | None:
    if path is None:
        return None
    from tokenizers import Tokenizer

    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise DataError(f"{path}: no tokenizer.json there; give the folder of a model, or leave --tokenizer out")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(e) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


class _Language:
    """What is kept of the rows of one language until the end."""

    def __init__(self) -> None:
        self.report = LanguageReport()
        self.texts: list[NDArray[np.uint64]] = []
        self.signed: list[NDArray[np.uint32]] = []
        self.places: list[NDArray[np.int64]] = []
        self.lengths: list[NDArray[np.int64]] = []
        self.anchor_lengths: list[NDArray[np.int64]] = []


@dataclass(frozen=True)
class _Row:
    place: int
    row_id: str
    group: str | None
    language: str
    text: str
    anchor: str | None
    english: tuple[str, ...]


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
        self._words = WordHasher()
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._languages: dict[str, _Language] = {}
        self._seen: set[int] = set()
        self._anchors: dict[int, int] = {}
        self._rows = 0
        self._collisions = 0
        self._conflicts = 0
        self._ignored: set[str] = set()
        self._examples: dict[str, list[str]] = {}
        self._overlap = {s.name: OverlapReport(s.rows, s.without_english, s.too_short, s.templates) for s in sets}

    def read(self, progress: Callable[[int], None] | None) -> None:
        rows = self._each()
        while batch := list(islice(rows, _BATCH)):
            self._batch(batch)
            self._rows += len(batch)
            if progress is not None:
                progress(self._rows)
        if not self._rows:
            raise DataError(f"{', '.join(s.name for s in self._sources)}: no rows")

    def _each(self) -> Iterator[_Row]:
        for index, source in enumerate(self._sources):
            for number, row in _pairs_of(source):
                yield self._row(row, index << 40 | number)

    def _place(self, place: int) -> str:
        return self._sources[place >> 40].place(place & (1 << 40) - 1)

    def _row(self, row: dict[str, Any], place: int) -> _Row:
        present = tuple(name for name, value in row.items() if value is not None)
        where = self._place(place)
        if present not in self._shapes:
            self._shapes[present] = shape_of(present, where)
            self._ignored.update(self._shapes[present].ignored)
        shape = self._shapes[present]
        language = row["language"]
        if language not in self._known:
            check_language(str(language), where, known=self._known)
        _, content = read_content(row, shape.columns, "", where)
        anchor: Content | None = None
        if shape.has_anchor:
            _, anchor = read_content(row, shape.columns, PREFIX, where)
        anchor_language = row.get("anchor_language") or ENGLISH
        text = _joined(content)
        anchor_text = _joined(anchor) if anchor is not None else None
        row_id = str(row["id"])
        self._note_ids(row_id, language, anchor_text, place)
        faults = self._languages.setdefault(language, _Language()).report
        faults.rows += 1
        faults.without_anchor += anchor is None
        if is_blank(content) or (anchor is not None and is_blank(anchor)):
            faults.empty += 1
            self._example("empty", place, row_id)
        if anchor is not None and text == anchor_text:
            faults.same_as_anchor += 1
            self._example("same_as_anchor", place, row_id)
        english: tuple[str, ...] = ()
        if anchor is not None and anchor_language == ENGLISH:
            english = tuple(pieces_of(list(anchor.values())))
        elif language == ENGLISH:
            english = tuple(pieces_of(list(content.values())))
        group = row.get("group")
        return _Row(place, row_id, None if group is None else str(group), language, text, anchor_text, english)

    def _note_ids(self, row_id: str, language: str, anchor: str | None, place: int) -> None:
        key = xxhash.xxh3_64_intdigest(f"{language}\0{row_id}".encode())
        if key in self._seen:
            self._collisions += 1
            self._example("id_collision", place, row_id)
        self._seen.add(key)
        if anchor is not None:
            digest = xxhash.xxh3_64_intdigest(anchor.encode())
            if self._anchors.setdefault(xxhash.xxh3_64_intdigest(row_id.encode()), digest) != digest:
                self._conflicts += 1
                self._example("anchor_conflict", place, row_id)

    def _example(self, kind: str, place: int, row_id: str, more: str = "") -> None:
        listed = self._examples.setdefault(kind, [])
        if len(listed) < _EXAMPLES:
            listed.append(f"{self._place(place)} (id {row_id!r}){more}")

    def _batch(self, rows: list[_Row]) -> None:
        words = self._words([row.text for row in rows])
        anchored = [i for i, row in enumerate(rows) if row.anchor is not None]
        anchor_words = self._words([rows[i].anchor or "" for i in anchored])
        signed = signatures(words)
        lengths = np.array(self._count([r.text for r in rows])) if self._count else words.lengths
        anchor_lengths = (
            np.array(self._count([rows[i].anchor or "" for i in anchored])) if self._count else anchor_words.lengths
        )
        texts = np.array(
            [xxhash.xxh3_64_intdigest(row.text.casefold().strip().encode()) for row in rows], dtype=np.uint64
        )
        places = np.array([row.place for row in rows], dtype=np.int64)
        codes = np.array([row.language for row in rows])
        for code in np.unique(codes).tolist():
            mine = np.flatnonzero(codes == code)
            kept = self._languages[code]
            kept.texts.append(texts[mine])
            kept.signed.append(signed[mine])
            kept.places.append(places[mine])
            kept.lengths.append(lengths[mine])
            kept.anchor_lengths.append(anchor_lengths[np.isin(anchored, mine)])
        # Runs of five words that target and anchor share: what was left in the anchor's language.
        grams, owner = windows(words, 5)
        anchor_grams, anchor_owner = windows(anchor_words, 5)
        anchor_rows = np.array(anchored, dtype=np.int64)[anchor_owner] if len(anchor_owner) else anchor_owner
        shared = np.isin(_mix(grams, owner), _mix(anchor_grams, anchor_rows))
        total = np.bincount(owner, minlength=len(rows))
        copied = np.bincount(owner, weights=shared, minlength=len(rows))
        for i, row in enumerate(rows):
            report = self._languages[row.language].report
            if row.anchor is not None and total[i] and copied[i] >= _COPIED * total[i] and row.text != row.anchor:
                report.untranslated += 1
                self._example("untranslated", row.place, row.row_id)
            script = script_of(row.language)
            share = script_share(row.text, script) if script is not None and script != "Latn" else None
            if share is not None and share < _SCRIPT:
                report.wrong_script += 1
                self._example("wrong_script", row.place, row.row_id, f": {share:.0%} of its letters in {script}")
        self._compare(rows)

    def _compare(self, rows: list[_Row]) -> None:
        if not self._sets:
            return
        texts = [piece for row in rows for piece in row.english]
        owners = np.array([i for i, row in enumerate(rows) for _ in row.english], dtype=np.int64)
        words = self._words(texts)
        for tests in self._sets:
            found = self._overlap[tests.name]
            by_words = tests.by_words(words, owners) if texts else {}
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
            languages={code: kept.report for code, kept in sorted(self._languages.items())},
            overlap=self._overlap,
            ignored_columns=sorted(self._ignored),
            examples=self._examples,
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
                self._example("duplicate", int(places[i]), code)
        first.sort()
        heads = group_alike(signed[first], near)
        alike = np.flatnonzero(heads != np.arange(len(heads)))
        kept.report.near_duplicates = len(alike)
        for i in alike[:_EXAMPLES].tolist():
            listed = self._examples.setdefault("near_duplicate", [])
            if len(listed) < _EXAMPLES:
                listed.append(
                    f"{self._place(int(places[first[i]]))} and {self._place(int(places[first[heads[i]]]))} ({code})"
                )


def _pairs_of(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a source; rows that hold one meaning in many languages become their pairs."""
    rows = source.rows()
    first = next(rows, None)
    if first is None:
        return
    if isinstance(first[1].get("text"), dict):
        yield from expand_parallel(source)
        return
    yield first
    yield from rows


def _joined(content: Content) -> str:
    return "\n".join(pieces_of(list(content.values())))


def _mix(grams: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One number for (gram, row), so that sets of many rows are compared at once."""
    return grams ^ (rows.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))


def _spread(parts: list[NDArray[np.int64]]) -> list[int]:
    values = np.concatenate(parts) if parts else np.empty(0)
    if not len(values):
        return []
    return [int(np.median(values)), int(np.percentile(values, 95)), int(values.max())]
