"""Statistics of two models on the same samples: closed forms, properties, other implementations, and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from simulated_scores import (
    coverage,
    independent_sets,
    p_values,
    pairs_of_answers,
    passages,
    seeds_and_samples,
    translated,
)

from innerlingua.errors import DataError
from innerlingua.evaluation import paired_bootstrap, paired_permutation, smallest_difference
from innerlingua.evaluation.analysis import Analysis, Stack
from innerlingua.evaluation.correction import benjamini_hochberg, holm
from innerlingua.evaluation.estimates import expanded_interval, sign_test_p
from innerlingua.evaluation.measures import mean_measure
from innerlingua.evaluation.power import sign_test_power, smallest_for_sign_test, smallest_for_t_test

A = np.array([1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1], dtype=float)
B = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1], dtype=float)  # 5 won, 1 lost


# ---- closed forms ----------------------------------------------------------------------------------------------------


def test_the_sign_test_is_the_binomial_test() -> None:
    for wins, losses in itertools.product(range(12), repeat=2):
        expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        assert sign_test_p(wins, losses) == pytest.approx(expected)


def test_right_and_wrong_answers_have_the_exact_p_value() -> None:
    assert paired_permutation(A, B) == pytest.approx(2 * (1 + 6) / 2**6)
    assert paired_bootstrap(A, B).difference == pytest.approx(4 / 12)


def test_random_swaps_come_to_the_share_of_all_swaps() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (2, 9))
    change = b + 0.6 - a
    every = [abs(np.dot(signs, change)) for signs in itertools.product((1, -1), repeat=9)]
    exact = np.mean([x >= abs(change.sum()) - 1e-12 for x in every])
    assert paired_permutation(a, b + 0.6, permutations=40_000) == pytest.approx(exact, abs=0.01)


def test_equal_scores_differ_by_nothing_and_not_for_certain() -> None:
    found = paired_bootstrap(A, A)
    assert found.difference == 0
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high  # twelve samples without a change do not show that there is none
    assert paired_permutation(A, A) == 1
    assert paired_permutation(A * 3.3, A * 3.3) == 1


@pytest.mark.parametrize("clusters", [2, 5, 30, 1000])
def test_intervals_reach_as_far_as_students_t(clusters: int) -> None:
    # Replicates that are exactly normal, with the bootstrap's standard error: sigma / sqrt(C) without the C - 1.
    replicates = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    expected = stats.t.ppf(0.975, clusters - 1) * np.sqrt(clusters / (clusters - 1))
    found = expanded_interval(replicates, clusters, 0.95)
    assert found == pytest.approx((-min(expected, replicates[-1]), min(expected, replicates[-1])), rel=0.01)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_benjamini_hochberg_is_that_of_scipy() -> None:
    p = np.random.default_rng(2).random(30) ** 3
    assert benjamini_hochberg(list(p)) == pytest.approx(stats.false_discovery_control(p))


def test_power_of_the_sign_test_by_hand() -> None:
    # Every sample discordant, always won: the test rejects as soon as 2 / 2^n is at most alpha.
    assert sign_test_power(5, 1.0, 1.0, alpha=0.05) == 0
    assert sign_test_power(6, 1.0, 1.0, alpha=0.05) == pytest.approx(1)
    # Six of six discordant with even chances: both tails.
    assert sign_test_power(6, 1.0, 0.0, alpha=0.05) == pytest.approx(2 / 2**6)


def test_five_samples_can_show_nothing() -> None:
    assert smallest_difference([0, 1, 0, 1, 0], [1, 0, 1, 0, 1]) is None
    assert smallest_difference([0, 1, 0, 1, 0, 0], [1, 0, 1, 0, 1, 1]) is not None


# ---- properties ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert paired_bootstrap(A, B, seed=5) == paired_bootstrap(A, B, seed=5)
    assert paired_bootstrap(A, B, seed=5) != paired_bootstrap(A, B, seed=6)


def test_the_standard_error_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(0, 5, 300)
    b = a + rng.normal(0, 1, 300)
    assert paired_bootstrap(a, b).standard_error == pytest.approx((b - a).std() / np.sqrt(300), rel=0.03)


def test_copies_of_samples_in_one_cluster_bring_no_information() -> None:
    rng = np.random.default_rng(4)
    a = rng.normal(0, 1, 80)
    b = a + rng.normal(0.1, 0.5, 80)
    copies, names = (np.repeat(x, 4) for x in (a, b)), np.repeat(np.arange(80), 4)
    twice_a, twice_b = copies
    once = paired_bootstrap(a, b)
    together = paired_bootstrap(twice_a, twice_b, clusters=names)
    apart = paired_bootstrap(twice_a, twice_b)
    assert together.standard_error == pytest.approx(once.standard_error, rel=1e-6)
    assert apart.standard_error == pytest.approx(once.standard_error / 2, rel=0.05)
    assert smallest_difference(twice_a, twice_b, clusters=names) == pytest.approx(smallest_difference(a, b), rel=1e-3)
    assert paired_permutation(twice_a, twice_b, clusters=names) == pytest.approx(paired_permutation(a, b), abs=0.01)


def test_names_of_clusters_do_not_matter_and_need_no_order() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 60))
    names = [f"passage {k % 20}" for k in range(60)]
    other = [(k % 20) * 3 + 1 for k in range(60)]
    assert paired_permutation(a, b, clusters=names) == paired_permutation(a, b, clusters=other)


def test_smaller_levels_need_larger_differences() -> None:
    smallest = [smallest_difference(A, B, alpha=alpha) for alpha in (0.2, 0.1, 0.05)]
    assert all(value is not None for value in smallest)
    assert sorted(filter(None, smallest)) == smallest
    assert (smallest_for_sign_test(900, 90, alpha=0.05) or 0) < (smallest_for_sign_test(900, 270, alpha=0.05) or 0)


# ---- simulation: intervals -------------------------------------------------------------------------------------------

# n, and the shares of samples that the second model loses and wins. Near 0 and 1 both are small.
CELLS = [
    (10, 0.0, 0.01),
    (20, 0.02, 0.1),
    (20, 0.0, 0.3),
    (50, 0.01, 0.01),
    (100, 0.0, 0.02),
    (250, 0.05, 0.05),
    (250, 0.2, 0.25),
]


@pytest.mark.parametrize(("n", "lost", "won"), CELLS)
def test_intervals_of_right_and_wrong_answers_cover(n: int, lost: float, won: float) -> None:
    answers = pairs_of_answers(np.random.default_rng([n, round(1000 * won)]), 400, n, lost=lost, won=won)
    assert coverage(independent_sets(answers, bounded=True), won - lost) >= 0.925


def test_without_imagined_samples_intervals_near_the_edge_would_not_cover() -> None:
    answers = pairs_of_answers(np.random.default_rng(6), 400, 20, lost=0.0, won=0.01)
    assert coverage(independent_sets(answers, bounded=False), 0.01) < 0.5
    assert coverage(independent_sets(answers, bounded=True), 0.01) > 0.95


@pytest.mark.parametrize("n", [8, 30, 200])
def test_intervals_of_continuous_scores_cover(n: int) -> None:
    rng = np.random.default_rng(n)
    first = rng.normal(0, 1, (400, n))
    second = first + 0.1 + rng.normal(0, 0.3, (400, n))
    analysis = independent_sets(np.stack([first, second], axis=1)[..., None], bounded=False)
    assert 0.92 <= coverage(analysis, 0.1) <= 0.985


def test_intervals_cover_when_samples_come_in_passages_and_would_not_if_taken_as_independent() -> None:
    scores, members = passages(np.random.default_rng(7), 300, 40, 6)
    assert 0.92 <= coverage(independent_sets(scores, bounded=False, clusters=members), 0.0) <= 0.985
    assert coverage(independent_sets(scores, bounded=False), 0.0) < 0.8


def test_the_mean_over_languages_covers_because_meanings_are_drawn_whole() -> None:
    rng, held, naive, trials, n, languages = np.random.default_rng(8), 0, 0, 250, 60, 8
    for _ in range(trials):
        scores = translated(rng, n, languages)
        stack = Stack("simulated", mean_measure("score", bounded=False), n, [np.arange(n)] * languages, scores)
        analysis = Analysis(stack, replicates=400, permutations=1, seed=0, level=0.95)
        interval = analysis.difference([0], [1], range(languages)).interval
        assert interval is not None
        held += interval[0] <= 0 <= interval[1]
        change = np.concatenate([one[1] - one[0] for one in scores])
        naive += abs(change.mean()) <= 1.96 * change.std() / np.sqrt(change.size)
    assert 0.915 <= held / trials <= 0.985
    assert naive / trials < 0.75


@pytest.mark.parametrize(
    ("runs", "spread", "flip"), [(2, 0.02, 0.0), (3, 0.0, 0.3), (3, 0.02, 0.0), (3, 0.02, 0.3), (5, 0.01, 0.3)]
)
def test_intervals_over_seeds_cover(runs: int, spread: float, flip: float) -> None:
    rng = np.random.default_rng([runs, round(100 * spread), round(10 * flip)])
    scores = seeds_and_samples(rng, 300, 250, runs=runs, seed_spread=spread, flip=flip)
    analysis = independent_sets(scores, bounded=False, draws=300)
    assert 0.915 <= coverage(analysis, 0.0, runs=runs) <= 0.995


def test_without_its_seeds_a_method_would_look_more_certain_than_it_is() -> None:
    scores = seeds_and_samples(np.random.default_rng(9), 300, 250, runs=3, seed_spread=0.02, flip=0.0)
    analysis = independent_sets(scores, bounded=False, draws=300)
    assert coverage(analysis, 0.0, runs=1) < 0.6  # the first run of each, as if it were the method


# ---- simulation: tests -----------------------------------------------------------------------------------------------


def test_p_values_of_swaps_are_uniform_where_nothing_changed() -> None:
    rng = np.random.default_rng(10)
    first = rng.normal(0, 1, (500, 40))
    second = first + rng.normal(0, 0.3, (500, 40))
    found = p_values(
        independent_sets(np.stack([first, second], axis=1)[..., None], bounded=False, draws=100, swaps=999)
    )
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_p_values_of_swapped_passages_are_uniform_and_of_swapped_samples_are_not() -> None:
    scores, members = passages(np.random.default_rng(11), 400, 40, 6)
    whole = p_values(independent_sets(scores, bounded=False, clusters=members, draws=100, swaps=999))
    split = p_values(independent_sets(scores, bounded=False, draws=100, swaps=999))
    assert stats.kstest(whole, "uniform").pvalue > 0.001
    assert stats.kstest(split, "uniform").pvalue < 1e-6


def test_exact_p_values_are_never_too_small() -> None:
    rng = np.random.default_rng(12)
    discordant = rng.binomial(60, 0.2, 20_000)
    wins = rng.binomial(discordant, 0.5)
    found = np.array([sign_test_p(int(w), int(d - w)) for w, d in zip(wins, discordant, strict=True)])
    for alpha in (0.01, 0.05, 0.1, 0.3):
        assert (found <= alpha).mean() <= alpha + 3 * np.sqrt(alpha / 20_000)
    assert (found <= 0.05).mean() > 0.01


@pytest.mark.parametrize("flip", [0.0, 0.3])
def test_the_test_over_seeds_keeps_its_level(flip: float) -> None:
    rng = np.random.default_rng(13)
    scores = seeds_and_samples(rng, 400, 200, runs=3, seed_spread=0.02, flip=flip)
    found = p_values(independent_sets(scores, bounded=False, draws=300), runs=3)
    assert 0.01 <= (found <= 0.05).mean() <= 0.085
    assert 0.05 <= (found <= 0.2).mean() <= 0.26


def test_holm_keeps_the_error_of_the_family() -> None:
    rng, errors, naive, trials = np.random.default_rng(14), 0, 0, 1500
    for _ in range(trials):
        shared = rng.random(200) < 0.3  # questions that both models find easy in every language
        p = []
        for _ in range(12):
            discordant = int(((rng.random(200) < 0.4) & ~shared).sum())
            wins = int(rng.binomial(discordant, 0.5))
            p.append(sign_test_p(wins, discordant - wins))
        errors += min(holm(p)) <= 0.05
        naive += min(p) <= 0.05
    assert errors / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    assert naive / trials > 0.25


# ---- simulation: power -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "discordant", "alpha"),
    [(100, 10, 0.05), (250, 3, 0.05), (900, 180, 0.05), (900, 180, 0.05 / 40), (14_042, 2_000, 0.05)],
)
def test_the_smallest_difference_is_found_four_times_in_five(n: int, discordant: int, alpha: float) -> None:
    smallest = smallest_for_sign_test(n, discordant, alpha=alpha)
    assert smallest is not None
    share = max(discordant / n, smallest)
    rng = np.random.default_rng(n)
    count = rng.binomial(n, share, 20_000)
    wins = rng.binomial(count, (1 + smallest / share) / 2)
    tails = np.minimum(1, 2 * stats.binom.cdf(np.minimum(wins, count - wins), count, 0.5))
    assert (tails <= alpha).mean() == pytest.approx(0.8, abs=0.012)


@pytest.mark.parametrize("freedom", [2, 4, 30, 5000])
def test_the_smallest_difference_of_a_t_test_is_found_four_times_in_five(freedom: int) -> None:
    smallest = smallest_for_t_test(0.5, freedom, alpha=0.05)
    assert smallest is not None
    rng = np.random.default_rng(freedom)
    t = rng.normal(smallest / 0.5, 1, 40_000) / np.sqrt(rng.chisquare(freedom, 40_000) / freedom)
    assert (2 * stats.t.sf(np.abs(t), freedom) <= 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_swaps_find_the_smallest_difference_of_continuous_scores_four_times_in_five() -> None:
    rng = np.random.default_rng(15)
    pilot = rng.normal(0, 0.3, 4000)
    smallest = smallest_difference(np.zeros(4000), pilot - pilot.mean())
    assert smallest is not None
    first = rng.normal(0, 1, (400, 100))
    second = first + smallest * np.sqrt(4000 / 100) + rng.normal(0, 0.3, (400, 100))
    analysis = independent_sets(np.stack([first, second], axis=1)[..., None], bounded=False, draws=50, swaps=999)
    assert (p_values(analysis) <= 0.05).mean() == pytest.approx(0.8, abs=0.05)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 0], [1], "a has 2 scores and b 1"),
        ([], [], "at least one"),
        ([1, float("nan")], [1, 0], "the score of sample 1 is nan"),
        ([1, 0], [float("inf"), 0], "b: the score of sample 0 is inf"),
        ([[1, 0]], [[1, 0]], "shape"),
        (["x"], ["y"], "no numbers"),
    ],
)
def test_arrays_that_are_no_scores_are_refused(a: list[float], b: list[float], message: str) -> None:
    for function in (paired_bootstrap, paired_permutation, smallest_difference):
        with pytest.raises(DataError, match=message):
            function(a, b)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="level"):
        paired_bootstrap(A, B, level=1.0)
    with pytest.raises(DataError, match="replicates"):
        paired_bootstrap(A, B, replicates=0)
    with pytest.raises(DataError, match="permutations"):
        paired_permutation(A, B, permutations=-1)
    with pytest.raises(DataError, match="power"):
        smallest_difference(A, B, power=0.01)
    with pytest.raises(DataError, match="alpha"):
        smallest_difference(A, B, alpha=0)
    with pytest.raises(DataError, match="clusters names 3 samples"):
        paired_bootstrap(A, B, clusters=[1, 2, 3])


def test_one_sample_says_so() -> None:
    found = paired_bootstrap([1.0], [0.0])
    assert (found.low, found.high) == (None, None)
    assert paired_permutation([1.0], [0.0]) == 1


def _moving_together(n: int, languages: int, won: float, rng: np.random.Generator) -> Stack:
    """Two models on `n` meanings; the second wins a share of them, each in all languages at once."""
    wins = (rng.random(n) < won).astype(float)
    both = np.stack([np.zeros(n), wins])[:, :, None]
    return Stack("x", mean_measure("mean", bounded=True), n, [np.arange(n)] * languages, [both] * languages)


def test_the_mean_over_languages_that_change_together_is_covered() -> None:
    """Few meanings differ, and each in all languages: imagined samples of each language apart covered 0.77."""
    rng = np.random.default_rng(3)
    held = 0
    for number in range(150):
        analysis = Analysis(_moving_together(50, 5, 0.03, rng), replicates=300, permutations=1, seed=number, level=0.95)
        interval = analysis.difference([0], [1], range(5)).interval
        assert interval is not None
        held += interval[0] <= 0.03 <= interval[1]
    assert held / 150 > 0.9


@pytest.mark.parametrize(("clusters", "possible"), [(4, False), (5, False), (6, True)])
def test_swaps_of_few_clusters_can_show_nothing(clusters: int, possible: bool) -> None:
    """All of 5 clusters on one side have p = 2 / 2^5 > 0.05, however large the difference."""
    names = [number % clusters for number in range(60)]
    a = np.linspace(0.0, 0.1, 60)
    found = smallest_difference(a, a + 0.8, clusters=names)
    assert (found is not None) == possible
    assert (paired_permutation(a, a + 0.8, clusters=names) <= 0.05) == possible


def test_no_smallest_difference_is_larger_than_scores_can_differ() -> None:
    names = [number % 6 for number in range(12)]
    assert smallest_difference([0.0, 1.0] * 6, [1.0, 0.0] * 6, clusters=names) is None


def test_where_no_cluster_differs_the_smallest_difference_is_that_of_whole_clusters() -> None:
    """Six of 100 clusters must change, all one way: the exact test of single answers says the same."""
    scores = np.repeat([0.0, 1.0], 150)
    names = [number // 3 for number in range(300)]
    found, single = smallest_difference(scores, scores, clusters=names), smallest_for_sign_test(100, 0, alpha=0.05)
    assert found == pytest.approx(single, rel=0.02)


def test_intervals_over_seeds_stay_within_what_scores_can_differ() -> None:
    rng = np.random.default_rng(0)
    runs = (rng.random((4, 10)) < np.array([[0.1], [0.9], [0.2], [0.95]])).astype(float)[:, :, None]
    stack = Stack("x", mean_measure("mean", bounded=True), 10, [np.arange(10)], [runs])
    analysis = Analysis(stack, replicates=200, permutations=1, seed=0, level=0.95)
    assert analysis.difference([0, 1], [2, 3], [0]).interval == (-1.0, 1.0)
