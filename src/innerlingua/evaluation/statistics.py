"""Statistics of two models on the same samples, as functions of arrays.

    from innerlingua.evaluation import paired_bootstrap, paired_permutation, smallest_difference

    scores_a, scores_b                                   # one score per sample, the same samples in the same order
    paired_bootstrap(scores_a, scores_b)                 # Bootstrap(difference, low, high, standard_error)
    paired_permutation(scores_a, scores_b)               # p-value
    smallest_difference(scores_a, scores_b)              # what so many samples can show, at 80 % power

`clusters` names what a sample shares with others (a passage, a meaning in several languages): such samples are drawn
and swapped together. Whole result folders are compared by `compare_runs`, which uses the same mechanism over languages
and seeds. Which test suits which measure: Dror et al. (2018, ACL, "The Hitchhiker's Guide to Testing Statistical
Significance in NLP"); why and how for benchmarks of language models: Miller (2024, arXiv 2411.00640).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from innerlingua.errors import DataError
from innerlingua.evaluation.analysis import Analysis, Estimate, Stack
from innerlingua.evaluation.measures import mean_measure
from innerlingua.evaluation.power import POWER

__all__ = ["Bootstrap", "paired_bootstrap", "paired_permutation", "smallest_difference"]

REPLICATES: Final = 10_000
PERMUTATIONS: Final = 9_999


@dataclass(frozen=True)
class Bootstrap:
    """A mean difference (b less a) with its interval.

    Attributes:
        difference: of the means.
        low, high: the interval; None where all samples are one cluster.
        standard_error: of the difference.
    """

    difference: float
    low: float | None
    high: float | None
    standard_error: float


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    bounded: bool | None = None,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Bootstrap:
    """The difference of the means of `b` and `a`, with a bootstrap interval over samples.

    A percentile interval with two repairs for few samples and for scores near 0 and 1;
    `innerlingua.evaluation.estimates` says which and why.

    Args:
        a, b: scores of the same samples in the same order, (n,).
        clusters: a name per sample; samples of one name are drawn together.
        bounded: whether scores lie between 0 and 1 by their nature; None: whether these do.
        level: of the interval.
        replicates: R.
        seed: of the random numbers.

    Raises:
        DataError: the arrays are empty, of different lengths, or hold values that are no finite numbers; or a setting
        is
            out of its range.
    """
    estimate = _estimate(a, b, clusters, bounded, level=level, replicates=replicates, permutations=1, seed=seed)
    low, high = estimate.interval or (None, None)
    return Bootstrap(estimate.difference, low, high, estimate.spread.total)


def paired_permutation(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """The two-sided p-value of the difference of the means, by swapping the models' scores on random samples.

    Exact (McNemar's exact test) for scores of 0 and 1 without clusters, else from `permutations` random swaps, with the
    data themselves counted as one. Arguments and errors are those of `paired_bootstrap`.
    """
    return _estimate(a, b, clusters, None, level=0.95, replicates=1, permutations=permutations, seed=seed).p


def smallest_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    alpha: float = 0.05,
    power: float = POWER,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> float | None:
    """The smallest difference that so many samples, as discordant as these, would show at level `alpha` with `power`.

    None when they could show none (fewer than 6 samples right or wrong, or one cluster). Arguments and errors are those
    of `paired_bootstrap`; `innerlingua.evaluation.power` has the formulas.
    """
    for name, value in (("alpha", alpha), ("power", power)):
        _between(name, value)
    if power <= alpha:
        raise DataError(f"power: {power} is not above alpha, {alpha}; a test that always guesses has power alpha")
    estimate = _estimate(a, b, clusters, None, level=0.95, replicates=replicates, permutations=1, seed=seed)
    return estimate.smallest(alpha, power)


def _estimate(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable] | None,
    bounded: bool | None,
    *,
    level: float,
    replicates: int,
    permutations: int,
    seed: int,
) -> Estimate:
    first, second = _scores("a", a), _scores("b", b)
    if len(first) != len(second):
        raise DataError(f"a has {len(first)} scores and b {len(second)}: give the same samples of both, in one order")
    _between("level", level)
    for name, value in (("replicates", replicates), ("permutations", permutations)):
        if value < 1:
            raise DataError(f"{name}: {value} is no number of draws; give 1000 or more")
    if clusters is not None and len(clusters) != len(first):
        raise DataError(f"clusters names {len(clusters)} samples, and there are {len(first)}: name each sample once")
    names: Any = range(len(first)) if clusters is None else clusters
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    members = np.array([places[name] for name in names], dtype=np.int64)
    both = np.stack([first, second])[:, :, None]
    if bounded is None:
        bounded = bool(((both >= 0) & (both <= 1)).all())
    stack = Stack("samples", mean_measure("mean", bounded=bounded), len(places), [members], [both])
    analysis = Analysis(stack, replicates=replicates, permutations=permutations, seed=seed, level=level)
    return analysis.difference([0], [1], [0])


def _scores(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: these are no numbers ({error})") from error
    if scores.ndim != 1 or not len(scores):
        raise DataError(f"{name}: give one score per sample, at least one; this has shape {scores.shape}")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise DataError(
            f"{name}: the score of sample {wrong[0]} is {scores[wrong[0]]} ({len(wrong)} such); mend them first"
        )
    return scores


def _between(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise DataError(f"{name}: {value} is not between 0 and 1")
