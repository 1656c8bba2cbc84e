"""Whether training rows overlap evaluation sets, across languages: by id, by group, or by the English side's 13-grams.

A row and a test row overlap when they share an `id` or a `group`, or when the row's English side (its anchor, or the
row itself when it is English) shares a run of 13 words with the test row's English side. A text of 8 to 12 words is a
run of its own length; of 5 to 7 words it must equal a whole text of the other side. A run that occurs in more than ten
groups of the test set is a template and not content; it is left out, and counted. 13 words and the exemption of common
runs follow Brown et al. 2020 (arXiv 2005.14165, appendix C).

A row is not checkable when nothing can be compared: no id or group in common, and no English side or none in the test
set, unless both sides name groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerlingua.data.checking.grams import Words, hash_words, windows
from innerlingua.data.languages import ENGLISH
from innerlingua.data.rows import KINDS, PREFIX
from innerlingua.data.sources import Source, open_sources
from innerlingua.errors import DataError

__all__ = ["LONG", "EvaluationSet", "Hit", "english_pieces", "open_evaluation_sets", "pieces_of"]

LONG = 13
_SHORT = 8
_WHOLE = 5
_TEMPLATE = 10
_BATCH = 5000

# Evaluation sets come from others, who write the language as they like.
_NAMES = (ENGLISH, "eng", "en", "English", "english")
# Where English text may stand in an evaluation set; all of its strings are compared.
_FIELDS = (
    "text",
    "premise",
    "sentence",
    "context",
    "passage",
    "question",
    "instruction",
    "input",
    "prompt",
    "completion",
    "messages",
    "choices",
    "items",
)


@dataclass(frozen=True)
class Hit:
    """One overlap: by what it was seen, and the place of the test row."""

    by: str
    test: str


def pieces_of(value: Any) -> list[str]:
    """All texts inside a cell: a text, a list of texts or messages, an object of them."""
    if isinstance(value, str):
        return [value]
    pieces: list[str] = []
    if isinstance(value, dict):
        value = [part for key, part in value.items() if key != "role"]
    if isinstance(value, list):
        for part in value:
            if isinstance(part, str):
                pieces.append(part)
            else:
                pieces += pieces_of(part)
    return pieces


def english_pieces(row: dict[str, Any], english: str = ENGLISH) -> list[str]:
    """The texts of a row's English side: `eng_Latn` in parallel cells, the anchor's columns, or its own texts."""
    columns = [column for kind in KINDS.values() for column in kind]
    pieces: list[str] = []
    names = _NAMES if english == ENGLISH else (english,)
    if row.get("anchor_language") in (None, *names):
        pieces += [piece for column in columns for piece in pieces_of(row.get(PREFIX + column))]
    language = row.get("language") or row.get("lang")
    for field in _FIELDS:
        value = row.get(field)
        if isinstance(value, dict):
            pieces += [piece for name in names for piece in pieces_of(value.get(name))]
        elif language in (None, *names) and not _own_text_is_target(row, language):
            pieces += pieces_of(value)
    return [piece for piece in pieces if piece.strip()]


def _own_text_is_target(row: dict[str, Any], language: Any) -> bool:
    """A row with anchor columns and no language of its own is a target: its own texts are not English."""
    return language is None and any(name.startswith(PREFIX) and row[name] is not None for name in row)


class EvaluationSet:
    """One evaluation set, indexed: ids, groups, and hashed runs of words of its English side."""

    def __init__(self, source: Source, *, english: str = ENGLISH) -> None:
        self.name = source.name
        self.rows = 0
        self.without_english = 0
        self.too_short = 0
        self._source = source
        self._ids: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        numbers: list[int] = []
        groups: list[int] = []
        texts: list[str] = []
        text_rows: list[int] = []
        for number, row in source.rows():
            self.rows += 1
            numbers.append(number)
            if row.get("id") is not None:
                self._ids.setdefault(str(row["id"]), number)
            group = row.get("group")
            if group is not None:
                self._groups.setdefault(str(group), number)
            groups.append(hash(str(group)) if group is not None else self.rows)
            pieces = english_pieces(row, english)
            self.without_english += not pieces
            texts += pieces
            text_rows += [len(numbers) - 1] * len(pieces)
        if not self.rows:
            raise DataError(f"{source.name}: no rows to compare with")
        self._numbers = np.array(numbers, dtype=np.int64)
        self._group_of = np.array(groups, dtype=np.int64)
        self.templates = 0
        self._index(hash_words(texts), np.array(text_rows, dtype=np.int64))

    @property
    def has_groups(self) -> bool:
        """Whether any test row names a group."""
        return bool(self._groups)

    @property
    def has_english(self) -> bool:
        """Whether any test row has an English side."""
        return self.without_english < self.rows

    def _index(self, words: Words, rows: NDArray[np.int64]) -> None:
        self._runs: dict[int, tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}
        self._whole: dict[int, tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}
        usable = np.zeros(self.rows, dtype=bool)
        for n in range(_WHOLE, LONG + 1):
            hashes, texts = windows(words, n)
            exact = words.lengths[texts] == n
            if n < LONG:
                # Kept apart: a whole text of theirs is looked for inside ours, too.
                self._whole[n] = self._sorted(hashes[exact], rows[texts[exact]])
            if n >= _SHORT:
                self._runs[n] = self._sorted(hashes, rows[texts])
            usable[rows[texts[exact]]] = True
            usable[rows[texts]] |= n >= _SHORT
        self.too_short = int((~usable).sum()) - self.without_english

    def _sorted(
        self, hashes: NDArray[np.uint64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Distinct runs in order with one test row each, without those of templates."""
        if not len(hashes):
            return hashes, rows
        order = np.lexsort((self._group_of[rows], hashes))
        hashes, rows = hashes[order], rows[order]
        groups = self._group_of[rows]
        new = np.r_[True, hashes[1:] != hashes[:-1]]
        new_group = new | np.r_[True, groups[1:] != groups[:-1]]
        starts = np.flatnonzero(new)
        common = np.add.reduceat(new_group.astype(np.int64), starts) > _TEMPLATE
        self.templates += int(common.sum())
        return hashes[starts][~common], rows[starts][~common]

    def place(self, row: int) -> str:
        """The place of a test row in words."""
        return self._source.place(int(self._numbers[row]))

    def by_name(self, row_id: str, group: str | None) -> Hit | None:
        """The test row that shares the id or the group."""
        if row_id in self._ids:
            return Hit("id", self._source.place(self._ids[row_id]))
        if group is not None and group in self._groups:
            return Hit("group", self._source.place(self._groups[group]))
        return None

    def by_words(self, words: Words, rows: NDArray[np.int64]) -> dict[int, Hit]:
        """Row number -> the test row whose English side shares a run of words; `rows` (texts,) owns each text."""
        hits: dict[int, Hit] = {}
        for n in range(_WHOLE, LONG + 1):
            hashes, texts = windows(words, n)
            if not len(hashes):
                continue
            exact = words.lengths[texts] == n
            # A whole text of ours inside a longer one of theirs, or any run of ours that is a whole text of theirs.
            if n >= LONG:
                tables = [(self._runs[n], np.ones(len(hashes), dtype=bool))]
            elif n >= _SHORT:
                tables = [(self._runs[n], exact), (self._whole[n], ~exact)]
            else:
                tables = [(self._whole[n], exact)]
            by = f"{LONG}-gram" if n == LONG else f"{n} words"
            for (known, test_rows), mask in tables:
                if not len(known) or not mask.any():
                    continue
                asked, owners = hashes[mask], texts[mask]
                at = np.searchsorted(known, asked)
                found = known[np.minimum(at, len(known) - 1)] == asked
                for text, test in zip(owners[found].tolist(), test_rows[at[found]].tolist(), strict=True):
                    hits.setdefault(int(rows[text]), Hit(by, self.place(test)))
        return hits


def open_evaluation_sets(paths: Sequence[str | Path]) -> list[EvaluationSet]:
    """Read and index evaluation sets; see `EvaluationSet`.

    Raises:
        DataError: a file cannot be read or holds no row.
    """
    return [EvaluationSet(source) for source in open_sources(list(paths))] if paths else []
