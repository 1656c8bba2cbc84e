"""The results of benchmarks as the tables of `docs/performance.md`, which holds them word for word (a test looks).

python benchmarks/tables.py [benchmarks/results/*.json ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

# Here and not in `step.py`, which takes seconds to import.
TITLES = {
    "aa": "A/A: plain / plain",
    "stored": "stored prior / plain",
    "live": "live anchors / plain",
    "live_and_bare": "live anchors / (plain + bare anchor pass)",
    "same_head_stored": "straightforward / stored prior, both with the model's head",
    "straightforward_stored": "straightforward / stored prior, as they come",
    "same_head_live": "straightforward / live anchors, both with the model's head",
    "straightforward_live": "straightforward / live anchors, as they come",
    "straightforward_alone": "straightforward / itself without alignment",
    "own / plain": "live anchors in a pass of their own / plain",
    "joint / own": "one pass for both / a pass of their own",
}
GROWN = {
    "tokens": "tokens of a row",
    "layers": "aligned layers",
    "experts": "experts",
    "batch": "rows of a step, each a pair",
    "spans": "pairs within a row (spans)",
    "prior": "pairs in the prior",
}

Lines = list[str]


def main() -> None:
    for path in [Path(name) for name in sys.argv[1:]] or sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        print(f"# {path}\n\n`{result['command']}`\n\n{surroundings(result)}\n")
        for title, lines in tables_of(result).items():
            print(f"**{title}**\n")
            print("\n".join(lines), "\n")


def surroundings(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    settings = ", ".join(f"{name}={value}" for name, value in machine["settings"].items())
    return f"{machine['processor']}, {machine['threads']} thread(s)\n{versions}\n{settings}"


def tables_of(result: dict[str, Any]) -> dict[str, Lines]:
    """The tables of one result, by title."""
    tables: dict[str, Lines] = {}
    for name, measured in result.get("configurations", {}).items():
        share = measured["anchor_share_of_operations"]
        tables[f"{name} (operations of the anchor pass / of a plain step: {share:.3f})"] = ratios(measured["ratios"])
        if "stored" in measured["ratios"]:  # a result of other rows alone repeats these
            tables[f"{name}, peak bytes"] = peaks(measured["memory"])
    if "slopes" in result:
        tables["growth"] = slopes(result["slopes"])
    if "ways" in result:
        tables["padding"] = ways(result)
    elif "ratios" in result:
        tables["times"] = ratios(result["ratios"])
    if "reading" in result:
        tables["a stored prior"] = reading(result["reading"])
    return tables


def ratios(rows: dict[str, dict[str, Any]]) -> Lines:
    lines = table("step", "ratio", "95 % interval", "5-95 % of pairs", "seconds", "held against the limit")
    for key, row in rows.items():
        title, verdict = TITLES.get(key, key), ""
        if "limit" in row:
            sign = "≥" if title.startswith("straightforward") else "≤"
            verdict = f"{row['bound']:.3f} {sign} {row['limit']:.3f}: {'met' if row['met'] else 'missed'}"
        low, high = row["spread"]
        lines.append(
            f"| {title} | {row['median']:.3f} | {row['low']:.3f} to {row['high']:.3f} | {low:.2f} to {high:.2f} "
            f"| {row['seconds_b']:.3f} / {row['seconds_a']:.3f} | {verdict} |"
        )
    return lines


def peaks(memory: dict[str, Any]) -> Lines:
    """Peak bytes of each trainer, and what the alignment adds to the same trainer without it."""
    lines = table("trainer", "saved for the way back", "peak", "added to the peak by the alignment")
    without = {
        "stored": "plain",
        "live": "plain",
        "straightforward": "straightforward_without",
    }
    words = {"straightforward_without": "straightforward, without alignment"}
    for key in ("plain", "stored", "live", "straightforward_without", "straightforward"):
        row, added = memory[key], ""
        if key in without:
            bytes_added = row["peak"] - memory[without[key]]["peak"]
            added = f"{bytes_added:,} ({bytes_added / memory[without[key]]['peak']:.2%})"
        lines.append(f"| {words.get(key, key)} | {row['saved']:,} | {row['peak']:,} | {added} |")
    return lines


def slopes(rows: dict[str, dict[str, Any]]) -> Lines:
    lines = table("size", "from", "to", "milliseconds added", "slope", "95 % interval", "last doubling")
    for name, row in rows.items():
        costs = ", ".join(f"{1000 * cost:.2f}" for cost in row["seconds"])
        slope, low, high, last = (round(row[key], 2) + 0.0 for key in ("slope", "low", "high", "last_doubling"))
        lines.append(
            f"| {GROWN[name]} | {row['sizes'][0]:,} | {row['sizes'][-1]:,} | {costs} | {slope:.2f} "
            f"| {low:.2f} to {high:.2f} | {last:.2f} |"
        )
    return lines


def ways(result: dict[str, Any]) -> Lines:
    lines = table("batches", "time", "95 % interval", "tokens per second", "padding", "largest difference of loss")
    for name, row in result["ratios"].items():
        way = result["ways"][name]
        gap = f"{way['difference_of_loss']:.1e}" if "difference_of_loss" in way else ""
        lines.append(
            f"| {name} | {row['median']:.3f} | {row['low']:.3f} to {row['high']:.3f} "
            f"| {result['tokens_of_a_block'] / row['seconds_b']:,.0f} | {way['padding']:.1%} | {gap} |"
        )
    return lines


def reading(stored: dict[str, Any]) -> Lines:
    lines = table("page cache", "to open", "memory to open", "8 rows", "read from disk")
    for state in ("cold", "warm"):
        found = stored[state]
        lines.append(
            f"| {state} | {found['open_seconds']:.2f} s | {found['open_memory_bytes'] / 1e6:.0f} MB "
            f"| {found['seconds_per_batch'] * 1e3:.2f} ms | {found['read_bytes'] / 1e6:.0f} MB |"
        )
    return lines


def table(*columns: str) -> Lines:
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


if __name__ == "__main__":
    main()
