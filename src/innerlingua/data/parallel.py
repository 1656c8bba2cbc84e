"""Parallel text, one row per meaning: `{"id", "group", "source", "text": {language: sentence}}`, made into pairs.

This is the layout of the project's pack of real data, which is found through the environment variable
`INNERLINGUA_DATA` alone. Splits are made by `group` (a document, a chapter, a story), before anything else, so that no
sentence is tested beside its neighbours in training.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import xxhash

from innerlingua.data.languages import ENGLISH, check_language, known_languages
from innerlingua.data.licences import Licences
from innerlingua.data.pairs import Pairs, join_rows
from innerlingua.data.sources import Source, open_sources
from innerlingua.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["PACK_VARIABLE", "expand_parallel", "pack_dir", "read_parallel", "split_by_group"]

PACK_VARIABLE: Final = "INNERLINGUA_DATA"
"""The environment variable that names the folder of real data."""


def pack_dir() -> Path:
    """The folder of real data that `INNERLINGUA_DATA` names.

    Raises:
        DataError: the variable is not set, or what it names is no folder.
    """
    value = os.environ.get(PACK_VARIABLE, "")
    if not value:
        raise DataError(f"{PACK_VARIABLE} is not set: it must name the folder of real data (with parallel/ in it)")
    folder = Path(value)
    if not folder.is_dir():
        raise DataError(f"{PACK_VARIABLE} names {value!r}, which is not a folder")
    return folder


def read_parallel(
    paths: str | Path | Dataset | Sequence[str | Path | Dataset],
    *,
    anchor: str = ENGLISH,
    languages: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    missing_anchor: Literal["error", "drop", "keep"] = "error",
    same_as_anchor: Literal["error", "drop", "keep"] = "error",
    empty: Literal["error", "drop"] = "error",
    duplicate: Literal["error", "drop"] = "error",
    non_commercial: Literal["error", "drop", "keep"] = "error",
) -> Pairs:
    """Pairs of every wanted language with the anchor language, from rows that hold one meaning in many languages.

    Args:
        paths: as in `read_pairs`; each row has `id`, `text` = {language: sentence} and optionally `group`.
        anchor: the anchor language.
        languages: target languages to take; all but the anchor's unless given. A row without one of them gives no pair.
        names: `{code: English name}` for languages outside FLORES-200.
        missing_anchor: pairs of rows that lack the anchor language.
        same_as_anchor: sentences equal to their anchor (names and numbers, often).
        empty: blank sentences.
        duplicate: an id that occurs twice in one language.
        non_commercial: rows whose licence allows no commercial use. Those that are dropped are no part of `read`;
            `counts` has them under `left_out_non_commercial`.

    Returns:
        Pairs with the columns id, language, anchor_language, group, text, anchor_text; `counts` counts pairs, not rows.

    Raises:
        DataError: as `read_pairs`; also a row without `text` by language, and a language asked for that no row has.
    """
    known = known_languages(names)
    wanted = None if languages is None else list(dict.fromkeys(languages))
    for code in [anchor, *(wanted or [])]:
        check_language(code, "languages", known=known)
    if wanted is not None and anchor in wanted:
        raise DataError(f"languages: {anchor} is the anchor language and cannot be a target as well")
    licences = Licences(non_commercial)
    sources = [licences.admit(source) for source in open_sources(paths)]
    absent = set(wanted or [])
    last = sources[-1]
    pairs = join_rows(
        [Source(s.name, s.unit, partial(_expand, s, anchor, wanted, absent, last=s is last)) for s in sources],
        languages=names,
        missing_anchor=missing_anchor,
        same_as_anchor=same_as_anchor,
        empty=empty,
        duplicate=duplicate,
    )
    return replace(pairs, counts={**pairs.counts, "left_out_non_commercial": licences.dropped})


def expand_parallel(
    source: Source, *, anchor: str = ENGLISH, languages: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The pairs of one source of parallel rows, unchecked, each under the number of its row, with its origin."""
    wanted = None if languages is None else list(languages)
    return _expand(source, anchor, wanted, set(), last=False, carried=("source", "license"))


def _expand(
    source: Source,
    anchor: str,
    wanted: list[str] | None,
    absent: set[str],
    *,
    last: bool,
    carried: Sequence[str] = (),
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The pairs of one source's rows, each under the number of its row; `absent` loses each language that is met."""
    for number, row in source.rows():
        text = row.get("text")
        if not isinstance(text, dict):
            raise DataError(
                f"{source.place(number)}: text must be an object {{language: sentence}}; rows that hold one language "
                "each are read by read_pairs"
            )
        for language in wanted or text:
            if language != anchor and text.get(language) is not None:
                absent.discard(language)
                yield (
                    number,
                    {
                        "id": row.get("id"),
                        "group": row.get("group"),
                        "language": language,
                        "text": text[language],
                        "anchor_language": anchor,
                        "anchor_text": text.get(anchor),
                        **{name: row[name] for name in carried if row.get(name) is not None},
                    },
                )
    if last and absent:
        raise DataError(
            f"{source.name}: no row in {', '.join(sorted(absent))} to its end, nor in the files before it. Leave it "
            "out of languages, or add a file that has it."
        )


def split_by_group(dataset: Dataset, *, fraction: float, seed: int, column: str = "group") -> tuple[Dataset, Dataset]:
    """Split rows into (kept, held) so that no group is on both sides.

    A group is held when the hash of (seed, group), read as a number in [0, 1), is below `fraction`. So a group's side
    depends on nothing but its name and the seed: not on the order of rows, the language, or which files were read.

    Args:
        dataset: rows with a text column `column`.
        fraction: expected share of the groups that is held, in (0, 1). Rows follow their groups.
        seed: another seed, another split.
        column: the column that names the group; `id` where there is none.

    Raises:
        DataError: no such column, a row without a group, a fraction outside (0, 1), or a side without rows.
    """
    if not 0 < fraction < 1:
        raise DataError(f"fraction is {fraction}; a split needs a share between 0 and 1")
    if column not in dataset.column_names:
        raise DataError(f"no column {column!r} to split by; the rows have {', '.join(dataset.column_names)}")
    groups = dataset[column]
    held: list[int] = []
    kept: list[int] = []
    sides: dict[str, bool] = {}
    for index, group in enumerate(groups):
        if group is None:
            raise DataError(f"row {index}: no {column}; each row needs one, or the split would tear groups apart")
        if group not in sides:
            sides[group] = xxhash.xxh3_64_intdigest(f"{seed}:{group}".encode()) < fraction * 2**64
        (held if sides[group] else kept).append(index)
    if not held or not kept:
        raise DataError(
            f"all {len(sides)} groups fall on one side at fraction {fraction} and seed {seed}; choose others"
        )
    return dataset.select(kept), dataset.select(held)
