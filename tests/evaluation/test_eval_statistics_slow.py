"""The simulations of docs/comparing.md at full size, printed as its tables.

make soak, or: pytest -m slow -s tests/evaluation/test_eval_statistics_slow.py
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from simulated_scores import (
    answers_in_languages,
    coverage,
    independent_sets,
    mean_coverage,
    p_values,
    pairs_of_answers,
    passages,
    seeds_and_samples,
)

from innerlingua.evaluation.correction import benjamini_hochberg, holm
from innerlingua.evaluation.estimates import sign_test_p
from innerlingua.evaluation.power import smallest_for_sign_test
from trust.soak_record import record

pytestmark = pytest.mark.slow

SETS = 2000


def plain(scores: np.ndarray, truth: float) -> float:
    """Coverage of the plain percentile bootstrap of the mean change, without any repair."""
    change = (scores[:, 1] - scores[:, 0])[..., 0]
    rng, n, held = np.random.default_rng(0), change.shape[1], 0
    weights = rng.multinomial(n, np.full(n, 1 / n), 600) / n
    for one in change:
        low, high = np.quantile(weights @ one, [0.025, 0.975])
        held += low - 1e-9 <= truth <= high + 1e-9
    return held / len(change)


def test_intervals_of_right_and_wrong_answers() -> None:
    print("\n| n | lost | won | plain bootstrap | ours |\n|---:|---:|---:|---:|---:|")
    for n in (10, 20, 50, 100, 250, 900):
        for lost, won in ((0.0, 0.01), (0.01, 0.01), (0.02, 0.1), (0.2, 0.2), (0.0, 0.3)):
            rng = np.random.default_rng([n, round(1000 * lost), round(1000 * won)])
            answers = pairs_of_answers(rng, SETS, n, lost=lost, won=won)
            ours = np.mean(
                [coverage(independent_sets(part, bounded=True), won - lost) for part in np.split(answers, 10)]
            )
            print(f"| {n} | {lost:.0%} | {won:.0%} | {plain(answers, won - lost):.3f} | {ours:.3f} |")
            assert ours >= 0.935


def test_intervals_of_continuous_scores_and_passages() -> None:
    print("\n| scores | n | plain bootstrap | ours |\n|---|---:|---:|---:|")
    for n in (5, 10, 30, 100):
        rng = np.random.default_rng(n)
        first = rng.normal(0, 1, (SETS, n))
        scores = np.stack([first, first + rng.normal(0, 0.3, (SETS, n))], axis=1)[..., None]
        ours = np.mean([coverage(independent_sets(part, bounded=False), 0.0) for part in np.split(scores, 10)])
        print(f"| normal | {n} | {plain(scores, 0.0):.3f} | {ours:.3f} |")
        assert (0.9 if n < 10 else 0.93) <= ours <= 0.975
    for number in (20, 100):
        scores, members = passages(np.random.default_rng(number), SETS // 2, number, 6)
        parts = np.split(scores, 10)
        ours = np.mean([coverage(independent_sets(part, bounded=False, clusters=members), 0.0) for part in parts])
        print(f"| {number} passages of 6 questions | {number * 6} | {plain(scores, 0.0):.3f} | {ours:.3f} |")
        assert 0.93 <= ours <= 0.975


def one_by_one(answers: np.ndarray, truth: float) -> float:
    """Coverage of the normal interval that takes every answer in every language for a sample of its own."""
    change = (answers[:, :, 1] - answers[:, :, 0]).reshape(len(answers), -1)
    half = 1.96 * change.std(axis=1) / np.sqrt(change.shape[1])
    return float((np.abs(change.mean(axis=1) - truth) <= half + 1e-9).mean())


def test_intervals_of_means_over_languages() -> None:
    print("\n| n | lost | won | alike | one by one | plain bootstrap | ours |\n|---:|---:|---:|---:|---:|---:|---:|")
    for n in (50, 250):
        for lost, won in ((0.0, 0.01), (0.02, 0.1), (0.2, 0.2)):
            for alike in (0.0, 0.5, 1.0):
                rng = np.random.default_rng([n, round(1000 * lost), round(1000 * won), round(10 * alike)])
                answers = answers_in_languages(rng, SETS, n, 8, lost=lost, won=won, alike=alike)
                truth, means = won - lost, answers.mean(axis=1)
                ours = np.mean([mean_coverage(part, truth) for part in np.split(answers, 20)])
                print(
                    f"| {n} | {lost:.0%} | {won:.0%} | {alike:.0%} | {one_by_one(answers, truth):.3f} "
                    f"| {plain(means, truth):.3f} | {ours:.3f} |"
                )
                assert ours >= 0.935


def over_seeds(scores: np.ndarray, runs: int) -> float:
    """Coverage of the hierarchical bootstrap: seeds drawn, then samples."""
    rng, held = np.random.default_rng(0), 0
    values = scores[:500, ..., 0]
    n = values.shape[2]
    for one in values:
        weights = rng.multinomial(n, np.full(n, 1 / n), 300).T / n
        means = one @ weights
        first, second = (rng.integers(0, runs, (runs, 300)) for _ in range(2))
        column = np.arange(300)
        drawn = means[runs:][second, column].mean(axis=0) - means[:runs][first, column].mean(axis=0)
        low, high = np.quantile(drawn, [0.025, 0.975])
        held += low <= 0 <= high
    return held / len(values)


def test_intervals_and_tests_over_seeds() -> None:
    print("\n| runs | spread of seeds | flips | samples alone | hierarchical bootstrap | ours | p <= 0.05 |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for runs in (2, 3, 5):
        for spread in (0.0, 0.005, 0.02):
            for flip in (0.0, 0.3):
                rng = np.random.default_rng([runs, round(1000 * spread), round(10 * flip)])
                scores = seeds_and_samples(rng, 2000, 500, runs=runs, seed_spread=spread, flip=flip)
                means = scores[:, runs:].mean(axis=1) - scores[:, :runs].mean(axis=1)
                error = means.std(axis=1, ddof=1) / np.sqrt(means.shape[1])
                alone = (np.abs(means.mean(axis=1)) <= 1.96 * error).mean()
                held, rejected = [], []
                for part in np.split(scores, 10):
                    analysis = independent_sets(part, bounded=False, draws=300)
                    for place in range(len(part)):
                        found = analysis.difference(list(range(runs)), list(range(runs, 2 * runs)), [place])
                        assert found.interval is not None
                        held.append(found.interval[0] <= 0 <= found.interval[1])
                        rejected.append(found.p <= 0.05)
                ours, level = np.mean(held), np.mean(rejected)
                print(
                    f"| {runs} + {runs} | {spread} | {flip} | {alone:.3f} | {over_seeds(scores, runs):.3f} "
                    f"| {ours:.3f} | {level:.3f} |"
                )
                assert ours >= 0.92
                assert level <= 0.08


def test_p_values_and_families() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, (SETS, 40))
    scores = np.stack([first, first + rng.normal(0, 0.3, (SETS, 40))], axis=1)[..., None]
    found = np.concatenate(
        [p_values(independent_sets(part, bounded=False, draws=100, swaps=999)) for part in np.split(scores, 8)]
    )
    test = stats.kstest(found, "uniform")
    print(f"\nswaps, nothing changed: KS {test.statistic:.4f}, p {test.pvalue:.3f} over {SETS} data sets")
    assert test.pvalue > 0.001
    print("\n| tests | any p <= 0.05 | after Holm | after Benjamini and Hochberg |\n|---:|---:|---:|---:|")
    for size in (5, 12, 40):
        errors = np.zeros(3)
        for _ in range(SETS):
            discordant = rng.binomial(400, 0.25, size)
            wins = rng.binomial(discordant, 0.5)
            p = [sign_test_p(int(w), int(d - w)) for w, d in zip(wins, discordant, strict=True)]
            errors += [min(p) <= 0.05, min(holm(p)) <= 0.05, min(benjamini_hochberg(p)) <= 0.05]
        naive, held, rate = errors / SETS
        print(f"| {size} | {naive:.3f} | {held:.3f} | {rate:.3f} |")
        assert held <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / SETS)
    record(
        "Where nothing changed, comparisons say so",
        f"{SETS:,} simulated families of 5, 12 and 40 languages each, and as many tests by swaps",
        4 * SETS,
        "data sets",
        "any language significant after Holm's correction in at most 5 % of the families, within three standard errors",
    )


def test_power_at_the_smallest_difference() -> None:
    print("\n| n | discordant | smallest difference | found | by the usual approximation | found |")
    print("|---:|---:|---:|---:|---:|---:|")
    for n, discordant in ((50, 3), (100, 10), (250, 10), (250, 50), (900, 180), (14_042, 2_000)):
        smallest = smallest_for_sign_test(n, discordant, alpha=0.05)
        assert smallest is not None
        usual = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * np.sqrt(discordant) / n
        rates = []
        for difference in (smallest, usual):
            share = max(discordant / n, difference)
            rng = np.random.default_rng(n)
            count = rng.binomial(n, share, 200_000)
            wins = rng.binomial(count, (1 + difference / share) / 2)
            tails = np.minimum(1, 2 * stats.binom.cdf(np.minimum(wins, count - wins), count, 0.5))
            rates.append((tails <= 0.05).mean())
        print(f"| {n} | {discordant} | {smallest:.4f} | {rates[0]:.3f} | {usual:.4f} | {rates[1]:.3f} |")
        assert rates[0] == pytest.approx(0.8, abs=0.005)
    record(
        "The smallest difference that samples can show is shown four times in five",
        "simulated comparisons of right and wrong answers, 200,000 for each of six sizes",
        1_200_000,
        "data sets",
        "0.8 within 0.005 at each size",
    )
