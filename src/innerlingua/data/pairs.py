"""Pairs of a target text and its anchor: read, checked and joined into one dataset.

Nothing is repaired or passed over in silence. A row that breaks a rule ends the reading with its file and line, unless
a policy says to drop or keep it; then it is counted, and `read == kept + all that was dropped`.

What is held in memory: the rows as Arrow, and per row one number for its place and one hash for its anchor.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xxhash

from innerlingua.data.languages import ENGLISH, check_language, known_languages
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
from innerlingua.data.sources import Source, open_sources
from innerlingua.data.wording import counted
from innerlingua.errors import DataError, nearest

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["Pairs", "RowChecker", "join_rows", "read_pairs"]

_BATCH = 5000
_CHARACTERS = 1 << 25  # of a batch's texts: long ones go in shorter batches
_PLACE_BITS = 40  # a place is source << 40 | number: one integer per row instead of a string


@dataclass(frozen=True)
class Pairs:
    """Checked rows and what became of those that were read.

    `dataset` has the columns id, language, anchor_language, the content columns, the same with prefix `anchor_` (null
    in rows without an anchor), and `group` and `spans` where any row has them. `counts` holds `read`, `kept`, one
    `dropped_...` per reason (read = kept + the dropped), and of the kept rows `kept_without_anchor` and
    `kept_same_as_anchor`. `sources` names what was read, `ignored_columns` the columns that were left out.
    """

    dataset: Dataset
    counts: dict[str, int]
    sources: list[str]
    ignored_columns: list[str]


def read_pairs(
    paths: str | Path | Dataset | Sequence[str | Path | Dataset],
    *,
    languages: Mapping[str, str] | None = None,
    missing_anchor: Literal["error", "drop", "keep"] = "error",
    same_as_anchor: Literal["error", "drop", "keep"] = "error",
    empty: Literal["error", "drop"] = "error",
    duplicate: Literal["error", "drop"] = "error",
) -> Pairs:
    """Read pairs from files or datasets, check every row, and join them into one dataset.

    Args:
        paths: JSON Lines (.jsonl, .json, .ndjson, each also .gz), Parquet, folders of `save_to_disk`
            (`folder:split` where there are splits), `datasets.Dataset` objects; one or several.
        languages: `{code: English name}` for languages outside FLORES-200.
        missing_anchor: rows without an anchor. `keep` makes them plain fine-tuning rows, with null anchor columns.
        same_as_anchor: rows whose target equals their anchor, which teach nothing about routing.
        empty: rows with blank text on either side.
        duplicate: a second row with the same id and language; `drop` keeps the first.

    Returns:
        Pairs in the order of the sources.

    Raises:
        DataError: a source cannot be read, or a row breaks a rule whose policy is `error`; also whatever no policy
            covers: missing or misspelt columns, wrong types, an unknown language, two anchors for one id, two forms of
            content in one dataset, no row left. The message names file, line and row id.
    """
    return join_rows(
        open_sources(paths),
        languages=languages,
        missing_anchor=missing_anchor,
        same_as_anchor=same_as_anchor,
        empty=empty,
        duplicate=duplicate,
    )


def join_rows(
    sources: Sequence[Source],
    *,
    languages: Mapping[str, str] | None = None,
    missing_anchor: str = "error",
    same_as_anchor: str = "error",
    empty: str = "error",
    duplicate: str = "error",
) -> Pairs:
    """Check and join the rows of opened sources; see `read_pairs`, which opens paths and calls this."""
    policies = {
        "missing_anchor": missing_anchor,
        "same_as_anchor": same_as_anchor,
        "empty": empty,
        "duplicate": duplicate,
    }
    joiner = RowChecker(sources, known_languages(languages), policies)
    tables = list(joiner.tables())
    return Pairs(_dataset(tables), joiner.counts, [source.name for source in sources], sorted(joiner.ignored))


def _policy(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise DataError(f"{name}: {value!r} is no policy{nearest(value, known)}")
    return value


def _dataset(tables: list[pa.Table]) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    table = pa.concat_tables(tables)
    for name in ("group", "spans"):
        if table[name].null_count == len(table):
            table = table.drop_columns(name)
    # A name of its own: the default one hashes every byte of the table.
    return Dataset(table, fingerprint=uuid.uuid4().hex)


_POLICIES = {
    "missing_anchor": ("error", "drop", "keep"),
    "same_as_anchor": ("error", "drop", "keep"),
    "empty": ("error", "drop"),
    "duplicate": ("error", "drop"),
}


class RowChecker:
    """The running state of one reading: counts, the places of rows seen, the anchor of each id.

    `tables` gives the kept rows a few thousand at a time, so that they need not be in memory together; `counts` and
    `ignored` are whole when it has ended.

    Args:
        sources: where the rows come from.
        known: language code -> English name.
        policies: what becomes of rows that break a rule, as in `read_pairs`.
        carry: text columns that are no part of a pair and are carried along, such as `provenance`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        known: Mapping[str, str],
        policies: Mapping[str, str],
        *,
        carry: Sequence[str] = (),
    ) -> None:
        for name, options in _POLICIES.items():
            _policy(name, policies[name], options)
        self._carry = tuple(carry)
        self.counts = {
            "read": 0,
            "kept": 0,
            **{f"dropped_{reason}": 0 for reason in ("empty", "missing_anchor", "same_as_anchor", "duplicate")},
            "kept_without_anchor": 0,
            "kept_same_as_anchor": 0,
        }
        self.ignored: set[str] = set()
        self._sources = sources
        self._known = known
        self._policies = policies
        self._kind: tuple[Kind, int] | None = None
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._anchors: dict[str, tuple[int, int]] = {}

    def tables(self) -> Iterator[pa.Table]:
        """The kept rows as Arrow tables of one schema."""
        import pyarrow as pa

        batch: list[dict[str, Any]] = []
        size = 0
        for index, source in enumerate(self._sources):
            for number, row in source.rows():
                self.counts["read"] += 1
                kept = self._row(row, index << _PLACE_BITS | number)
                if kept is not None:
                    self.counts["kept"] += 1
                    batch.append(kept)
                    size += sum([len(value) for value in kept.values() if isinstance(value, str)])
                if len(batch) == _BATCH or size > _CHARACTERS:
                    yield pa.Table.from_pylist(batch, schema=self._schema())
                    batch, size = [], 0
        if batch:
            yield pa.Table.from_pylist(batch, schema=self._schema())
        self.ignored -= set(self._carry)
        if not self.counts["kept"]:
            names = ", ".join(source.name for source in self._sources)
            if not self.counts["read"]:
                raise DataError(f"{names}: no rows; the file is empty, or holds none that give a pair")
            dropped = ", ".join(f"{name} {n}" for name, n in self.counts.items() if name.startswith("dropped") and n)
            raise DataError(f"{names}: no row left of {counted(self.counts['read'], 'row')} read ({dropped})")

    def _place(self, place: int) -> str:
        return self._sources[place >> _PLACE_BITS].place(place & (1 << _PLACE_BITS) - 1)

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        assert self._kind is not None, "a schema is asked for only when a row was kept"
        kind = self._kind[0]
        message = pa.struct([("role", pa.string()), ("content", pa.string())])
        content = pa.list_(message) if kind.conversational else pa.string()
        return pa.schema(
            [
                *((name, pa.string()) for name in ("id", "language", "anchor_language", "group")),
                *((column, content) for column in kind.columns),
                *((PREFIX + column, content) for column in kind.columns),
                ("spans", pa.list_(pa.list_(pa.int64()))),
                *((name, pa.string()) for name in self._carry),
            ]
        )

    def _row(self, row: dict[str, Any], place: int) -> dict[str, Any] | None:
        """The row as it goes into the dataset, or None when a policy drops it."""
        where = self._place(place)
        present = tuple(name for name, value in row.items() if value is not None)
        if present not in self._shapes:
            self._shapes[present] = shape_of(present, where)
            self.ignored.update(self._shapes[present].ignored)
        shape = self._shapes[present]
        row_id = row_id_of(row, where)
        where = f"{where} (id {row_id!r})"
        language = _string(row, "language", where)
        check_language(language, where, known=self._known)
        kind, target = read_content(row, shape.columns, "", where)
        self._check_kind(kind, place, where)
        anchor, anchor_language = self._anchor(row, shape, kind, where)
        spans = check_spans(row["spans"], target, anchor, where) if row.get("spans") is not None else None
        if self._dropped(target, anchor, where) or self._repeated(row_id, language, place, where):
            return None
        self.counts["kept_without_anchor"] += anchor is None
        self.counts["kept_same_as_anchor"] += target == anchor
        if anchor is not None:
            self._check_anchor(row_id, anchor, anchor_language, place, where)
        return {
            "id": row_id,
            "language": language,
            "anchor_language": anchor_language,
            "group": group_of(row, where),
            **target,
            **{PREFIX + column: value for column, value in (anchor or {}).items()},
            "spans": spans,
            **{name: _string(row, name, where) for name in self._carry if row.get(name) is not None},
        }

    def _anchor(self, row: dict[str, Any], shape: Shape, kind: Kind, where: str) -> tuple[Content | None, str | None]:
        if not shape.has_anchor:
            return None, None
        anchor_kind, anchor = read_content(row, shape.columns, PREFIX, where)
        if anchor_kind != kind:
            raise DataError(
                f"{where}: the target has {kind} and the anchor {anchor_kind}; both sides need the same form"
            )
        language = _string(row, "anchor_language", where) if row.get("anchor_language") is not None else ENGLISH
        check_language(language, f"{where}, anchor_language", known=self._known)
        return anchor, language

    def _check_kind(self, kind: Kind, place: int, where: str) -> None:
        if self._kind is None:
            self._kind = (kind, place)
        first, first_place = self._kind
        if kind != first:
            raise DataError(
                f"{where}: {kind}, where {self._place(first_place)} has {first}. One dataset has one form of content; "
                "read the two apart."
            )

    def _dropped(self, target: Content, anchor: Content | None, where: str) -> bool:
        for side, content in (("target", target), ("anchor", anchor)):
            if content is not None and is_blank(content):
                return self._reject(
                    "empty", f"{where}: the {side} is empty", "Fill it in, or drop such rows by empty: drop."
                )
        if anchor is None:
            return self._reject(
                "missing_anchor",
                f"{where}: no anchor",
                "Add the same text in the anchor language as anchor_ columns, or set missing_anchor: drop, or "
                "missing_anchor: keep to train on such rows without alignment.",
            )
        if target == anchor:
            return self._reject(
                "same_as_anchor",
                f"{where}: the target equals its anchor (an untranslated row?)",
                "Translate it, or set same_as_anchor: drop, or keep.",
            )
        return False

    def _repeated(self, row_id: str, language: str, place: int, where: str) -> bool:
        first = self._seen.setdefault((row_id, language), place)
        if first == place:
            return False
        return self._reject(
            "duplicate",
            f"{where}: the id occurs twice in {language}, first at {self._place(first)}",
            "An id and a language name one row; rename one of the two, or keep the first by duplicate: drop.",
        )

    def _reject(self, reason: str, problem: str, remedy: str) -> bool:
        """True when the policy drops the row, which is counted; False when it keeps it."""
        policy = self._policies[reason]
        if policy == "error":
            raise DataError(f"{problem}. {remedy}")
        self.counts[f"dropped_{reason}"] += policy == "drop"
        return policy == "drop"

    def _check_anchor(self, row_id: str, anchor: Content, language: str | None, place: int, where: str) -> None:
        digest = xxhash.xxh3_64_intdigest(repr((language, sorted(anchor.items()))).encode())
        first_digest, first = self._anchors.setdefault(row_id, (digest, place))
        if first_digest != digest:
            raise DataError(
                f"{where}: another anchor than at {self._place(first)}, which has the same id. An id names one meaning "
                "and so one anchor; give rows of other meanings other ids."
            )


def _string(row: dict[str, Any], name: str, where: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} must be text, not {value!r}")
    return value
