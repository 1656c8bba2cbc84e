"""Scores of several runs on the same samples, drawn again together: one benchmark and measure in all of its languages.

`Stack` holds the samples; `Analysis` draws its replicates once and answers for any language, or for the mean over
several of them, and for any two methods. The mean over languages weighs each language the same (macro average); the
languages are taken as given, the samples and seeds as drawn.

Shapes: L languages, C clusters, S runs, R replicates; n samples of a language, k statistics of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from innerlingua.evaluation.estimates import (
    Floats,
    Kind,
    Spread,
    expanded_interval,
    imagined,
    mixed_spread,
    permutation_p,
    sign_test_p,
    t_interval,
    t_p,
)
from innerlingua.evaluation.measures import Measure
from innerlingua.evaluation.power import smallest_for_sign_test, smallest_for_swaps, smallest_for_t_test
from innerlingua.evaluation.resampling import cluster_sums, drawn_sums, generator, swapped_sums

__all__ = ["Analysis", "Estimate", "Stack"]

Ints = NDArray[np.int64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Stack:
    """Samples of S runs in L languages.

    Attributes:
        name: of the benchmark, for the stream of random numbers.
        measure: how samples are scored.
        clusters: C, over all languages.
        members: per language, the cluster of each sample (n,).
        statistics: per language, (S, n, k).
    """

    name: str
    measure: Measure
    clusters: int
    members: Sequence[Ints]
    statistics: Sequence[Floats]

    @property
    def runs(self) -> int:
        """S."""
        return int(self.statistics[0].shape[0])

    @cached_property
    def counts(self) -> Floats:
        """Samples per cluster and language, (C, L)."""
        return np.stack([np.bincount(one, minlength=self.clusters) for one in self.members], axis=1).astype(np.float64)

    @cached_property
    def sums(self) -> Floats:
        """Sums of the statistics per cluster, (C, S, L, k)."""
        runs, width = self.statistics[0].shape[0], self.statistics[0].shape[2]
        sums = np.zeros((self.clusters, runs, len(self.members), width))
        for index, (clusters, values) in enumerate(zip(self.members, self.statistics, strict=True)):
            flat = values.transpose(1, 0, 2).reshape(len(clusters), -1)
            sums[:, :, index] = cluster_sums(flat, clusters, self.clusters).reshape(self.clusters, runs, width)
        return sums

    @cached_property
    def scores(self) -> Floats:
        """The runs' scores, (S, L)."""
        total = np.broadcast_to(self.counts.sum(axis=0), (self.runs, len(self.members)))
        return self.measure.score(self.sums.sum(axis=0), total)


@dataclass(frozen=True)
class Estimate:
    """A difference, in the unit of the scores, and what is known about it.

    Attributes:
        difference: the second method's mean over runs less the first's.
        interval: at the level asked for; None when one cluster is all there is.
        spread: standard errors.
        p: two-sided.
        test: how `p` was computed.
        clusters: independent pieces in it.
        samples: in it, over all its languages.
        discordance: share of samples that differ at all; None for corpus scores.
        wins, losses: samples on which the second, or the first, has the higher score; None with several runs and for
            corpus scores.
        exact: whether the samples are independent and right or wrong, one run of each.
        same: whether no sample differs between the methods.
        size: what a cluster that differs adds to the difference, on average; a whole cluster's share where none
            differs. 0 where that is not known, as for corpus scores.
        largest: the largest difference that there can be.
    """

    difference: float
    interval: Interval | None
    spread: Spread
    p: float
    test: Kind
    clusters: int
    samples: int
    discordance: float | None
    wins: int | None
    losses: int | None
    exact: bool
    same: bool
    size: float
    largest: float

    def smallest(self, alpha: float, power: float) -> float | None:
        """The smallest difference that these samples (and seeds) would show at level `alpha`; None when none could."""
        if self.exact and self.wins is not None and self.losses is not None:
            return smallest_for_sign_test(self.samples, self.wins + self.losses, alpha=alpha, power=power)
        found = smallest_for_t_test(self.spread.total, self.spread.freedom, alpha=alpha, power=power)
        if self.test == "permutation":
            least = smallest_for_swaps(self.clusters, self.size, alpha=alpha, power=power)
            found = None if found is None or least is None else max(found, least)
        return None if found is None or found > self.largest else found


class Analysis:
    """All replicates of a stack, and estimates from them.

    Args:
        stack: the samples.
        replicates: R of the bootstrap.
        permutations: random swaps of the permutation test.
        seed: of the random numbers; the same seed gives the same numbers.
        level: of intervals.
    """

    def __init__(self, stack: Stack, *, replicates: int, permutations: int, seed: int, level: float) -> None:
        self.stack = stack
        self._permutations, self._seed, self._level = permutations, seed, level
        languages = list(range(len(stack.members)))
        there = stack.counts > 0
        self._swaps: dict[tuple[int, int], Floats] = {}
        self._own: dict[int, tuple[Floats, Floats]] = {}
        joint = self._draw(languages, np.arange(stack.clusters), replicates) if len(languages) > 1 else None
        self._joint = joint
        # A language that lacks some clusters is drawn from its own, so that each replicate has its number of them.
        patterns: dict[bytes, list[int]] = {}
        for language in languages:
            patterns.setdefault(there[:, language].tobytes(), []).append(language)
        for members in patterns.values():
            rows = np.flatnonzero(there[:, members[0]])
            whole = len(rows) == stack.clusters
            scores, counts = joint if joint is not None and whole else self._draw(members, rows, replicates)
            for place, language in enumerate(members):
                column = language if joint is not None and whole else place
                self._own[language] = scores[:, :, [column]], counts[:, [column]]

    def difference(
        self, a: Sequence[int], b: Sequence[int], languages: Sequence[int], *, fixed: frozenset[str] = frozenset()
    ) -> Estimate:
        """The difference of the runs `b` to the runs `a`, in one language or in the mean over several.

        `fixed` names the sides ("a", "b") that no training seed changes, such as the model before training.
        """
        stack, chosen = self.stack, list(languages)
        point = float((stack.scores[b][:, chosen].mean(axis=0) - stack.scores[a][:, chosen].mean(axis=0)).mean())
        scores, counts = self._replicates(chosen)
        drawn = scores[:, b].mean(axis=1) - scores[:, a].mean(axis=1)
        span = stack.measure.span
        rng = generator(self._seed, stack.name, "differences", *map(str, (*a, "against", *b, *chosen)))
        smoothed = imagined(drawn, counts, span, rng, low=-span).mean(axis=1)
        rows = np.flatnonzero(stack.counts[:, chosen].sum(axis=1) > 0)
        clusters, samples = len(rows), int(stack.counts[:, chosen].sum())
        sampling = float(np.nanvar(smoothed))
        single = len(a) == len(b) == 1
        spread = mixed_spread(sampling, clusters, [] if single else self._seeds(a, b, chosen, fixed))
        wins, losses, discordance = self._discordant(a, b, chosen)
        exact = single and len(chosen) == 1 and clusters == samples and span > 0 and self._binary([*a, *b], chosen[0])
        same = all(
            np.array_equal(np.mean(values[b], axis=0), np.mean(values[a], axis=0))
            for values in (stack.statistics[language] for language in chosen)
        )
        test: Kind
        if not single:
            interval = t_interval(point, spread, self._level, stack.measure.largest)
            p, test = t_p(point, spread), "t"
        else:
            interval = expanded_interval(smoothed, clusters, self._level)
            if exact and wins is not None and losses is not None:
                p, test = sign_test_p(wins, losses), "exact"
            else:
                p, test = self._permuted(a[0], b[0], chosen), "permutation"
        size, largest = self._size(a, b, chosen, clusters), stack.measure.largest
        return Estimate(
            point, interval, spread, p, test, clusters, samples, discordance, wins, losses, exact, same, size, largest
        )

    def score(
        self, runs: Sequence[int], languages: Sequence[int], *, fixed: bool = False
    ) -> tuple[float, Interval | None]:
        """A method's score, the mean over its runs, with its interval; in one language or in the mean over several."""
        stack, chosen = self.stack, list(languages)
        point = float(stack.scores[runs][:, chosen].mean())
        scores, counts = self._replicates(chosen)
        rng = generator(self._seed, stack.name, "scores", *map(str, (*runs, "in", *chosen)))
        drawn = imagined(scores[:, runs].mean(axis=1), counts, stack.measure.span, rng, low=0.0).mean(axis=1)
        clusters = int((stack.counts[:, chosen].sum(axis=1) > 0).sum())
        if len(runs) == 1:
            interval = expanded_interval(drawn, clusters, self._level)
        else:
            spread = mixed_spread(float(np.nanvar(drawn)), clusters, [self._seed_part(runs, chosen)])
            interval = t_interval(point, spread, self._level)
        if interval is None:
            return point, None
        low, high = min(interval[0], point), max(interval[1], point)
        top = stack.measure.span or np.inf
        return point, (max(0.0, low), min(top, high))

    def _draw(self, languages: list[int], rows: Ints, replicates: int) -> tuple[Floats, Floats]:
        """Replicates of scores (R, S, languages) and of numbers of samples (R, languages), over the clusters `rows`."""
        stack = self.stack
        runs, width = stack.runs, stack.sums.shape[-1]
        sums = stack.sums[rows][:, :, languages].reshape(len(rows), -1)
        rng = generator(self._seed, stack.name, stack.measure.name, "bootstrap", str(len(rows)))
        scores, numbers = [], []
        columns = np.concatenate([sums, stack.counts[rows][:, languages]], axis=1)
        for chunk in drawn_sums(columns, replicates=replicates, rng=rng):
            counts = chunk[:, sums.shape[1] :]
            parts = chunk[:, : sums.shape[1]].reshape(len(chunk), runs, len(languages), width)
            scores.append(stack.measure.score(parts, np.broadcast_to(counts[:, None], parts.shape[:-1])))
            numbers.append(counts)
        return np.concatenate(scores), np.concatenate(numbers)

    def _replicates(self, chosen: list[int]) -> tuple[Floats, Floats]:
        if len(chosen) == 1:
            return self._own[chosen[0]]
        assert self._joint is not None
        scores, counts = self._joint
        return scores[:, :, chosen], counts[:, chosen]

    def _seeds(
        self, a: Sequence[int], b: Sequence[int], chosen: list[int], fixed: frozenset[str]
    ) -> list[tuple[float, float, int]]:
        """Per method with several runs: the variance of its score from seeds, the interaction in it, and its freedom.

        A method with one run is taken to vary as the other does, unless it is fixed.
        """
        parts = []
        for side, other, name, other_name in ((a, b, "a", "b"), (b, a, "b", "a")):
            if len(side) < 2 or name in fixed:
                continue
            between, interaction, freedom = self._seed_part(side, chosen)
            factor = 1 + len(side) if len(other) == 1 and other_name not in fixed else 1
            parts.append((between * factor, interaction * factor, freedom))
        return parts

    def _seed_part(self, runs: Sequence[int], chosen: list[int]) -> tuple[float, float, int]:
        number = len(runs)
        between = float(self.stack.scores[runs][:, chosen].mean(axis=1).var(ddof=1)) / number
        drawn = self._replicates(chosen)[0][:, runs].mean(axis=2)
        alone = drawn - drawn.mean(axis=1, keepdims=True)
        interaction = float(np.nanvar(alone, axis=0).sum()) / (number * (number - 1))
        return between, interaction, number - 1

    def _binary(self, runs: Sequence[int], language: int) -> bool:
        values = self.stack.statistics[language][list(runs)]
        return bool(np.isin(values, (0.0, 1.0)).all())

    def _discordant(
        self, a: Sequence[int], b: Sequence[int], chosen: list[int]
    ) -> tuple[int | None, int | None, float | None]:
        """Wins and losses of `b` (one run of each), and the share of samples with a different score."""
        if self.stack.sums.shape[-1] != 1:
            return None, None, None
        changes = [
            values[b].mean(axis=0) - values[a].mean(axis=0) for values in (self.stack.statistics[i] for i in chosen)
        ]
        change = np.concatenate(changes)[:, 0]
        share = float((change != 0).mean())
        if not len(a) == len(b) == 1:
            return None, None, share
        return int((change > 0).sum()), int((change < 0).sum()), share

    def _size(self, a: Sequence[int], b: Sequence[int], chosen: list[int], clusters: int) -> float:
        """What a cluster that differs adds to the difference of means, on average over those that do."""
        stack = self.stack
        if stack.sums.shape[-1] != 1:
            return 0.0
        sums = stack.sums[:, :, chosen, 0]
        parts = (sums[:, b].mean(axis=1) - sums[:, a].mean(axis=1)) / stack.counts[:, chosen].sum(axis=0)
        sizes = np.abs(parts.mean(axis=1))
        differing = sizes > 1e-12
        return float(sizes[differing].mean()) if differing.any() else stack.measure.span / clusters

    def _permuted(self, a: int, b: int, chosen: list[int]) -> float:
        """The p-value of swapping two runs on random clusters, all languages of a cluster at once."""
        if (a, b) not in self._swaps:
            self._swaps[a, b] = self._swap(a, b)
        drawn = self._swaps[a, b][:, chosen].mean(axis=1, keepdims=True)
        observed = (self.stack.scores[b] - self.stack.scores[a])[chosen].mean()
        return float(permutation_p(drawn, np.array([observed]))[0])

    def _swap(self, a: int, b: int) -> Floats:
        """Differences after random swaps, (permutations, L)."""
        stack = self.stack
        before, after = stack.sums[:, a], stack.sums[:, b]
        change = after - before
        totals, languages = stack.counts.sum(axis=0), len(stack.members)
        rng = generator(self._seed, stack.name, stack.measure.name, "permutation")
        drawn = []
        for chunk in swapped_sums(change.reshape(stack.clusters, -1), permutations=self._permutations, rng=rng):
            moved = chunk.reshape(len(chunk), languages, -1)
            counts = np.broadcast_to(totals, moved.shape[:-1])
            lower = stack.measure.score(before.sum(axis=0) + moved, counts)
            upper = stack.measure.score(after.sum(axis=0) - moved, counts)
            drawn.append(upper - lower)
        return np.concatenate(drawn)
