"""`innerlingua compare A B [C...]`: results of benchmarks against each other, and what the samples could have shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from innerlingua.cli.many import many_values
from innerlingua.cli.output import plain, say
from innerlingua.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from innerlingua.evaluation.outcome import Comparison, Difference

__all__ = ["Compare", "compare"]

Compare = many_values("--tasks", "--languages", "--fixed")

_WIDE = 120
_STYLES = {"better": "bold green", "worse": "bold red", "uncorrected": "yellow", "noise": "dim", "same": "dim"}


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Results folders; the first is the baseline. NAME=DIR,DIR: seeds of one method."
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="LABEL", help="Compare with this one, not with the first.")
    ] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Compare each with each.")] = False,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="NAME...", help="Only these benchmarks.")
    ] = None,
    languages: Annotated[
        list[str] | None, typer.Option("--languages", metavar="CODE...", help="Only these languages.")
    ] = None,
    fixed: Annotated[
        list[str] | None,
        typer.Option("--fixed", metavar="LABEL...", help="Models that no training seed changes, such as the base."),
    ] = None,
    correction: Annotated[
        str, typer.Option("--correction", help="For many languages: holm, bh (Benjamini-Hochberg) or none.")
    ] = "holm",
    level: Annotated[float, typer.Option("--level", help="Of intervals; p-values count up to 1 less this.")] = 0.95,
    power: Annotated[float, typer.Option("--power", help="Of the smallest difference that could be shown.")] = 0.8,
    replicates: Annotated[int, typer.Option("--replicates", help="Of the bootstrap.")] = 10_000,
    permutations: Annotated[int, typer.Option("--permutations", help="Of the permutation test.")] = 9_999,
    seed: Annotated[int, typer.Option("--seed", help="Of the random numbers.")] = 0,
    allow_settings: Annotated[
        bool, typer.Option("--allow-settings", help="Compare results of different settings, with a mark.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables for a paper.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page that opens offline.")
    ] = None,
) -> None:
    """Say whether models differ on the same samples, language by language, or whether it is noise.

    Per language, for the mean over the targets, and for the anchor language: the difference with its interval, a
    p-value corrected for the number of languages, and the smallest difference that so many samples can show.

    \b
    innerlingua compare results/sft results/sara
    innerlingua compare base=results/base sft=results/sft-1,results/sft-2 sara='results/sara-*' --fixed base
    innerlingua compare results/sft results/sara --languages swh_Latn hin_Deva --html results.html
    """
    from innerlingua.evaluation.comparison import compare_runs
    from innerlingua.evaluation.page import check_page, markdown, write_page

    if as_json and as_markdown:
        raise DataError("--json and --markdown: choose one")
    if html is not None:
        check_page(html)
    result = compare_runs(
        runs,
        baseline=baseline,
        all_pairs=all_pairs,
        benchmarks=_words(tasks),
        languages=_words(languages),
        fixed=_words(fixed) or (),
        correction=correction,
        level=level,
        power=power,
        replicates=replicates,
        permutations=permutations,
        seed=seed,
        allow_settings=allow_settings,
    )
    size = None if html is None else write_page(result, html)
    if as_json:
        typer.echo(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False))
        return
    if as_markdown:
        typer.echo(markdown(result), nl=False)
        return
    _print(result)
    if html is not None and size is not None:
        say(f"page: {html} ({size / 1e6:.2f} MB)")


def _words(given: list[str] | None) -> list[str] | None:
    """Several values, also in one word: `swh_Latn,hin_Deva`."""
    return None if given is None else [part.strip() for word in given for part in word.split(",") if part.strip()]


def _print(result: Comparison) -> None:
    from rich.console import Console

    from innerlingua.evaluation.page import method_in_words

    console = Console(highlight=False)
    for benchmark, measure in result.tables:
        for baseline, method in result.pairs:
            rows = result.rows(benchmark, measure, baseline, method)
            console.print(plain(f"\n{benchmark}, {measure}: {method} against {baseline}"), style="bold", markup=False)
            alone = sum(row.kind == "language" for row in rows) == 1
            for row in [row for row in rows if row.kind != "language" or alone]:
                console.print(f"{_name(row)}: {row.words}.", markup=False)
            console.print(_table(result, rows, console))
            for line in _unanswered(result, rows):
                console.print(plain(line), markup=False)
    if any(row.verdict == "noise" for row in result.differences):
        console.print("noise: no difference that these samples could show; the smallest they could show is given.")
    if any(row.verdict == "same" for row in result.differences):
        console.print("same: the same score on every sample.")
    if any(row.verdict == "uncorrected" for row in result.differences):
        console.print("alone: significant alone, not after correction for the number of tests.")
    console.print(plain(method_in_words(result)), markup=False)
    for note in result.notes:
        style = "bold yellow" if note.startswith("SETTINGS") else None
        console.print(plain(f"note: {note}"), markup=False, style=style)


def _table(result: Comparison, rows: list[Difference], console: Console) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from innerlingua.evaluation.wording import digits_for, p_text, points

    wide = console.width >= _WIDE
    digits = digits_for([row.standard_error for row in rows])
    counts = {row.samples for row in rows if row.kind != "overall"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1 if wide else 0), caption_justify="left")
    gap: dict[str, Any] = {} if wide else {"min_width": 0}
    table.add_column("language", no_wrap=True)
    if len(counts) > 1 or wide:
        table.add_column("n", justify="right", no_wrap=True, **gap)
    for label in (rows[0].baseline, rows[0].method):
        table.add_column(Text(_short(plain(label), 20 if wide else 8)), justify="right", no_wrap=True)
    headings = ["change", f"{result.settings['level']:.0%} interval", *(["p alone"] if wide else []), "p", "smallest"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        name = _name(row)
        if wide and row.language is not None:
            name += f" {result.names[row.language]}"
        cells = [Text(name)]
        if len(counts) > 1 or wide:
            cells.append(Text(f"{row.samples:,}"))
        for label in (row.baseline, row.method):
            score = result.score(row, label)
            cells.append(Text(points(score.score, digits) + ("°" if score.at_chance else "")))
        interval = (
            "–"
            if row.low is None or row.high is None
            else f"{points(row.low, digits, signed=True)} to {points(row.high, digits, signed=True)}"
        )
        cells += [Text(points(row.difference, digits, signed=True)), Text(interval)]
        cells += [Text(p_text(row.p))] if wide else []
        cells += [
            Text(p_text(row.corrected)),
            Text("none" if row.smallest is None else points(row.smallest, digits)),
            Text("alone" if row.verdict == "uncorrected" else row.verdict, style=_STYLES[row.verdict]),
        ]
        table.add_row(*cells, end_section=row.kind == "anchor")
    return table


def _name(row: Difference) -> str:
    if row.language is None:
        return "mean"
    return f"{row.language} (anchor)" if row.kind == "anchor" else row.language


def _short(label: str, width: int) -> str:
    return label if len(label) <= width else label[: width - 1] + "…"


def _unanswered(result: Comparison, rows: list[Difference]) -> list[str]:
    """What was cut, unparsed or overlong, by language and run; and which scores cannot be told from guessing."""
    from innerlingua.evaluation.wording import without_answer

    lines = []
    for row in rows:
        if row.kind == "overall":
            continue
        parts = []
        for label in (row.baseline, row.method):
            lost = result.score(row, label).unanswered
            if lost:
                parts.append(f"{label} {', '.join(f'{count} {reason}' for reason, count in lost.items())}")
        if parts:
            lines.append(f"{without_answer(row.measure)}: {row.language}: {'; '.join(parts)}")
    guesses = {
        result.score(row, label).chance
        for row in rows
        for label in (row.baseline, row.method)
        if result.score(row, label).at_chance
    }
    if guesses:
        named = ", ".join(f"{chance:.1f}" for chance in sorted(c for c in guesses if c is not None))
        lines.append(f"° the interval of this score holds that of a guess ({named})")
    return lines
