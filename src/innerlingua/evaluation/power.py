"""The smallest difference that so many samples can show: what a test finds with a stated probability (its power).

*Right or wrong answers.* Two models are told apart by the samples on which just one of them is right, the discordant
ones. With n samples, a share psi of them discordant and an accuracy difference d, the number of discordant samples is
Binomial(n, psi) and, of N discordant ones, the second model wins Binomial(N, (1 + d / psi) / 2). The exact test
rejects at most as often as alpha allows, so its power is a finite sum, which is computed here as it stands: the
approximation by Miettinen (1968, Biometrics 24) and Connor (1987, Biometrics 43) promises too much where few samples
are discordant. A difference larger than psi needs more discordant samples than were seen; then psi is taken to be the
difference itself.

*Anything else.* The estimate over its standard error is noncentral t, and the smallest difference is the
noncentrality with the wanted power, times the standard error.

*Swaps.* A permutation test over C clusters has p-values no smaller than 2 / 2^C, and no smaller than 2 / 2^D where only
D of them differ. So D must be large enough, and the smallest difference is at least the one at which that many clusters
differ, all one way, with the wanted power: noncentral t knows nothing of it and promises too much where few differ.

Card et al. (2020, EMNLP, "With Little Power Comes Great Responsibility") show how many comparisons in the field could
never have found what they report.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from innerlingua.evaluation.distributions import special, t_quantile

__all__ = [
    "POWER",
    "least_for_swaps",
    "sign_test_power",
    "smallest_for_sign_test",
    "smallest_for_swaps",
    "smallest_for_t_test",
]

Ints = NDArray[np.int64]

POWER: Final = 0.8
"""The customary power (Cohen, 1988): four of five real differences of that size would be found."""

_STEPS = 20  # halvings of the interval that holds the answer: a millionth of it
_GRID = 4001


def sign_test_power(samples: int, discordance: float, difference: float, *, alpha: float) -> float:
    """The probability that the exact two-sided sign test (McNemar's exact test) rejects at `alpha`.

    Args:
        samples: n, independent.
        discordance: psi, the share of samples on which just one of the models is right.
        difference: d, of the accuracies, at most psi.
        alpha: the level of the test.
    """
    return _power(_discordant(samples, discordance, alpha), discordance, difference)


def smallest_for_sign_test(samples: int, discordant: int, *, alpha: float, power: float = POWER) -> float | None:
    """The smallest accuracy difference that the exact sign test would show with `power`, given what was discordant.

    None when even models that differ on every sample could not be told apart: below 6 samples at alpha 0.05.
    """
    observed = discordant / samples
    seen = _discordant(samples, observed, alpha)

    def reached(difference: float) -> bool:
        if difference <= observed:
            return _power(seen, observed, difference) >= power
        return sign_test_power(samples, difference, difference, alpha=alpha) >= power

    # 30 standard errors are beyond any power; the interval starts narrow so that few halvings do.
    top = min(1.0, 30 * math.sqrt((discordant + 10) / samples**2))
    return _bisect(reached, top) or (_bisect(reached, 1.0) if top < 1 else None)


def smallest_for_t_test(standard_error: float, freedom: float, *, alpha: float, power: float = POWER) -> float | None:
    """The smallest difference that a two-sided t-test with this standard error would show with `power`.

    None without a standard error or degrees of freedom.
    """
    if not standard_error > 0 or not freedom > 0:
        return None
    critical = t_quantile(1 - alpha / 2, freedom)
    # Given its chi-square denominator, noncentral t is normal; a grid over the denominator's quantiles is its mean.
    grid = (np.arange(_GRID) + 0.5) / _GRID
    edges = critical * np.sqrt(2 * special().gammaincinv(freedom / 2, grid) / freedom)

    def reached(noncentrality: float) -> bool:
        found = special().ndtr(noncentrality - edges) + special().ndtr(-noncentrality - edges)
        return float(found.mean()) >= power

    answer = _bisect(reached, float(edges[-1]) + 10)
    return None if answer is None else answer * standard_error


def least_for_swaps(alpha: float) -> int:
    """How many clusters must differ, all in one direction, before random swaps can reject at `alpha`."""
    return math.ceil(1 - math.log2(alpha) - 1e-9)


def smallest_for_swaps(clusters: int, size: float, *, alpha: float, power: float = POWER) -> float | None:
    """The difference at which, with probability `power`, enough of `clusters` differ for a permutation test to reject.

    `size` is what one cluster that differs adds to the difference. None when even all clusters would be too few.
    """
    least = least_for_swaps(alpha)
    if clusters < least:
        return None
    # P(Binomial(C, q) >= least) is the regularised incomplete beta function of q.
    share = float(special().betaincinv(least, clusters - least + 1, power))
    return share * clusters * size


def _discordant(samples: int, share: float, alpha: float) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Numbers of discordant samples with which the test can reject, its critical values, and their probabilities."""
    spread = 7 * math.sqrt(samples * share * (1 - share)) + 7
    low, high = max(0, math.floor(samples * share - spread)), min(samples, math.ceil(samples * share + spread))
    counts = np.arange(low, high + 1)
    bound = _critical(counts, alpha)
    possible = bound >= 0
    return counts[possible], bound[possible], _binomial(counts[possible], samples, share)


def _power(discordant: tuple[Ints, Ints, NDArray[np.float64]], share: float, difference: float) -> float:
    counts, bound, chance = discordant
    wins = min(1.0, (1 + difference / share) / 2) if share else 0.5
    tails = special().bdtr(bound, counts, 1 - wins) + special().bdtr(bound, counts, wins)
    return float(np.sum(chance * tails))


def _binomial(counts: Ints, samples: int, share: float) -> NDArray[np.float64]:
    """Probabilities of `counts` successes in `samples` trials."""
    functions = special()
    choices = functions.gammaln(samples + 1) - functions.gammaln(counts + 1) - functions.gammaln(samples - counts + 1)
    logs = choices + functions.xlogy(counts, share) + functions.xlog1py(samples - counts, -share)
    return np.asarray(np.exp(logs), dtype=np.float64)


def _critical(counts: Ints, alpha: float) -> Ints:
    """The most wins of the weaker side, of `counts`, at which the two-sided sign test still rejects; -1 for never."""
    functions = special()
    # The normal quantile is off by one or two at most; the exact tail then decides.
    guess = np.floor(counts / 2 + functions.ndtri(alpha / 2) * np.sqrt(counts) / 2)
    offsets = np.arange(-2, 3)[:, None]
    candidates = np.clip(guess + offsets, -1, counts)
    tails = np.where(candidates < 0, 0.0, 2 * functions.bdtr(np.maximum(candidates, 0), counts, 0.5))
    return np.asarray(np.where(tails <= alpha, candidates, -1).max(axis=0), dtype=np.int64)


def _bisect(reached: Callable[[float], bool], top: float) -> float | None:
    """The smallest value up to `top` for which the rising condition `reached` holds; None when it never does."""
    if not reached(top):
        return None
    low, high = 0.0, top
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
