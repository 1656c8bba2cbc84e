"""A comparison for readers: Markdown tables for a paper, and one HTML page that opens offline."""

from __future__ import annotations

from innerlingua.evaluation.page.markdown import markdown, method_in_words
from innerlingua.evaluation.page.write import check_page, write_page

__all__ = ["check_page", "markdown", "method_in_words", "write_page"]
