"""`innerlingua routing report DIR...`: stored profiles as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from innerlingua.cli.output import say

__all__ = ["report"]


def report(
    profiles: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that `routing profile` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML page.")] = Path("report.html"),
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Accuracy per language: a folder of `evaluate`, or a result.json."),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Which of that folder's benchmarks, where it has several.")
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also write figures for a paper into this folder.")] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Also write every number as CSV and JSON into this folder.")
    ] = None,
) -> None:
    """Write one page that shows how a model routes each language, before and after. It opens offline.

    \b
    innerlingua routing report runs/profiles/base -o report.html
    innerlingua routing report base sft sara -o report.html --results runs/evaluation --benchmark belebele
    innerlingua routing report base sft sara -o report.html --svg figures --export numbers
    """
    from innerlingua.routing.report import write_report

    written = write_report(profiles, output, results=results, benchmark=benchmark, export_to=export, svg_to=svg)
    for note in written.notes:
        say(f"note: {note}")
    for path in written.files:
        say(f"wrote {path}")
    say(f"report: {written.page} ({written.page_bytes / 1e6:.2f} MB)")
