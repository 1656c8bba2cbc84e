"""A difference between two models with its interval, standard error, p-value and the smallest that could be shown.

**Interval, one run of each model.** The percentile bootstrap over clusters (Efron, 1979; paired as in Koehn, 2004),
with two repairs without which it covers far too seldom (`docs/comparing.md` has the simulation):

- Near 0 and 1 few samples differ, or none, and the plain bootstrap's interval shrinks to a point. For bounded scores
  every replicate draws, beside the samples, two imagined ones, which differ as far as they can, one each way. This is
  the adjustment of Bonett and Price (2012, J. Educ. Behav. Stat. 37) for paired proportions, in the form of a
  bootstrap. Like all samples they stand for a meaning: one that is drawn is drawn in all languages of a mean.
- With few clusters the percentiles lie too close. They are taken further out, as far as Student's t lies beyond the
  normal distribution and the standard error with C - 1 beyond that with C (Hesterberg, 2015, Am. Stat. 69, "expanded
  percentile").

**p-value, one run of each.** If it does not matter which model gave an answer, swapping the two models' answers on a
cluster changes nothing (Fisher; Riezler and Maxwell, 2005, as approximate randomisation). Swaps are drawn at random,
and the p-value counts the data themselves as one of them, so that it is never too small (Phipson and Smyth, 2010).
For right or wrong answers on independent samples all swaps together are the binomial distribution, and the p-value is
exact (McNemar's exact test).

**Several runs.** With S runs of a method, trained from different seeds, the difference varies with the samples and
with the seeds. The bootstrap over seeds is of no use for S = 3 (it sees a spread too small by a third, and its
intervals cover 74 to 100 % in simulation instead of 95), and swaps of three runs against three cannot give a p-value
below 0.1. So the variance is estimated by its parts, as in an analysis of variance with samples and seeds crossed:

    V = V_samples + max(0, V_seeds - V_interaction)

V_samples is the bootstrap variance of the difference of the methods' means over seeds; V_seeds is the sum over both
methods of the variance of their runs' scores over S; V_interaction, the part of V_seeds that comes from single
answers flipping between runs, is in V_samples already. Interval and p-value are Student's t with Satterthwaite's
(1946) degrees of freedom. A bootstrap cannot do this: none is exact for crossed factors (McCullagh, 2000, Bernoulli
6; Owen, 2007, Ann. Appl. Stat. 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from innerlingua.evaluation.distributions import normal_tail, special, t_quantile

__all__ = [
    "Spread",
    "expanded_interval",
    "imagined",
    "mixed_spread",
    "permutation_p",
    "sign_test_p",
    "t_interval",
    "t_p",
]

Floats = NDArray[np.float64]
Kind = Literal["exact", "permutation", "t"]

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Spread:
    """Where the uncertainty of a difference comes from.

    Attributes:
        samples: the standard error from the samples.
        seeds: the standard error from training seeds; None when there is one run of each model.
        total: the standard error.
        freedom: degrees of freedom of `total`.
    """

    samples: float
    seeds: float | None
    total: float
    freedom: float


def imagined(values: Floats, counts: Floats, span: float, rng: np.random.Generator, *, low: float) -> Floats:
    """Replicates `values` (R, L) of means over `counts` samples, with two imagined ones, of `low` and `span`, added.

    How often a replicate draws each is Poisson with mean 1, in all languages alike: where few samples differ, languages
    may well differ on the same meanings, and nothing that was seen says otherwise. For differences `low` is -`span`,
    for scores 0.
    """
    if not span:
        return values
    above, below = rng.poisson(1.0, size=(2, len(values), 1))
    with_them: Floats = (values * counts + span * above + low * below) / (counts + above + below)
    return with_them


def expanded_interval(replicates: Floats, clusters: int, level: float) -> tuple[float, float] | None:
    """The percentile interval of `replicates` (R,), expanded for few clusters. None below two clusters.

    Replicates that drew no sample are no numbers and are left out.
    """
    if clusters < 2:
        return None
    reach = math.sqrt(clusters / (clusters - 1)) * t_quantile((1 + level) / 2, clusters - 1)
    tail = normal_tail(-reach)
    low, high = np.nanquantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def mixed_spread(samples: float, clusters: int, seeds: list[tuple[float, float, int]]) -> Spread:
    """The standard error from samples and seeds.

    Args:
        samples: variance of the difference from the samples.
        clusters: their number.
        seeds: per method whose seeds vary: V_seeds (variance over runs, over their number), V_interaction, and the
            degrees of freedom.
    """
    between = sum(part for part, _, _ in seeds)
    interaction = sum(part for _, part, _ in seeds)
    extra = max(0.0, between - interaction)
    total = samples + extra
    freedom = float(clusters - 1)
    if extra > 0:
        parts = samples**2 / max(clusters - 1, 1) + sum(part**2 / free for part, _, free in seeds)
        freedom = total**2 / parts
    return Spread(math.sqrt(samples), math.sqrt(extra) if seeds else None, math.sqrt(total), freedom)


def t_interval(
    difference: float, spread: Spread, level: float, largest: float = math.inf
) -> tuple[float, float] | None:
    """Student's interval, within -`largest` to `largest`. None without degrees of freedom."""
    if spread.freedom <= 0:
        return None
    half = t_quantile((1 + level) / 2, spread.freedom) * spread.total
    return max(-largest, difference - half), min(largest, difference + half)


def t_p(difference: float, spread: Spread) -> float:
    """The two-sided p-value of Student's test; 1 where there is nothing to test with."""
    if difference == 0 or spread.freedom <= 0:
        return 1.0
    if spread.total == 0:
        return 0.0
    return float(2 * special().stdtr(spread.freedom, -abs(difference) / spread.total))


def sign_test_p(wins: int, losses: int) -> float:
    """The exact two-sided p-value of `wins` against `losses` discordant samples (McNemar's exact test)."""
    if wins + losses == 0:
        return 1.0
    return min(1.0, float(2 * special().bdtr(min(wins, losses), wins + losses, 0.5)))


def permutation_p(drawn: Floats, observed: Floats) -> Floats:
    """Two-sided p-values of `observed` (q,) among `drawn` (R, q), the differences after random swaps.

    (1 + those at least as far from 0) / (1 + R). Sums in another order differ in the last digits, which must not part
    what is equal.
    """
    edge = np.abs(observed) * (1 - 1e-9) - 1e-12
    return np.asarray((1 + (np.abs(drawn) >= edge).sum(axis=0)) / (1 + len(drawn)), dtype=np.float64)
