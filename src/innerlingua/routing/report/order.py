"""An order of languages that puts alike ones side by side.

Average-linkage agglomeration (Sokal and Michener, 1958): the two clusters with the smallest mean distance merge, until
one is left. A tree of n leaves can be laid out in 2^(n-1) ways; each merge takes the one of four orientations whose
two touching leaves are nearest, the greedy form of optimal leaf ordering (Bar-Joseph et al., 2001), which needs only
the clusters' ends. O(n^3) time for n languages, n^2 memory: milliseconds for 31, about a second for 200.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["similarity_order"]


def similarity_order(distance: NDArray[np.float64]) -> list[int]:
    """Row indices of a symmetric (n, n) `distance` in an order where neighbours are near. Ties keep the given order.

    NaN (two languages without a shared sentence) counts as the largest distance that is known.
    """
    known = distance[np.isfinite(distance)]
    filled = np.where(np.isfinite(distance), distance, known.max() if known.size else 0.0)
    clusters = [[index] for index in range(len(filled))]
    between = filled.copy()
    np.fill_diagonal(between, np.inf)
    while len(clusters) > 1:
        a, b = sorted(np.unravel_index(int(np.argmin(between)), between.shape))
        sizes = len(clusters[a]), len(clusters[b])
        merged = (between[a] * sizes[0] + between[b] * sizes[1]) / sum(sizes)
        between[a], between[:, a] = merged, merged
        between[a, a] = np.inf
        clusters[a] = _join(clusters[a], clusters.pop(b), filled)
        between = np.delete(np.delete(between, b, axis=0), b, axis=1)
    return clusters[0] if clusters else []


def _join(left: list[int], right: list[int], distance: NDArray[np.float64]) -> list[int]:
    """The orientation of `left` followed by `right` whose touching leaves are nearest."""
    ways = [(x, y) for x in (left, left[::-1]) for y in (right, right[::-1])]
    best = min(ways, key=lambda way: float(distance[way[0][-1], way[1][0]]))
    return best[0] + best[1]
