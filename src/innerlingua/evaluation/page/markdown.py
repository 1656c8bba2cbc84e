"""A comparison as Markdown tables for a paper, with all that a reader needs to judge them in a line below."""

from __future__ import annotations

from innerlingua.evaluation.outcome import Comparison, Difference
from innerlingua.evaluation.wording import digits_for, p_text, points, without_answer

__all__ = ["CORRECTED", "markdown", "method_in_words"]

CORRECTED = {"holm": "Holm's method", "bh": "Benjamini and Hochberg's method"}


def markdown(comparison: Comparison) -> str:
    """A table per benchmark and measure: languages by methods, and per pair difference, interval, p and the limit.

    Bold differences are significant after correction.
    """
    tables = [_table(comparison, *table) for table in comparison.tables]
    notes = "\n".join(f"- {_escaped(note)}" for note in comparison.notes)
    return "\n\n".join([*tables, _escaped(method_in_words(comparison)), *([notes] if notes else [])]) + "\n"


def method_in_words(comparison: Comparison) -> str:
    """How the numbers came about, in a few sentences."""
    settings = comparison.settings
    tests = {row.test for row in comparison.differences}
    level, power = f"{settings['level']:.0%}".replace("%", " %"), f"{settings['power']:.0%}".replace("%", " %")
    draws, ways = settings["replicates"], []
    if "exact" in tests:
        ways.append("McNemar's exact test for independent right or wrong answers")
    if "permutation" in tests:
        ways.append(f"paired permutation over clusters of samples ({settings['permutations']:,} swaps)")
    if "t" in tests:
        ways.append("Student's t with variance from samples and seeds where a method has several runs")
    families = "the target languages of a benchmark and pair, over all means, and over all anchor rows"
    corrected = "P-values not corrected."
    if settings["correction"] != "none":
        corrected = f"P-values corrected by {CORRECTED[settings['correction']]} over {families}."
    interval = f"{level} intervals by paired bootstrap ({draws:,} replicates). " if tests != {"t"} else ""
    return (
        f"Differences in points of 100. {interval}Two-sided p by {'; '.join(ways)}. {corrected} Smallest: the least "
        f"difference that these samples would show in {power} of cases at the same corrected level. Seed "
        f"{settings['seed']}."
    )


def _table(comparison: Comparison, benchmark: str, measure: str) -> str:
    scores = [row for row in comparison.scores if (row.benchmark, row.measure) == (benchmark, measure)]
    labels = list(dict.fromkeys(row.method for row in scores))
    errors = [
        row.standard_error for row in comparison.differences if (row.benchmark, row.measure) == (benchmark, measure)
    ]
    digits = digits_for(errors)
    pairs = [pair for pair in comparison.pairs if comparison.rows(benchmark, measure, *pair)]
    head = ["language", "n", *labels]
    for baseline, method in pairs:
        name = f"{method} − {baseline}" if len(pairs) > 1 else "difference"
        head += [name, f"{comparison.settings['level']:.0%} interval".replace("%", " %"), "p", "smallest"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    columns = [comparison.rows(benchmark, measure, *pair) for pair in pairs]
    chances = {row.chance for row in scores if row.kind != "overall"}
    chance = f", chance {points(chances.copy().pop() or 0, 1)}" if len(chances) == 1 and None not in chances else ""
    for rows in zip(*columns, strict=True):
        first = rows[0]
        cells = [_name(comparison, first), f"{first.samples:,}"]
        cells += [points(comparison.score(first, label).score, digits) for label in labels]
        for row in rows:
            cells += _cells(row, digits)
        lines.append(_line(cells))
    lost = [
        f"{label} {', '.join(f'{count} {reason}' for reason, count in totals.items())}"
        for label in labels
        if (totals := _unanswered(comparison, benchmark, measure, label))
    ]
    lead = without_answer(measure)
    below = f"\n\n{lead[0].upper()}{lead[1:]}: {_escaped('; '.join(lost))}." if lost else ""
    return f"**{_escaped(benchmark)}**, {_escaped(measure)}{chance}\n\n" + "\n".join(lines) + below


def _unanswered(comparison: Comparison, benchmark: str, measure: str, label: str) -> dict[str, int]:
    totals: dict[str, int] = {}
    for row in comparison.scores:
        if (row.benchmark, row.measure, row.method) == (benchmark, measure, label) and row.kind != "overall":
            for reason, count in row.unanswered.items():
                totals[reason] = totals.get(reason, 0) + count
    return totals


def _name(comparison: Comparison, row: Difference) -> str:
    if row.language is None:
        return "mean of targets"
    name = comparison.names.get(row.language, row.language)
    return f"{name} (anchor)" if row.kind == "anchor" else name


def _cells(row: Difference, digits: int) -> list[str]:
    size = points(row.difference, digits, signed=True)
    interval = (
        "–"
        if row.low is None or row.high is None
        else f"{points(row.low, digits, signed=True)} to {points(row.high, digits, signed=True)}"
    )
    return [
        f"**{size}**" if row.verdict in ("better", "worse") else size,
        interval,
        p_text(row.corrected),
        "–" if row.smallest is None else points(row.smallest, digits),
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(_escaped(cell, bold=True) for cell in cells)} |"


def _escaped(text: str, *, bold: bool = False) -> str:
    """Text that cannot end a cell or become markup; `bold` leaves the stars of whole bold cells."""
    marks = "\\`_<>[]|#" if bold and text.startswith("**") else "\\`*_<>[]|#"
    return "".join(f"\\{letter}" if letter in marks else letter for letter in " ".join(text.split()))
