"""The sentences of a profile, gathered by meaning: every id with its text in each language, one id at a time.

Two forms of rows are read, also mixed: one meaning in many languages (`{"id", "text": {language: sentence}}`), and
pairs (`id`, `language`, content, and the anchor's content with the prefix `anchor_`). Language-to-language divergence
needs all languages of an id together, and the rows of pairs lie in any order, so the sides go through a temporary
database of SQLite's: what is in memory does not grow with the number of sentences, and a second row for one id and
language is found.

The ids come in the order of their hash, so that neither the order of the files nor that of rows changes a result, and
the first n ids are a random sample.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerlingua.data import ENGLISH, check_language, known_languages
from innerlingua.data.rows import PREFIX, Content, Kind, read_content, shape_of
from innerlingua.data.sources import Source, open_sources
from innerlingua.errors import DataError
from innerlingua.routing.profile.bootstrap import id_hash

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Meaning", "Sides", "read_sides"]

_TEXT = ("text",)
_COMMIT = 10_000


@dataclass(frozen=True)
class Meaning:
    """One id: the content of each language that has it, blank ones included."""

    name: str
    sides: dict[str, Content]


@dataclass
class Sides:
    """The sides that were read, on disk until this object goes.

    `targets` are the languages other than `anchor`, in the order of their codes. `kind` is the form of the content.
    `ids` and `ids_with` count the ids, all and by language; `excluded` counts rows left out by their group.
    """

    anchor: str
    names: dict[str, str]
    files: list[str]
    kind: Kind
    targets: list[str]
    ids: int
    ids_with: dict[str, int]
    excluded: int
    limit: int | None
    _database: sqlite3.Connection = field(repr=False)

    def __iter__(self) -> Iterator[Meaning]:
        """The ids in the order of their hash, at most `limit`."""
        rows = self._database.execute("SELECT id, language, content FROM sides ORDER BY hash, id, language")
        current: Meaning | None = None
        given = 0
        for name, language, content in rows:
            if current is None or current.name != name:
                if current is not None:
                    yield current
                given += 1
                if self.limit is not None and given > self.limit:
                    return
                current = Meaning(name, {})
            current.sides[language] = json.loads(content)
        if current is not None:
            yield current

    @property
    def total(self) -> int:
        """About how many sides an iteration gives; exact without a limit."""
        share = 1.0 if self.limit is None else min(1.0, self.limit / max(1, self.ids))
        return round(sum(self.ids_with.values()) * share)


def read_sides(
    sources: str | Path | Dataset | Sequence[str | Path | Dataset],
    *,
    anchor: str = ENGLISH,
    languages: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    exclude_groups: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
) -> Sides:
    """Read and check the rows of `sources`.

    Args:
        sources: files or datasets as for `innerlingua.read_pairs`, in either form of rows.
        anchor: the language that the others are compared with.
        languages: the languages to compare; all that occur unless given. Other languages' text is passed over.
        names: `{code: English name}` for languages outside FLORES-200.
        exclude_groups: rows whose `group` is one of these are left out and counted.
        limit: profile this many ids only, chosen by the hash of (seed, id).
        seed: of that hash.

    Raises:
        DataError: a source cannot be read; a row lacks its columns, has an unknown language, repeats an id in a
            language, has another anchor than an earlier row of its id or an anchor in another language; a language
            that was asked for does not occur; nothing to compare is left.
    """
    known = known_languages(names)
    wanted = None if languages is None else list(dict.fromkeys(languages))
    for code in [anchor, *(wanted or [])]:
        check_language(code, "languages", known=known)
    if wanted is not None and anchor in wanted:
        wanted.remove(anchor)
    if wanted == []:
        raise DataError(f"languages: {anchor} is the anchor; name at least one other language to compare with it")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it is a number of ids, at least 1")
    opened = open_sources(sources)
    reading = _Reading(anchor, wanted, known, frozenset(exclude_groups), seed)
    for source in opened:
        reading.read(source)
    return reading.finish([source.name for source in opened], limit)


class _Reading:
    """The running state of one reading: the database, and what the rows have in common."""

    def __init__(
        self,
        anchor: str,
        wanted: list[str] | None,
        known: Mapping[str, str],
        excluded_groups: frozenset[str],
        seed: int,
    ) -> None:
        self._anchor = anchor
        self._wanted = None if wanted is None else {anchor, *wanted}
        self._order = wanted
        self._known = known
        self._excluded_groups = excluded_groups
        self._seed = seed
        self._kind: tuple[Kind, str] | None = None
        self._excluded = 0
        self._rows = 0
        # An empty name is SQLite's word for a database on disk that is deleted when it is closed.
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute(
            "CREATE TABLE sides (hash INTEGER, id TEXT, language TEXT, content TEXT, place TEXT, "
            "PRIMARY KEY (hash, id, language)) WITHOUT ROWID"
        )

    def read(self, source: Source) -> None:
        """Store the sides of one source's rows."""
        for number, row in source.rows():
            self._rows += 1
            place = source.place(number)
            group = row.get("group")
            if isinstance(group, str) and group in self._excluded_groups:
                self._excluded += 1
                continue
            text = row.get("text")
            if isinstance(text, dict):
                self._parallel(row, place)
            elif text is not None and (not isinstance(text, str) or row.get("language") is None):
                raise DataError(
                    f'{place}: text must be {{language: sentence}}, or a sentence beside its "language" (a FLORES-200 '
                    f"code), not {type(text).__name__ if not isinstance(text, str) else 'a sentence alone'}"
                )
            else:
                self._pair(row, place)
            if self._rows % _COMMIT == 0:
                self._database.commit()

    def _parallel(self, row: dict[str, Any], place: str) -> None:
        name = _row_id(row, place)
        for language, text in row["text"].items():
            if text is None or not self._takes(language, place):
                continue
            kind, content = read_content({"text": text}, _TEXT, "", f"{place} (id {name!r}, {language})")
            self._store(name, language, kind, content, place)

    def _pair(self, row: dict[str, Any], place: str) -> None:
        shape = shape_of((column for column, value in row.items() if value is not None), place)
        name, language = _row_id(row, place), row["language"]
        where = f"{place} (id {name!r})"
        if not isinstance(language, str):
            raise DataError(f"{where}: language must be text, not {language!r}")
        if not self._takes(language, where):
            return
        kind, content = read_content(row, shape.columns, "", where)
        if shape.has_anchor:
            anchor_language = row.get("anchor_language") or ENGLISH
            if anchor_language != self._anchor:
                raise DataError(
                    f"{where}: its anchor is in {anchor_language}, where the profile compares with {self._anchor}. "
                    f"Profile these rows by themselves (anchor {anchor_language}), or leave them out"
                )
            if language == self._anchor:
                raise DataError(f"{where}: the target is in {language}, the language of its anchor")
            anchor_kind, anchor = read_content(row, shape.columns, PREFIX, where)
            if anchor_kind != kind:
                raise DataError(f"{where}: the target has {kind} and the anchor {anchor_kind}; both need the same form")
            self._store(name, self._anchor, kind, anchor, place)
        self._store(name, language, kind, content, place)

    def _takes(self, language: str, where: str) -> bool:
        if self._wanted is not None and language not in self._wanted:
            return False
        check_language(language, where, known=self._known)
        return True

    def _store(self, name: str, language: str, kind: Kind, content: Content, place: str) -> None:
        """Store one side. Only an anchor may come again, with the same content."""
        if self._kind is None:
            self._kind = (kind, place)
        if kind != self._kind[0]:
            raise DataError(
                f"{place}: {kind}, where {self._kind[1]} has {self._kind[0]}. One profile has one form of content; "
                "profile the two apart."
            )
        # SQLite's integers are signed.
        key = id_hash(name, self._seed) - 2**63
        payload = json.dumps(content, ensure_ascii=False)
        inserted = self._database.execute(
            "INSERT OR IGNORE INTO sides VALUES (?, ?, ?, ?, ?)", (key, name, language, payload, place)
        )
        if inserted.rowcount == 1:
            return
        stored, first = self._database.execute(
            "SELECT content, place FROM sides WHERE hash = ? AND id = ? AND language = ?", (key, name, language)
        ).fetchone()
        if stored != payload and language == self._anchor:
            raise DataError(
                f"{place} (id {name!r}): another anchor than at {first}. An id names one meaning and so one anchor; "
                "give rows of other meanings other ids."
            )
        if language != self._anchor:
            raise DataError(
                f"{place}: the id {name!r} occurs twice in {language}, first at {first}. An id and a language name one "
                "sentence; rename one of the two."
            )

    def finish(self, files: list[str], limit: int | None) -> Sides:
        """What was read, or `DataError` when there is nothing to compare."""
        self._database.commit()
        found = dict(
            self._database.execute(
                "SELECT language, COUNT(*) FROM sides GROUP BY language ORDER BY language"
            ).fetchall()
        )
        where = ", ".join(files)
        absent = [language for language in self._order or [] if language not in found]
        if absent:
            raise DataError(
                f"{where}: no row in {', '.join(absent)}. Leave it out of the languages, or add a file that has it."
            )
        if self._rows == 0:
            raise DataError(f"{where}: no rows in it")
        if self._kind is None or self._anchor not in found:
            left_out = f" ({self._excluded} of {self._rows} rows left out by their group)" if self._excluded else ""
            others = f"; there is {', '.join(found)}" if found else ""
            raise DataError(f"{where}: no text in the anchor language {self._anchor}{left_out}{others}")
        targets = [language for language in found if language != self._anchor]
        if not targets:
            raise DataError(f"{where}: no text in a language other than the anchor's, {self._anchor}")
        ids = self._database.execute("SELECT COUNT(*) FROM (SELECT DISTINCT hash, id FROM sides)").fetchone()[0]
        return Sides(
            anchor=self._anchor,
            names={code: self._known[code] for code in (self._anchor, *targets)},
            files=files,
            kind=self._kind[0],
            targets=targets,
            ids=ids,
            ids_with=found,
            excluded=self._excluded,
            limit=limit,
            _database=self._database,
        )


def _row_id(row: Mapping[str, Any], place: str) -> str:
    value = row.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f"{place}: id must be text or an integer and not blank, not {value!r}")
    return str(value)
