"""The Poisson bootstrap: its weights, and the coverage of its intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from innerlingua.routing.profile.bootstrap import interval, poisson_weights
from innerlingua.routing.profile.measures import dead_experts, expert_shares, load_variation
from innerlingua.routing.profile.record import interval_kind


def _ids(number: int, run: int = 0) -> list[str]:
    return [f"{run}/{at}" for at in range(number)]


def test_weights_have_the_frequencies_of_a_poisson_variable() -> None:
    weights = poisson_weights(_ids(2000), seed=3, replicates=200)
    shares = np.bincount(weights.astype(int).ravel(), minlength=5)[:5] / weights.size
    expected = [np.exp(-1) / n for n in (1, 1, 2, 6, 24)]
    assert shares == pytest.approx(expected, abs=3e-3)
    assert weights.var() == pytest.approx(1, abs=0.01)


def test_weights_are_independent_between_ids_and_between_replicates() -> None:
    weights = poisson_weights(_ids(400), seed=0, replicates=200)
    for table in (weights, weights.T):
        correlation = np.corrcoef(table)
        np.fill_diagonal(correlation, 0)
        assert abs(correlation).max() < 6 / np.sqrt(table.shape[1])


def test_a_weight_depends_on_seed_and_id_alone() -> None:
    together = poisson_weights(["a", "b", "c"], seed=1, replicates=50)
    assert np.array_equal(together[1:2], poisson_weights(["b"], seed=1, replicates=50))
    assert np.array_equal(together[:, :20], poisson_weights(["a", "b", "c"], seed=1, replicates=20))
    assert not np.array_equal(together[1:2], poisson_weights(["b"], seed=2, replicates=50))


def test_replicates_without_a_sentence_are_left_out() -> None:
    replicates = torch.tensor([[1.0], [torch.nan], [2.0], [3.0]])
    low, high = interval(replicates, torch.tensor([2.0]))
    assert 1 <= float(low) <= float(high) <= 3


def _coverage(estimate: object, *, truth: float, runs: int, sentences: int, kind: str, draw: object) -> float:
    inside = 0
    for run in range(runs):
        data = draw(np.random.default_rng(run), sentences)  # type: ignore[operator]
        weights = torch.from_numpy(poisson_weights(_ids(sentences, run), seed=7, replicates=200)).double()
        point = estimate(torch.ones(1, sentences, dtype=torch.float64), data)[0]  # type: ignore[operator]
        low, high = interval(estimate(weights.T, data), point, kind=kind)  # type: ignore[operator,arg-type]
        inside += bool(low <= truth <= high)
    return inside / runs


def _mean(weights: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    return (weights @ data) / weights.sum(dim=1)


def test_the_interval_of_a_mean_covers_it() -> None:
    # JS by sentence is skewed: an exponential variable, mean 0.1.
    found = _coverage(
        _mean, truth=0.1, runs=400, sentences=100, kind="percentile",
        draw=lambda g, n: torch.from_numpy(g.exponential(0.1, n)),
    )  # fmt: skip
    assert 0.91 <= found <= 0.98  # 0.95 less the known lack of a percentile interval, +- 3 standard errors


def test_the_interval_of_a_ratio_over_tokens_covers_it() -> None:
    def draw(generator: np.random.Generator, number: int) -> torch.Tensor:
        tokens = generator.integers(5, 60, number)
        return torch.from_numpy(np.stack([generator.normal(1.5, 0.3, number) * tokens, tokens], axis=1))

    def ratio(weights: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        sums = weights @ data
        return sums[:, 0] / sums[:, 1]

    assert 0.91 <= _coverage(ratio, truth=1.5, runs=400, sentences=100, kind="percentile", draw=draw) <= 0.98


LOAD = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])


def _draw_load(generator: np.random.Generator, number: int) -> torch.Tensor:
    # Each sentence leans to experts of its own: counts are more spread than a multinomial.
    leaning = generator.dirichlet(20 * LOAD, number)
    return torch.from_numpy(np.stack([generator.multinomial(60, p) for p in leaning]).astype(float))


def test_the_interval_of_load_variation_covers_it() -> None:
    truth = float(load_variation(torch.from_numpy(LOAD)))
    found = _coverage(
        lambda weights, data: load_variation(weights @ data),
        truth=truth, runs=400, sentences=80, kind="basic", draw=_draw_load,
    )  # fmt: skip
    assert 0.91 <= found <= 0.98


def test_the_interval_of_dead_experts_reaches_down_to_the_truth() -> None:
    # Two experts are so rare that most samples miss one of them, and none is dead in truth.
    rare = np.array([0.996 / 4] * 4 + [0.002, 0.002])

    def draw(generator: np.random.Generator, number: int) -> torch.Tensor:
        return torch.from_numpy(generator.multinomial(10, rare, number).astype(float))

    def dead(weights: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return dead_experts(weights @ data).double()

    def covered(kind: str) -> float:
        return _coverage(dead, truth=0.0, runs=200, sentences=60, kind=kind, draw=draw)

    assert covered("basic") > covered("percentile")


@pytest.mark.parametrize(("experts", "languages", "top"), [(64, 5, 15), (16, 4, 4)])
def test_the_intervals_of_shares_of_experts_cover_them(experts: int, languages: int, top: int) -> None:
    generator = np.random.default_rng(0)
    own, common = generator.dirichlet(np.full(experts, 0.5), languages), generator.dirichlet(np.full(experts, 0.5))
    load = 0.6 * own + 0.4 * common
    truth = expert_shares(torch.from_numpy(load)[:, None], top=top, threshold=0.4)
    runs, sentences = 100, 60
    covered = torch.zeros(2, languages)
    for run in range(runs):
        draw = np.random.default_rng(run + 1)
        rows = [[draw.multinomial(40, draw.dirichlet(20 * row + 1e-9)) for _ in range(sentences)] for row in load]
        counts = torch.from_numpy(np.array(rows)).double()
        weights = torch.from_numpy(poisson_weights(_ids(sentences, run), seed=7, replicates=200)).double()
        # Replicates take the place of layers.
        drawn = expert_shares(torch.einsum("nr,gne->gre", weights, counts), top=top, threshold=0.4)
        points = expert_shares(counts.sum(dim=1)[:, None], top=top, threshold=0.4)
        for at, name in enumerate(("shared_experts", "exclusive_experts")):
            low, high = interval(drawn[at].T, points[at][:, 0], kind=interval_kind(name))
            covered[at] += (low <= truth[at][:, 0] + 1e-9) & (truth[at][:, 0] <= high + 1e-9)
    # Shares move in steps, so that intervals are wide: they may cover more than they promise.
    assert float(covered.mean() / runs) > 0.94
    assert float(covered.min() / runs) > 0.85
