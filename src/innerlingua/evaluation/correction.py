"""p-values of several tests, corrected for their number.

Of 40 languages in which nothing changed, two are "significant" at 0.05. Holm's procedure (1979) keeps the probability
of even one such error at 0.05, whatever the dependence between tests; it is never weaker than Bonferroni's. Benjamini
and Hochberg's (1995) bounds the expected share of errors among the findings instead, under independence or positive
dependence, and finds more. Dror et al. (2017, TACL 5) argue for such corrections where one method is tried on several
data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CORRECTIONS", "benjamini_hochberg", "holm", "uncorrected"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: the k-th smallest of m times m - k + 1, never falling."""
    p, order = _sorted(p_values)
    steps = np.arange(len(p), 0, -1)
    return _restored(np.maximum.accumulate(p * steps), order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values, in the given order: the k-th smallest of m times m / k, never rising
    towards the smaller ones."""
    p, order = _sorted(p_values)
    scaled = p * len(p) / np.arange(1, len(p) + 1)
    return _restored(np.minimum.accumulate(scaled[::-1])[::-1], order)


def uncorrected(p_values: Sequence[float]) -> list[float]:
    """The p-values as they are."""
    return [float(p) for p in p_values]


CORRECTIONS: Final[dict[str, Callable[[Sequence[float]], list[float]]]] = {
    "holm": holm,
    "bh": benjamini_hochberg,
    "none": uncorrected,
}


def _sorted(p_values: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    return p[order], order


def _restored(adjusted: NDArray[np.float64], order: NDArray[np.int64]) -> list[float]:
    result = np.empty_like(adjusted)
    result[order] = np.minimum(adjusted, 1.0)
    return [float(p) for p in result]
