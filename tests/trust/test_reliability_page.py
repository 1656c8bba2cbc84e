"""docs/reliability.md is what `trust.page` makes of results: rows are added and replaced, words around them stay."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from soak_record import record

from trust.page import END, PAGE, START, merged, rows_of, table, with_table

BLANK = f"# Title\n\nwords\n\n{START}\n{END}\n\nmore words\n"


def test_rows_come_from_what_tests_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERLINGUA_SOAK", str(tmp_path))
    record("B", "so | so", 1200, "inputs", "fine")
    record("a", "thus", 3, "kills", "equal", {"difference": 1.5e-7})
    rows = rows_of(tmp_path)
    assert rows["B"] == "| B | so \\| so | 1,200 inputs | fine |"
    assert rows["a"] == "| a | thus | 3 kills | equal; difference 1.5e-07 |"
    page = with_table(BLANK, rows)
    assert page.startswith("# Title\n\nwords\n\n")
    assert page.endswith("\n\nmore words\n")
    assert [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")][1:] == ["| a", "| B"]
    # A soak that was cut short replaces its own rows and keeps the others.
    anew = {"a": "| a | anew | 4 kills | equal |"}
    assert merged(page, anew) == rows | anew
    assert with_table(page, merged(page, {})) == page


def test_without_a_folder_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INNERLINGUA_SOAK", raising=False)
    assert record("x", "y", 1, "inputs", "z") is None


def test_the_page_is_one_that_the_script_would_write() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = merged(page, {})
    assert with_table(page, rows) == page
    assert len(rows) >= 8
    assert all(re.search(r"\| [\d,]+ (steps|kills|inputs|data sets|mutations) \|", row) for row in rows.values())
    assert table(rows) in page
