"""Divergences between routing distributions. Pure functions over the last dimension, natural logarithm.

    JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2        m = (p + q) / 2,   in [0, ln 2]

This is the symmetric Jensen-Shannon divergence of SARA's alignment loss (Dong et al., Findings of ACL 2026). Its
gradient with respect to q is log(q / m) / 2, which has no finite value where q is 0 and p is not; a softmax gives no
exact zeros in exact arithmetic but does in floating point, so the logarithm's argument is kept above the smallest
normal number.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["js_divergence", "js_unchecked"]

# How far a sum of probabilities may be from 1. Each of many bfloat16 probabilities is off by up to 1 part in 256.
_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 5e-3}


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of `p` and `q` in nats, over the last dimension.

    `p` and `q` are probabilities of the same number of outcomes. Their other dimensions broadcast as everywhere in
    torch: (3, 1, 8) against (3, 2, 8) gives (3, 2). Computed in float32, or in float64 when given it. Values and
    gradients are finite at zeros; where an input is NaN, so is the result.

    Raises `ValueError` when they are over different numbers of outcomes or do not broadcast, and when one is no
    distribution: a negative number, or a sum that is not 1 (logits, counts, unnormalised scores). Looking at the
    numbers costs one synchronisation with a GPU; `innerlingua.routing.divergence.js_unchecked` does without.
    """
    for name, values in (("p", p), ("q", q)):
        if not isinstance(values, Tensor) or values.dim() == 0:
            raise ValueError(f"{name} must be a tensor of probabilities over its last dimension, not {values!r}")
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(f"p has {p.shape[-1]} outcomes and q has {q.shape[-1]}: they must be over the same ones")
    try:
        torch.broadcast_shapes(p.shape, q.shape)  # type: ignore[no-untyped-call]  # torch's own is not
    except RuntimeError as error:
        raise ValueError(f"p {tuple(p.shape)} and q {tuple(q.shape)} do not broadcast") from error
    for name, values in (("p", p), ("q", q)):
        _check_distribution(name, values.detach())
    return js_unchecked(p, q)


def js_unchecked(p: Tensor, q: Tensor) -> Tensor:
    """`js_divergence` without a look at the numbers, for loops that must not wait for a GPU."""
    dtype = torch.promote_types(torch.promote_types(p.dtype, q.dtype), torch.float32)
    p, q = p.to(dtype), q.to(dtype)
    mean = (p + q) / 2
    # Rounding can push a divergence of nearly equal distributions below zero by an ulp; it is left, since a clamp would
    # take the gradient away just where training ends up.
    return (_relative(p, mean) + _relative(q, mean)).sum(dim=-1) / 2


def _check_distribution(name: str, values: Tensor) -> None:
    """Raise `ValueError` unless all rows of `values` are probabilities. NaN is let through: it shows in the result."""
    exact = values.to(torch.promote_types(values.dtype, torch.float32))
    gap = (exact.sum(dim=-1) - 1).abs()
    wrong = (exact < 0).any(dim=-1) | (gap > _TOLERANCE.get(values.dtype, 1e-3))
    if not bool(wrong.any()):
        return
    place = wrong.nonzero()[0].tolist()
    row = exact[tuple(place)]
    what = f"a negative number ({row.min().item():.4g})" if bool((row < 0).any()) else f"the sum {row.sum().item():.4g}"
    where = f"{name}{place if place else ''}"
    raise ValueError(f"{where} is no probability distribution: it has {what}. Of logits, take the softmax first")


def _relative(p: Tensor, mean: Tensor) -> Tensor:
    """The summands p log(p / mean), 0 where p is 0."""
    tiny = torch.finfo(p.dtype).tiny
    return p * (p.clamp(min=tiny).log() - mean.clamp(min=tiny).log())
