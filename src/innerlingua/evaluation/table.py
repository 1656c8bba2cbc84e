"""The results of runs as a table of text: each language beside the anchor language, and beside chance.

A language stands on a line of its own per run, with its score, the 95 % interval, the score of the anchor language
under the same run, and how many samples gave no answer. Whether the interval holds a guess's score is said in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from innerlingua.evaluation.store import read_run, read_summaries

__all__ = ["results_table"]

_BESIDE = "against chance"
_HEAD = ("run", "language", "n", "score", "95 % interval", "anchor", _BESIDE, "cut", "unparsed", "overlong")


def results_table(folders: Sequence[Path], *, wanted: Sequence[tuple[str, str]] | None = None) -> str:
    """A table per benchmark of the runs in `folders`; of the (benchmark, language) in `wanted` alone, when given."""
    by_benchmark: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    anchors: dict[tuple[str, str], float] = {}
    for folder in folders:
        label = str(read_run(folder)["label"])
        for entry in read_summaries(folder):
            if wanted is not None and (entry["benchmark"], entry["language"]) not in wanted:
                continue
            by_benchmark.setdefault(entry["benchmark"], []).append((label, entry))
            if entry["anchor"]:
                anchors[entry["benchmark"], label] = entry["score"]
    parts = []
    for benchmark, entries in by_benchmark.items():
        order = sorted(entries, key=lambda pair: (not pair[1]["anchor"], pair[1]["language"]))
        rows = [_row(label, entry, anchors.get((benchmark, label))) for label, entry in order]
        head = tuple("BLEU" if name == _BESIDE and order[0][1]["metric"] == "chrf++" else name for name in _HEAD)
        parts.append(f"{_title(benchmark, order[0][1])}\n{_aligned([head, *rows])}")
    return "\n\n".join(parts)


def _title(benchmark: str, entry: Mapping[str, Any]) -> str:
    metric, chance = entry["metric"], entry["chance"]
    title = f"{benchmark} ({metric}, %)" if metric != "chrf++" else f"{benchmark} (chrF++ of the corpus)"
    return title if chance is None else f"{title}, chance {100 * chance:.1f}"


def _row(label: str, entry: Mapping[str, Any], anchor: float | None) -> tuple[str, ...]:
    if entry["metric"] == "chrf++":
        corpus = entry["corpus"]
        score, interval, beside = f"{corpus['chrf++']:.2f}", "", f"{corpus['bleu']:.2f}"
        anchored = ""
    else:
        score = f"{100 * entry['score']:.1f}"
        bounds = entry["interval"]
        interval = "" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"
        anchored = "itself" if entry["anchor"] else "" if anchor is None else f"{100 * anchor:.1f}"
        beside = entry["against_chance"] or ""
    counts = entry["statuses"]
    return (
        label,
        entry["language"],
        str(entry["n"]),
        score,
        interval,
        anchored,
        beside,
        str(counts["cut"]),
        str(counts["unparsed"]),
        str(counts["overlong"]),
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    used = [column for column in range(len(rows[0])) if any(row[column] not in ("", "0") for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in used}
    text = {0, 1, 6}
    return "\n".join(
        "  ".join(
            row[column].ljust(widths[column]) if column in text else row[column].rjust(widths[column])
            for column in used
        ).rstrip()
        for row in rows
    )
