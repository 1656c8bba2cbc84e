"""The routing report: stored profiles of one or several states of a model as one HTML page that opens offline.

`write_report` is the door. It reads what `innerlingua routing profile` wrote, refuses to mix families, and writes the
page and, when asked, the numbers (CSV and JSON) and figures for a paper (SVG). It needs no plotting library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from innerlingua.errors import DataError
from innerlingua.page import assemble
from innerlingua.routing.report.export import check_place, export, write_text
from innerlingua.routing.report.figures import write_figures
from innerlingua.routing.report.pack import payload
from innerlingua.routing.report.read import Profile, read_profiles
from innerlingua.routing.report.results import Results, read_results

__all__ = ["Profile", "Results", "Written", "read_profiles", "read_results", "write_report"]

_SCRIPTS = ("core.js", "curves.js", "heatmaps.js", "scatter.js", "pairs.js", "table.js", "main.js")


@dataclass(frozen=True, slots=True)
class Written:
    """What a report consists of: the page, its size, and the files of numbers and figures.

    Attributes:
        page: the HTML file.
        page_bytes: its size.
        files: exported tables and figures.
        notes: what the user should know, such as results without a profile.
    """

    page: Path
    page_bytes: int
    files: list[Path]
    notes: list[str]


def write_report(
    directories: Sequence[Path],
    output: Path,
    *,
    results: Path | None = None,
    benchmark: str | None = None,
    export_to: Path | None = None,
    svg_to: Path | None = None,
) -> Written:
    """Write the report of `directories`, which hold profiles of states of one model (base, plain tuning, SARA ...).

    Args:
        directories: folders that `innerlingua routing profile` wrote; the others are compared with the first.
        output: the HTML file.
        results: accuracy per language of runs named like the profiles: a `result.json`, or a folder of `innerlingua
            evaluate`.
        benchmark: which of that folder's benchmarks; needed where it has several.
        export_to: a folder for every number as CSV and JSON.
        svg_to: a folder for figures.

    Raises:
        DataError: a profile or the results cannot be read, the profiles are not of one family, or a place cannot be
            written.
    """
    # Before the reading: nothing is written when a part of it could not be.
    check_place(output, folder=False, option="--output")
    for place, option in ((export_to, "--export"), (svg_to, "--svg")):
        if place is not None:
            check_place(place, folder=True, option=option)
    profiles = read_profiles(directories)
    if benchmark is not None and results is None:
        raise DataError("--benchmark chooses in a folder of --results, which is missing")
    accuracy = read_results(results, profiles, benchmark=benchmark) if results is not None else None
    page = assemble(
        "innerlingua.routing.report",
        markup="page.html",
        style="page.css",
        scripts=_SCRIPTS,
        data=payload(profiles, accuracy),
    )
    write_text(output, page)
    files = export(export_to, profiles, accuracy) if export_to is not None else []
    files += write_figures(svg_to, profiles, accuracy) if svg_to is not None else []
    notes = []
    if accuracy is not None and accuracy.unmatched:
        notes.append(f"results without a profile of that label, not shown: {', '.join(accuracy.unmatched)}")
    if accuracy is not None and accuracy.other_languages:
        notes.append(f"accuracy in languages of no profile, not shown: {', '.join(accuracy.other_languages)}")
    return Written(page=output, page_bytes=len(page.encode()), files=files, notes=notes)
