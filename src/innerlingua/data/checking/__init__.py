"""What a set of pairs holds, and what is wrong with it: counts, lengths, duplicates, overlap with evaluation sets."""

from __future__ import annotations

from innerlingua.data.checking.check import check_pairs
from innerlingua.data.checking.report import CheckReport
from innerlingua.data.checking.summary import render

__all__ = ["CheckReport", "check_pairs", "render"]
