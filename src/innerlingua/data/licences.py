"""Under which licence a row stands, and that non-commercial rows come in only when they are asked for.

A row says its licence itself (`license`), or names its `source`; the table below knows the sources of the project's
pack of real data. Rows that say neither are counted as such: nothing is guessed. Licences are written as SPDX names
where there is one. What this module decides is a convenience and no legal advice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from innerlingua.data.lines import Row
from innerlingua.data.sources import Source
from innerlingua.errors import DataError, nearest

__all__ = ["NOT_STATED", "POLICIES", "SOURCE_LICENCES", "Licences", "both", "is_non_commercial", "licence_of"]

POLICIES: Final = ("error", "drop", "keep")
"""What becomes of non-commercial rows."""

NOT_STATED: Final = "not stated"

SOURCE_LICENCES: Final[dict[str, str]] = {
    "AdvBench harmful_behaviors": "MIT",
    "AfriQA": "CC-BY-4.0",
    "Belebele": "CC-BY-SA-4.0",
    "FLORES v1 (Wikipedia)": "CC-BY-SA-4.0",
    "GSM8K": "MIT",
    "LAFAND/MAFAND-MT": "CC-BY-NC-4.0",
    "MGSM": "CC-BY-4.0",
    "MMLU": "MIT",
    "MMLU clinical, African translations": "MIT",
    "Marco-Bench-MIF": "Apache-2.0",
    "MultiJail": "MIT",
    "NTREX-128": "CC-BY-SA-4.0",
    "SIB-200 (FLORES-200)": "CC-BY-SA-4.0",
    "Tatoeba (LASER test sets)": "CC-BY-2.0-FR",
    "TruthfulQA (MC1)": "Apache-2.0",
    "Winogrande, African translations": "Apache-2.0",
    "XC-Translate": "CC-BY-SA-4.0",
    "XCOPA + COPA": "CC-BY-4.0",
    "XQuAD": "CC-BY-SA-4.0",
    "XSTest": "CC-BY-4.0",
    "eBible corpus / bible-corpus": "public domain or CC0-1.0",
}
"""`source` of the pack's rows that name no licence -> the licence that the pack's own page states."""

_NON_COMMERCIAL: Final = re.compile(r"(?<![A-Za-z])NC(?![A-Za-z])|non[- ]?commercial", re.IGNORECASE)


def licence_of(row: Mapping[str, Any]) -> str | None:
    """The licence that a row states, or that of the source that it names; None when neither is known."""
    given = row.get("license") if row.get("license") is not None else row.get("licence")
    if isinstance(given, str):
        return given.strip() or None
    if isinstance(given, list) and given and all(isinstance(part, str) for part in given):
        return " AND ".join(given)
    if given is not None:
        return json.dumps(given, ensure_ascii=False, default=str)
    source = row.get("source")
    return SOURCE_LICENCES.get(source) if isinstance(source, str) else None


def is_non_commercial(licence: str | None) -> bool:
    """Whether a licence says that it allows no commercial use: `NC` as a word of its name, or the words."""
    return licence is not None and _NON_COMMERCIAL.search(licence) is not None


def both(one: str | None, other: str | None) -> str | None:
    """The licence of what is made from two: one of them when they are equal or one is unknown, else `A AND B`."""
    return one if other is None or one == other else other if one is None else f"{one} AND {other}"


class Licences:
    """Lets rows in by their licence, and counts what it let in.

    `counts` maps (source, licence) to rows, `NOT_STATED` where a row says nothing; `dropped` counts the non-commercial
    rows that were left out.

    Args:
        policy: what becomes of non-commercial rows: `error`, `drop` or `keep`.

    Raises:
        DataError: no such policy.
    """

    def __init__(self, policy: str) -> None:
        if policy not in POLICIES:
            raise DataError(f"non_commercial: {policy!r} is no policy{nearest(policy, POLICIES)}")
        self._policy = policy
        self.counts: Counter[tuple[str, str]] = Counter()
        self.dropped = 0

    def admit(self, source: Source) -> Source:
        """`source` without what the policy keeps out; each row has its `license`, where that is known."""
        return replace(source, rows=partial(self._rows, source))

    def _rows(self, source: Source) -> Iterator[tuple[int, Row]]:
        for number, row in source.rows():
            licence = licence_of(row)
            if is_non_commercial(licence) and self._policy != "keep":
                if self._policy == "error":
                    raise DataError(
                        f"{source.place(number)}: a row for non-commercial use only ({licence}). Take such rows in by "
                        "--non-commercial keep, or leave them out by --non-commercial drop."
                    )
                self.dropped += 1
                continue
            origin = row.get("source")
            self.counts[origin if isinstance(origin, str) else NOT_STATED, licence or NOT_STATED] += 1
            yield number, row if licence is None else {**row, "license": licence}
