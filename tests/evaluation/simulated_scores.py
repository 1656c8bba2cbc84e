"""Simulations behind the statistics: how often intervals hold the truth, and tests are wrong, over made-up data sets.

A `Stack` of many "languages" that have nothing to do with each other is many data sets at once, so that a few hundred
repetitions take about a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from innerlingua.evaluation.analysis import Analysis, Stack
from innerlingua.evaluation.measures import mean_measure

Floats = NDArray[np.float64]


def pairs_of_answers(
    rng: np.random.Generator, sets: int, n: int, *, lost: float, won: float, right: float = 0.5
) -> Floats:
    """Right and wrong answers of two models: (sets, 2, n, 1). `lost` and `won` are shares of all samples."""
    draw = rng.random((sets, n))
    both = rng.random((sets, n)) < right
    first = np.where(draw < lost, 1.0, np.where(draw < lost + won, 0.0, both))
    second = np.where(draw < lost, 0.0, np.where(draw < lost + won, 1.0, both))
    return np.stack([first, second], axis=1)[..., None]


def independent_sets(
    statistics: Floats, *, bounded: bool, clusters: NDArray[np.int64] | None = None, draws: int = 600, swaps: int = 200
) -> Analysis:
    """An analysis of data sets (sets, runs, n, 1), each as a language of its own."""
    n = statistics.shape[2]
    members = np.arange(n) if clusters is None else clusters
    stack = Stack(
        "simulated",
        mean_measure("score", bounded=bounded),
        int(members.max()) + 1,
        [members] * len(statistics),
        list(statistics),
    )
    return Analysis(stack, replicates=draws, permutations=swaps, seed=0, level=0.95)


def coverage(analysis: Analysis, truth: float, *, runs: int = 1) -> float:
    """The share of data sets whose interval holds `truth`; methods of `runs` runs each."""
    first, second = list(range(runs)), list(range(runs, 2 * runs))
    held = 0
    for place in range(len(analysis.stack.members)):
        interval = analysis.difference(first, second, [place]).interval
        assert interval is not None
        held += interval[0] - 1e-9 <= truth <= interval[1] + 1e-9
    return held / len(analysis.stack.members)


def p_values(analysis: Analysis, *, runs: int = 1) -> Floats:
    """One p-value per data set."""
    first, second = list(range(runs)), list(range(runs, 2 * runs))
    return np.array([analysis.difference(first, second, [place]).p for place in range(len(analysis.stack.members))])


def passages(rng: np.random.Generator, sets: int, number: int, size: int) -> tuple[Floats, NDArray[np.int64]]:
    """Scores (sets, 2, n, 1) without a true difference, whose changes passages share; each question's passage."""
    shared = np.repeat(rng.normal(0, 0.2, (sets, number)), size, axis=1)
    change = shared + rng.normal(0, 0.2, (sets, number * size))
    first = rng.normal(0, 1, change.shape)
    return np.stack([first, first + change], axis=1)[..., None], np.repeat(np.arange(number), size)


def seeds_and_samples(
    rng: np.random.Generator, sets: int, n: int, *, runs: int, seed_spread: float, flip: float
) -> Floats:
    """Scores without a true difference, of `runs` runs of two methods: (sets, 2 * runs, n, 1).

    `seed_spread` is the standard deviation of a run's level, `flip` that of a single answer between runs.
    """
    item = rng.normal(0, 0.4, (sets, 1, n))
    method = np.repeat(rng.normal(0, 0.1, (sets, 2, n)), runs, axis=1)
    level = rng.normal(0, seed_spread, (sets, 2 * runs, 1))
    return (item + method + level + rng.normal(0, flip, (sets, 2 * runs, n)))[..., None]


def answers_in_languages(
    rng: np.random.Generator, sets: int, n: int, languages: int, *, lost: float, won: float, alike: float
) -> Floats:
    """Right and wrong answers of two models to questions in several languages: (sets, languages, 2, n, 1).

    In each language the second model loses and wins the shares `lost` and `won` of the questions; in the share `alike`
    of its answers it does with a question what it does in all other such languages.
    """
    own, shared = rng.random((sets, languages, n)), rng.random((sets, 1, n))
    draw = np.where(rng.random(own.shape) < alike, shared, own)
    first = np.where(draw < lost, 1.0, 0.0)
    second = np.where((draw >= lost) & (draw < lost + won), 1.0, 0.0)
    return np.stack([first, second], axis=2)[..., None]


def mean_coverage(answers: Floats, truth: float, *, draws: int = 600) -> float:
    """The share of data sets (sets, languages, 2, n, 1) whose interval of the mean over languages holds `truth`."""
    sets, languages, _, n, _ = answers.shape
    every = list(answers.reshape(-1, 2, n, 1))
    stack = Stack("simulated", mean_measure("score", bounded=True), n, [np.arange(n)] * len(every), every)
    analysis = Analysis(stack, replicates=draws, permutations=1, seed=0, level=0.95)
    held = 0
    for start in range(0, sets * languages, languages):
        interval = analysis.difference([0], [1], range(start, start + languages)).interval
        assert interval is not None
        held += interval[0] - 1e-9 <= truth <= interval[1] + 1e-9
    return held / sets


def translated(rng: np.random.Generator, n: int, languages: int, *, shared: float = 0.15) -> list[Floats]:
    """Scores without a true difference, whose changes are alike for a question in all languages; each (2, n, 1)."""
    first = rng.normal(0, 1, (languages, n))
    change = rng.normal(0, shared, n) + rng.normal(0, 0.1, (languages, n))
    return [np.stack([a, a + c])[..., None] for a, c in zip(first, change, strict=True)]
