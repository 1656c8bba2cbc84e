"""Evaluation: benchmarks on a model through lm-evaluation-harness, per-sample results on disk, statistics over them.

The names below are loaded when first used, so that importing one part of the room imports no other.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerlingua.evaluation.comparison import compare_runs as compare_runs
    from innerlingua.evaluation.outcome import Comparison as Comparison
    from innerlingua.evaluation.statistics import paired_bootstrap as paired_bootstrap
    from innerlingua.evaluation.statistics import paired_permutation as paired_permutation
    from innerlingua.evaluation.statistics import smallest_difference as smallest_difference
    from innerlingua.evaluation.store import read_results as read_results

_MODULES = {
    "Comparison": "outcome",
    "compare_runs": "comparison",
    "paired_bootstrap": "statistics",
    "paired_permutation": "statistics",
    "read_results": "store",
    "smallest_difference": "statistics",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
