"""The report of a check for a terminal, made for 80 columns."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from innerlingua.data.checking.report import CheckReport, OverlapReport
from innerlingua.data.licences import is_non_commercial
from innerlingua.data.wording import counted

__all__ = ["render"]

_FAULTS: Final = (
    ("without_anchor", "no\nanchor"),
    ("empty", "empty"),
    ("same_as_anchor", "same as\nanchor"),
    ("untranslated", "untrans-\nlated"),
    ("wrong_script", "wrong\nscript"),
    ("duplicates", "dupli-\ncates"),
    ("near_duplicates", "near\ndupl."),
)


def render(report: CheckReport) -> RenderableType:
    """Tables of languages and of what is wrong, overlap, and the first places of each fault."""
    parts: list[RenderableType] = [
        Text(
            f"{counted(report.rows, 'row')} in {counted(len(report.languages), 'language')} from "
            f"{', '.join(report.sources)}"
        ),
        Text(f"\nlengths in {report.length_unit}: median / 95 % / largest"),
        _lengths(report),
    ]
    found = [(name, title) for name, title in _FAULTS if any(getattr(r, name) for r in report.languages.values())]
    if found:
        parts += [Text("rows by what is wrong with them"), _faults(report, found)]
    parts += [_overlap(name, overlap) for name, overlap in report.overlap.items()]
    for name, count in (("id that collides", report.id_collisions), ("id with two anchors", report.anchor_conflicts)):
        if count:
            plural = name.replace("id that collides", "ids that collide").replace("id with", "ids with")
            parts.append(Text(counted(count, name, plural), style="bold red"))
    told = [f"{name}{' (non-commercial)' * is_non_commercial(name)} {n:,}" for name, n in report.licences.items()]
    parts.append(Text(f"licences: {', '.join(told)}"))
    if report.ignored_columns:
        parts.append(Text(f"columns that training leaves out: {', '.join(report.ignored_columns)}"))
    listed = {kind.replace("_", " "): places for kind, places in report.examples.items()}
    listed |= {f"overlap with {Path(n).name}": o.examples for n, o in report.overlap.items() if o.examples}
    for kind, places in listed.items():
        parts.append(Text(f"{kind}, first places:"))
        parts += [
            Padding(Text(_shortened(place, [*report.sources, *report.overlap])), (0, 0, 0, 2)) for place in places
        ]
    alone = sum(language.without_anchor for language in report.languages.values())
    if alone:
        parts.append(Text(f"{counted(alone, 'row')} without an anchor: `data pair` joins them; `train` refuses them"))
    if not report.problems:
        parts.append(Text("nothing else wrong was found" if alone else "nothing wrong was found", style="green"))
    return Group(*parts)


def _shortened(place: str, files: list[str]) -> str:
    """A place with the names of files instead of their paths, where those tell them apart."""
    if len({Path(file).name for file in files}) == len(set(files)):
        for file in sorted(files, key=len, reverse=True):
            place = place.replace(f"{file}, ", f"{Path(file).name}, ")
    return place


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("language")
    return table


def _lengths(report: CheckReport) -> Table:
    table = _table()
    for name in ("rows", "target", "anchor"):
        table.add_column(name, justify="right")
    for code, language in report.languages.items():
        sides = (" / ".join(f"{n:,}" for n in side) or "·" for side in (language.lengths, language.anchor_lengths))
        table.add_row(Text(code), f"{language.rows:,}", *sides)
    return table


def _faults(report: CheckReport, found: list[tuple[str, str]]) -> Table:
    table = _table()
    for _, title in found:
        table.add_column(title, justify="right")
    for code, language in report.languages.items():
        counts = [getattr(language, name) for name, _ in found]
        if any(counts):
            table.add_row(Text(code), *(f"{count:,}" if count else "·" for count in counts))
    return table


def _overlap(name: str, found: OverlapReport) -> Text:
    told = f"overlap with {Path(name).name} ({counted(found.test_rows, 'row')}): {found.overlapping:,}"
    if found.overlapping:
        by = ", ".join(f"{how} {n:,}" for how, n in sorted(found.by.items()))
        languages = ", ".join(f"{code} {n:,}" for code, n in sorted(found.languages.items()))
        told += f", by {by}; {languages}"
    told += f"; not checkable: {found.not_checkable:,}"
    short = found.test_rows_without_english + found.test_rows_too_short
    if short:
        told += f"; {counted(short, 'test row')} without English text that is long enough"
    return Text(told, style="bold red" if found.overlapping else "")
