"""docs/reliability.md: what a soak has tried and found, one row for each property. Written by `make soak`.

    python -m trust.page RESULTS [--write]

Only the table between the two marks is replaced; the words around it are written by hand. A property that the folder of
results lacks keeps its row, which a soak that was cut short must not remove.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["END", "PAGE", "START", "merged", "rows_of", "table", "with_table"]

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
START, END = "<!-- soak: begin -->", "<!-- soak: end -->"
_HEAD = ("| property | how it was tested | tried | result |", "|---|---|---:|---|")


def rows_of(results: Path) -> dict[str, str]:
    """Property -> its row of the table, from the files that `soak_record.record` wrote."""
    found = {}
    for path in sorted(results.glob("*.json")):
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        largest = "".join(f"; {name} {value:.3g}" for name, value in (row["largest"] or {}).items())
        cells = (row["property"], row["how"], f"{row['tried']:,} {row['unit']}", row["result"] + largest)
        found[row["property"]] = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    return found


def table(rows: dict[str, str]) -> str:
    """The table, in the order of the properties' names."""
    return "\n".join([*_HEAD, *(rows[name] for name in sorted(rows, key=str.casefold))])


def merged(page: str, fresh: dict[str, str]) -> dict[str, str]:
    """The rows of the page, with those of `fresh` in their places."""
    between = page.partition(START)[2].partition(END)[0]
    lines = [line for line in between.splitlines() if line.startswith("| ") and line not in _HEAD]
    return {re.split(r"(?<!\\)\|", line)[1].strip().replace("\\|", "|"): line for line in lines} | fresh


def with_table(page: str, rows: dict[str, str]) -> str:
    """`page` with the table of `rows` between the marks."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"{PAGE} has no marks {START} and {END} around its table")
    return f"{before}{START}\n{table(rows)}\n{END}{after}"


if __name__ == "__main__":
    rows = rows_of(Path(sys.argv[1]))
    if not rows:
        raise SystemExit(f"{sys.argv[1]} holds no results: run `make soak`")
    print(table(rows))
    if "--write" in sys.argv:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_table(page, merged(page, rows)), encoding="utf-8")
