"""Measures: closed forms, properties, and the rule for layers."""

from __future__ import annotations

import math

import pytest
import torch

from innerlingua.routing.divergence import js_divergence
from innerlingua.routing.profile import format_layers, suggest_layers
from innerlingua.routing.profile.measures import (
    dead_experts,
    expert_overlap,
    expert_shares,
    load_variation,
    most_used,
    normalised_js_divergence,
    pairwise_js,
)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.softmax(
        3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), -1
    )


def test_normalised_js_of_a_distribution_with_itself_is_zero() -> None:
    p = _random(7, 16)
    assert torch.equal(normalised_js_divergence(p, p), torch.zeros(7, dtype=torch.float64))


@pytest.mark.parametrize("experts", [2, 8, 128])
def test_normalised_js_of_disjoint_one_hots(experts: int) -> None:
    p, q = torch.eye(experts, dtype=torch.float64)[:2]
    assert float(normalised_js_divergence(p, q)) == pytest.approx(math.log(2) / math.log(experts), abs=1e-12)


def test_normalised_js_of_two_uniform_distributions_is_zero_and_not_nan() -> None:
    p = torch.full((8,), 1 / 8, dtype=torch.float64)
    assert float(normalised_js_divergence(p, p)) == 0.0


def test_normalised_js_lies_between_zero_and_one() -> None:
    value = normalised_js_divergence(_random(10_000, 8), _random(10_000, 8, seed=1))
    assert float(value.min()) >= 0
    assert float(value.max()) <= 1
    assert float(value.max()) > 0.5  # not all near one end


def test_normalised_js_is_one_where_the_mean_is_uniform() -> None:
    p = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    assert float(normalised_js_divergence(p, p.flip(0))) == pytest.approx(1.0, abs=1e-12)


def test_pairwise_js_is_js_of_each_pair() -> None:
    p = _random(5, 3, 8)
    first, second, value = pairwise_js(p)
    assert len(value) == 10
    torch.testing.assert_close(value, js_divergence(p[first], p[second]), atol=1e-14, rtol=0)


def test_ties_in_use_go_to_the_higher_mean_routing() -> None:
    counts = torch.tensor([2.0, 1.0, 1.0, 0.0])
    assert most_used(counts, torch.tensor([0.1, 0.1, 0.2, 0.6]), 2).tolist() == [True, False, True, False]


def test_overlap_of_sets_that_share_one_of_three() -> None:
    a = torch.tensor([True, True, False, False])
    assert float(expert_overlap(a, a.roll(1))) == pytest.approx(1 / 3)
    assert float(expert_overlap(a, a)) == 1
    assert float(expert_overlap(a, ~a)) == 0


def test_load_variation_of_balance_and_of_one_expert() -> None:
    assert float(load_variation(torch.full((16,), 3.0))) == 0
    assert float(load_variation(torch.eye(16)[0])) == pytest.approx(math.sqrt(15), rel=1e-6)


def test_dead_experts_are_those_without_use() -> None:
    assert dead_experts(torch.tensor([[0.0, 2.0, 0.0], [1.0, 1.0, 1.0]])).tolist() == [2, 0]


def _planted() -> torch.Tensor:
    # Expert 3 is language 1's alone; expert 0 is used by all alike; experts 1 and 2 by languages 0 and 2.
    return torch.tensor([[[4.0, 2.0, 2.0, 0.0]], [[4.0, 0.0, 0.0, 4.0]], [[4.0, 2.0, 2.0, 0.0]]])


def test_a_planted_exclusive_expert_is_found() -> None:
    shared, exclusive = expert_shares(_planted(), top=4, threshold=0.6)
    assert exclusive.flatten().tolist() == pytest.approx([0, 1 / 2, 0])
    assert shared.flatten().tolist() == pytest.approx([1, 1 / 2, 1])


def test_no_share_is_above_a_threshold_of_one() -> None:
    assert float(expert_shares(_planted(), top=4, threshold=1.0)[1].max()) == 0


def test_shares_do_not_depend_on_how_much_text_a_language_has() -> None:
    more = _planted() * torch.tensor([1.0, 50.0, 7.0])[:, None, None]
    pairs = zip(expert_shares(_planted(), top=3, threshold=0.4), expert_shares(more, top=3, threshold=0.4), strict=True)
    for before, after in pairs:
        torch.testing.assert_close(before, after)


def _u_shape(depth: int, low: int, high: int) -> list[float]:
    return [0.05 if low <= layer <= high else 0.3 for layer in range(depth)]


@pytest.mark.parametrize(("depth", "low", "high"), [(48, 10, 30), (48, 20, 29), (8, 2, 4), (10, 1, 2)])
def test_a_trough_is_found(depth: int, low: int, high: int) -> None:
    found = suggest_layers(_u_shape(depth, low, high), list(range(depth)), depth)
    assert (found.layers, found.trough) == (list(range(low, high + 1)), True)


@pytest.mark.parametrize("curve", [_u_shape(48, 20, 28), [0.2] * 48, [0.1, *[0.3] * 46, 0.1]])
def test_no_trough_gives_the_middle_of_the_depth(curve: list[float]) -> None:
    found = suggest_layers(curve, list(range(48)), 48)
    assert (found.layers, found.trough) == (list(range(7, 35)), False)
    assert found.rule.startswith("no trough")


def test_of_two_runs_the_longer_wins_and_dense_layers_count_in_the_depth() -> None:
    layers = list(range(2, 22))
    curve = [0.3 if layer in (2, 3, 7, 20, 21) else 0.05 for layer in layers]
    found = suggest_layers(curve, layers, 22)
    assert found.layers == list(range(8, 20))


def test_the_limit_is_a_quarter_of_the_way_from_the_lowest_to_the_edge() -> None:
    # Edge 0.5, lowest 0.1: the limit is 0.2.
    curve = [0.5, 0.199, 0.1, 0.201, 0.5]
    assert suggest_layers(curve, list(range(5)), 5).layers == [1, 2]


def test_layers_as_a_recipe_writes_them() -> None:
    assert format_layers([3, 4, 5, 9, 12, 11]) == "3-5, 9, 11-12"
