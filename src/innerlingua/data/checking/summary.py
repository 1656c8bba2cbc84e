"""The report of a check as tables for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from innerlingua.data.checking.check import CheckReport

__all__ = ["render"]

_COLUMNS = (
    ("without_anchor", "no anchor"),
    ("empty", "empty"),
    ("same_as_anchor", "same as anchor"),
    ("untranslated", "untranslated"),
    ("wrong_script", "wrong script"),
    ("duplicates", "duplicates"),
    ("near_duplicates", "near dup."),
)


def render(report: CheckReport) -> RenderableType:
    """Tables of languages and overlap, and the first places of each fault."""
    parts: list[RenderableType] = [
        Text(f"{report.rows:,} rows in {len(report.languages)} languages from {', '.join(report.sources)}")
    ]
    table = Table(title=f"Languages (lengths in {report.length_unit}: median / 95 % / largest)")
    table.add_column("language")
    for name in ("rows", "target", "anchor", *(title for _, title in _COLUMNS)):
        table.add_column(name, justify="right")
    for code, language in report.languages.items():
        cells = [str(getattr(language, name) or "·") for name, _ in _COLUMNS]
        table.add_row(code, f"{language.rows:,}", _lengths(language.lengths), _lengths(language.anchor_lengths), *cells)
    parts.append(table)
    if report.overlap:
        overlap = Table(title="Overlap with evaluation sets")
        for name in ("set", "its rows", "overlapping", "seen by", "languages", "not checkable"):
            overlap.add_column(name, justify="left" if name in ("set", "seen by", "languages") else "right")
        for name, found in report.overlap.items():
            by = ", ".join(f"{how} {n}" for how, n in sorted(found.by.items())) or "·"
            languages = ", ".join(f"{code} {n}" for code, n in sorted(found.languages.items())) or "·"
            overlap.add_row(
                escape(name),
                f"{found.test_rows:,}",
                f"{found.overlapping:,}",
                by,
                languages,
                f"{found.not_checkable:,}",
            )
        parts.append(overlap)
    for name, count in (("ids that collide", report.id_collisions), ("ids with two anchors", report.anchor_conflicts)):
        if count:
            parts.append(Text(f"{name}: {count:,}", style="bold red"))
    if report.ignored_columns:
        parts.append(Text(f"columns that training leaves out: {', '.join(report.ignored_columns)}"))
    listed = {**report.examples, **{f"overlap with {n}": o.examples for n, o in report.overlap.items() if o.examples}}
    for kind, places in listed.items():
        parts.append(Text(f"{kind.replace('_', ' ')}: {'; '.join(places)}"))
    if not report.problems:
        parts.append(Text("nothing wrong was found", style="green"))
    return Group(*parts)


def _lengths(values: list[int]) -> str:
    return " / ".join(f"{value:,}" for value in values) or "·"
