"""What a check found, as plain data: for scripts as JSON, for people through `summary.render`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["CheckReport", "LanguageReport", "OverlapReport"]


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
    licences: dict[str, int]
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
