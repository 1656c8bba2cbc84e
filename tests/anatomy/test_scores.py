from __future__ import annotations

import pytest
import torch

from innerlingua.anatomy import SCORES, routing_distribution
from innerlingua.errors import ModelError


def test_softmax_of_two_equal_and_one_twice_as_likely() -> None:
    logits = torch.tensor([1.0, 1.0, 2.0]).log() + 5  # a shift changes nothing
    assert torch.allclose(routing_distribution(logits, "softmax"), torch.tensor([0.25, 0.25, 0.5]))


def test_sigmoid_scores_are_normalised_over_all_experts() -> None:
    # sigmoid(0) = 1/2 and sigmoid(ln 3) = 3/4: proportions 2 : 2 : 3, where a softmax would give 1 : 1 : 3.
    logits = torch.tensor([0.0, 0.0, 3.0]).clamp(min=1).log()
    assert torch.allclose(routing_distribution(logits, "sigmoid_normalised"), torch.tensor([2.0, 2.0, 3.0]) / 7)


@pytest.mark.parametrize("score", SCORES)
def test_the_distribution_is_float32_and_keeps_the_order_of_the_logits(score: str) -> None:
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    p = routing_distribution(logits, score)
    assert p.dtype == torch.float32
    assert torch.allclose(p.sum(dim=-1), torch.ones(50), atol=1e-6)
    gap_in_logits = logits.float().unsqueeze(-1) - logits.float().unsqueeze(-2)
    gap = p.unsqueeze(-1) - p.unsqueeze(-2)
    assert bool((gap * gap_in_logits >= 0).all())


@pytest.mark.parametrize("score", SCORES)
def test_bfloat16_logits_are_computed_in_float32(score: str) -> None:
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(routing_distribution(logits, score), routing_distribution(logits.float(), score))


def test_an_unknown_score_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean 'softmax'"):
        routing_distribution(torch.zeros(2), "softmaxx")
