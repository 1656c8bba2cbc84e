"""The results of `step.py`, `scaling.py` and `joint.py` as the tables of `docs/performance.md`.

python benchmarks/tables.py runs/benchmarks/step.json runs/benchmarks/scaling.json ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Here and not in `step.py`, which takes seconds to import.
TITLES = {
    "aa": "A/A: plain / plain",
    "stored": "stored prior / plain",
    "live": "live anchors / plain",
    "live_and_bare": "live anchors / (plain + bare anchor pass)",
    "straightforward_live": "straightforward / live anchors",
    "straightforward_stored": "straightforward / stored prior",
    "straightforward_alone": "straightforward / itself without alignment",
}


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        result = json.loads(path.read_text(encoding="utf-8"))
        settings = ", ".join(f"{name}={value}" for name, value in result["machine"]["settings"].items())
        versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
        print(f"`{result['command']}`\n\n{result['machine']['processor']}, {result['machine']['threads']} thread(s)")
        print(f"{versions}\n{settings}\n")
        for name, measured in result.get("configurations", {}).items():
            print("\n".join(configuration(name, measured)), "\n")
        if "slopes" in result:
            print("\n".join(slopes(result["slopes"])), "\n")
        if "processes" in result:
            rows = {"A/A: plain / plain": "aa", "own pass / plain": "own / plain", "one pass / own pass": "joint / own"}
            print("\n".join(ratios({title: result["ratios"][key] for title, key in rows.items()})), "\n")


def configuration(name: str, measured: dict[str, Any]) -> list[str]:
    share = measured["anchor_share_of_operations"]
    lines = [f"**{name}** (operations of the anchor pass / of a plain step: {share:.3f})", ""]
    lines += ratios({TITLES[key]: row for key, row in measured.get("ratios", {}).items()})
    lines += ["", "| bytes | saved for backward | peak |", "|---|---|---|"]
    rows = {key: row for key, row in measured["memory"].items() if "saved" in row}
    lines += [f"| {key} | {row['saved']:,} | {row['peak']:,} |" for key, row in rows.items() if key != "other"]
    lines.append(f"| stored / plain | | {measured['memory']['stored / plain']['peak']:.4f} |")
    return lines


def ratios(rows: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| step | ratio | 95 % interval | 5-95 % of pairs | seconds | held against the limit |"]
    lines.append("|---|---|---|---|---|---|")
    for title, row in rows.items():
        verdict = ""
        if "limit" in row:
            sign = "≥" if title.startswith("straightforward") else "≤"
            verdict = f"{row['bound']:.3f} {sign} {row['limit']:.3f}: {'met' if row['met'] else 'missed'}"
        low, high = row["spread"]
        lines.append(
            f"| {title} | {row['median']:.3f} | {row['low']:.3f} to {row['high']:.3f} | {low:.2f} to {high:.2f} "
            f"| {row['seconds_b']:.3f} / {row['seconds_a']:.3f} | {verdict} |"
        )
    return lines


def slopes(rows: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| size | from | to | milliseconds added | slope | 95 % interval | last doubling |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        costs = ", ".join(f"{1000 * cost:.2f}" for cost in row["seconds"])
        lines.append(
            f"| {name} | {row['sizes'][0]} | {row['sizes'][-1]} | {costs} | {row['slope']:.2f} "
            f"| {row['low']:.2f} to {row['high']:.2f} | {row['last_doubling']:.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()
