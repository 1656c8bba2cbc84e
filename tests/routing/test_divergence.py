from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from innerlingua.routing import js_divergence
from innerlingua.routing.divergence import js_unchecked


def distributions(*shape: int, seed: int = 0, zeros: bool = False) -> Tensor:
    p = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if zeros:
        p[..., ::3] = 0
    return p / p.sum(dim=-1, keepdim=True)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], 0.0),
        ([1.0, 0.0], [0.0, 1.0], math.log(2)),
        ([0.5, 0.0, 0.5], [0.0, 1.0, 0.0], math.log(2)),
        # m = (3/4, 1/4): 1/2 [1/2 ln(2/3) + 1/2 ln 2] + 1/2 ln(4/3) = 3/2 ln 2 - 3/4 ln 3
        ([0.5, 0.5], [1.0, 0.0], 1.5 * math.log(2) - 0.75 * math.log(3)),
        ([0.5, 0.5], [1.0, 0.0], 0.2157616),
    ],
)
def test_closed_forms(p: list[float], q: list[float], expected: float) -> None:
    actual = js_divergence(torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64))
    assert actual.dtype == torch.float64
    assert float(actual) == pytest.approx(expected, abs=1e-7 if expected == 0.2157616 else 1e-15)


def test_symmetric() -> None:
    p, q = distributions(100, 16), distributions(100, 16, seed=1)
    assert torch.allclose(js_divergence(p, q), js_divergence(q, p), rtol=0, atol=1e-12)


@pytest.mark.parametrize("zeros", [False, True])
def test_equals_scipy(zeros: bool) -> None:
    p, q = distributions(50, 16, zeros=zeros), distributions(50, 16, seed=1)
    expected = jensenshannon(p.numpy(), q.numpy(), axis=-1) ** 2
    assert np.allclose(js_divergence(p, q).numpy(), expected, rtol=0, atol=1e-12)


def test_between_zero_and_log_two() -> None:
    logits = torch.randn(2, 500, 8, generator=torch.Generator().manual_seed(0)) * 8
    p, q = logits.softmax(dim=-1)
    divergence = js_divergence(p, q)
    assert float(divergence.min()) > 0
    assert float(divergence.max()) <= math.log(2) + 1e-6


def test_gradcheck() -> None:
    # Through softmax, so that the perturbed points stay distributions.
    def through_softmax(a: Tensor, b: Tensor) -> Tensor:
        return js_divergence(a.softmax(dim=-1), b.softmax(dim=-1))

    a, b = (torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert torch.autograd.gradcheck(through_softmax, (a.requires_grad_(), b.requires_grad_()))


def test_gradient_is_half_the_log_ratio_to_the_mean() -> None:
    p, q = distributions(4, 6), distributions(4, 6, seed=1).requires_grad_()
    js_divergence(p, q).sum().backward()
    assert torch.allclose(q.grad, 0.5 * (q / ((p + q) / 2)).log(), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite_at_zeros(dtype: torch.dtype) -> None:
    p = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], dtype=dtype).requires_grad_()
    q = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=dtype).requires_grad_()
    divergence = js_divergence(p, q)
    divergence.sum().backward()
    assert torch.allclose(divergence, torch.tensor([math.log(2), 0.2157616, 0.0], dtype=dtype), atol=1e-6)
    assert bool(torch.isfinite(p.grad).all())
    assert bool(torch.isfinite(q.grad).all())
    # An outcome that p has and q lacks is pulled up.
    assert float(q.grad[0, 0]) < -10


def test_gradient_through_a_softmax_that_underflows_is_finite() -> None:
    logits = torch.tensor([[0.0, -200.0, 3.0], [200.0, -200.0, 0.0]]).requires_grad_()
    js_divergence(torch.tensor([0.2, 0.3, 0.5]), logits.softmax(dim=-1)).sum().backward()
    assert bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad.abs().max()) > 0


def test_bfloat16_is_computed_in_float32() -> None:
    p, q = distributions(20, 16).bfloat16(), distributions(20, 16, seed=1).bfloat16()
    actual = js_divergence(p, q)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, js_divergence(p.float(), q.float()))


def test_the_wider_type_wins() -> None:
    assert js_divergence(distributions(4).float(), distributions(4, seed=1)).dtype == torch.float64


def test_other_dimensions_broadcast() -> None:
    p, q = distributions(5, 1, 8), distributions(3, 8, seed=1)
    actual = js_divergence(p, q)
    assert actual.shape == (5, 3)
    for row in range(5):
        for column in range(3):
            assert float(actual[row, column]) == pytest.approx(float(js_divergence(p[row, 0], q[column])), abs=1e-15)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [((3, 2, 8), (3, 1, 8), (3, 2)), ((8,), (4, 8), (4,)), ((5, 1, 8), (1, 3, 8), (5, 3)), ((0, 8), (8,), (0,))],
)
def test_shapes_broadcast_as_everywhere_in_torch(
    p: tuple[int, ...], q: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    left, right = distributions(*p), distributions(*q, seed=1)
    actual = js_divergence(left, right)
    assert actual.shape == expected
    spread = js_divergence(left.expand(*expected, 8), right.expand(*expected, 8))
    assert torch.equal(actual, spread)


class TestRefusals:
    def test_other_outcomes(self) -> None:
        with pytest.raises(ValueError, match="p has 8 outcomes and q has 7"):
            js_divergence(distributions(2, 8), distributions(2, 7))

    def test_shapes_that_do_not_broadcast(self) -> None:
        with pytest.raises(ValueError, match=r"p \(3, 8\) and q \(2, 8\) do not broadcast"):
            js_divergence(distributions(3, 8), distributions(2, 8))

    @pytest.mark.parametrize("side", ["p", "q"])
    def test_logits(self, side: str) -> None:
        good = distributions(2, 3, 4)
        bad = good.clone()
        bad[1, 2] = torch.tensor([0.5, -0.25, 0.5, 0.25])
        given = (bad, good) if side == "p" else (good, bad)
        with pytest.raises(ValueError, match=rf"{side}\[1, 2\] is no probability .* negative number \(-0.25\)"):
            js_divergence(*given)

    def test_counts(self) -> None:
        with pytest.raises(ValueError, match=r"q is no probability distribution: it has the sum 7\. Of logits"):
            js_divergence(torch.tensor([0.5, 0.5]), torch.tensor([3, 4]))

    def test_a_row_of_zeros(self) -> None:
        with pytest.raises(ValueError, match=r"p\[0\] is no probability distribution: it has the sum 0"):
            js_divergence(torch.zeros(2, 4), distributions(2, 4))

    @pytest.mark.parametrize("given", [[0.5, 0.5], np.array([0.5, 0.5]), torch.tensor(1.0)])
    def test_what_is_no_tensor_of_probabilities(self, given: Any) -> None:
        with pytest.raises(ValueError, match="p must be a tensor of probabilities"):
            js_divergence(given, distributions(2))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("experts", [8, 128, 512])
    def test_the_rounding_of_half_precision_is_no_fault(self, dtype: torch.dtype, experts: int) -> None:
        logits = torch.randn(200, experts, generator=torch.Generator().manual_seed(0))
        p = logits.softmax(dim=-1).to(dtype)
        assert float((p.float().sum(dim=-1) - 1).abs().max()) > 1e-5
        assert js_divergence(p, p).abs().max() == 0

    def test_sums_that_float32_could_not_give(self) -> None:
        p = distributions(5, 64).float()
        js_divergence(p, p * (1 + 1e-5))
        with pytest.raises(ValueError, match=r"the sum 1\.005"):
            js_divergence(p, p * 1.005)


@pytest.mark.parametrize("divergence", [js_divergence, js_unchecked])
def test_nan_gives_nan_in_its_row_alone(divergence: Callable[[Tensor, Tensor], Tensor]) -> None:
    p, q = distributions(4, 6), distributions(4, 6, seed=1)
    broken_p, broken_q = p.clone(), q.clone()
    broken_p[1, 2] = float("nan")
    broken_q[3] = float("nan")
    actual = divergence(broken_p, broken_q)
    assert actual.isnan().tolist() == [False, True, False, True]
    assert torch.equal(actual[[0, 2]], divergence(p, q)[[0, 2]])


def test_the_unchecked_one_is_the_same_on_probabilities_and_looks_at_no_number() -> None:
    p, q = distributions(4, 6), distributions(4, 6, seed=1)
    assert torch.equal(js_unchecked(p, q), js_divergence(p, q))
    # On the meta device there are no numbers to look at: whoever synchronises fails here.
    meta = torch.zeros(4, 6, device="meta")
    assert js_unchecked(meta, meta).shape == (4,)
    with pytest.raises((NotImplementedError, RuntimeError)):
        js_divergence(meta, meta)
