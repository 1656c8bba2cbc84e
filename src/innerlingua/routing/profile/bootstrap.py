"""Intervals over sentences in one pass: the Poisson bootstrap.

A bootstrap replicate draws n of n sentences with replacement; how often it takes each is nearly Poisson(1). So every
sentence gets, in every replicate, a weight drawn from Poisson(1), and a replicate's estimate is the weighted one. A
weight depends on nothing but (seed, id, replicate): it needs no memory of other sentences, all languages of one
meaning are drawn together, and two profiles of the same ids share their replicates, so that their difference has a
paired interval.

Source of the method: Chamandy et al., Estimating uncertainty for massive data streams (2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LEVEL", "id_hash", "interval", "poisson_weights"]

LEVEL: Final = 0.95

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# P(X <= k) for k = 0, 1, ...; the last is 1 to the precision of a double.
_CUMULATIVE: NDArray[np.float64] = np.cumsum(np.exp(-1.0) / np.cumprod([1.0, *range(1, 20)]))


def id_hash(name: str, seed: int) -> int:
    """A 64-bit number that depends on `seed` and the id `name` alone, the same on every machine."""
    return int(xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode()))


def poisson_weights(ids: Sequence[str], *, seed: int, replicates: int) -> NDArray[np.float32]:
    """Poisson(1) weights of `ids` in each replicate, (len(ids), replicates).

    A row depends on `seed` and its id alone.
    """
    start = np.array([id_hash(name, seed) for name in ids], dtype=np.uint64)[:, None]
    with np.errstate(over="ignore"):
        state = start + _GOLDEN * np.arange(1, replicates + 1, dtype=np.uint64)
        # The output function of SplitMix64 (Steele, Lea and Flood, 2014).
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    uniform = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
    weights: NDArray[np.float32] = np.searchsorted(_CUMULATIVE, uniform, side="right").astype(np.float32)
    return weights


def interval(
    replicates: Tensor, point: Tensor, *, kind: Literal["percentile", "basic"] = "percentile"
) -> tuple[Tensor, Tensor]:
    """The 95 % interval from estimates in replicates (R, ...) around the estimate `point` (...): (low, high).

    `percentile` takes the quantiles of the replicates: for means and ratios of sums, and for shares of experts, where
    the mirrored interval covers the truth in three of four samples only and this one in nearly all. `basic` mirrors
    them at the estimate: for measures that sampling itself pushes to one side (the variation of load, experts that no
    token has chosen yet), where the replicates lie as far beside the estimate as the estimate beside the truth. A
    replicate that drew no sentence is no number and is left out.
    """
    tail = (1 - LEVEL) / 2
    quantiles = torch.tensor([tail, 1 - tail], dtype=replicates.dtype, device=replicates.device)
    low, high = torch.nanquantile(replicates, quantiles, dim=0)
    if kind == "basic":
        low, high = 2 * point - high, 2 * point - low
    return low, high
