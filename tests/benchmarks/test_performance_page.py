"""Every table of docs/performance.md that a benchmark wrote is what its kept result says, and each result is shown."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
READ = {path: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))}
RESULTS = {path: result for path, result in READ.items() if "models" not in result}  # those are of `gpu.py`
tables_of = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["tables_of"]


def test_there_are_results() -> None:
    assert RESULTS


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_tables_of_the_page_are_those_of_the_result(path: Path) -> None:
    tables = tables_of(RESULTS[path])
    assert tables
    missing = [title for title, lines in tables.items() if "\n".join(lines) not in PAGE]
    assert not missing, f"docs/performance.md does not hold, word for word, what benchmarks/tables.py makes of {path}"
    assert f"results/{path.name}" in PAGE
