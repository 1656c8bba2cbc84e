"""A comparison as one HTML page: a forest of differences, scores of every method, tables and downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from innerlingua.data.files import write_text
from innerlingua.errors import DataError
from innerlingua.evaluation.outcome import Comparison
from innerlingua.evaluation.page.markdown import method_in_words
from innerlingua.page import CATEGORIES, assemble

__all__ = ["check_page", "page_of", "write_page"]

_SCRIPTS = ("rows.js", "forest.js", "scores.js", "table.js", "main.js")


def check_page(path: Path) -> None:
    """Refuse, before any work, a page that cannot be written.

    Raises:
        DataError: the path is a folder or does not end with .html, or its folder is a file.
    """
    if path.suffix.lower() not in (".html", ".htm") and not path.is_dir():
        raise DataError(
            f"{path}: a page ends with .html; give another name, so that no file of results is written over"
        )
    if path.is_dir():
        raise DataError(f"{path}: a folder; give the name of a file, such as {path / 'results.html'}")
    if path.parent.exists() and not path.parent.is_dir():
        raise DataError(f"{path}: {path.parent} is no folder")


def page_of(comparison: Comparison) -> str:
    """The whole page."""
    data: dict[str, Any] = {
        **comparison.to_json(),
        "how": method_in_words(comparison),
        "palette": {"categories": CATEGORIES},
    }
    return assemble("innerlingua.evaluation", markup="compare.html", style="compare.css", scripts=_SCRIPTS, data=data)


def write_page(comparison: Comparison, path: Path) -> int:
    """Write the page whole or not at all. Its size in bytes."""
    page = page_of(comparison)
    write_text(path, page)
    return len(page.encode())
