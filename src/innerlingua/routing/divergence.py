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

__all__ = ["js_divergence"]


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of `p` and `q` in nats, over the last dimension.

    `p` and `q` are probabilities of the same number of outcomes; their other dimensions broadcast. Computed in
    float32, or in float64 when given it. Values and gradients are finite at zeros. Shape: that of `p` and `q` without
    the last dimension. Raises `ValueError` when they are over different numbers of outcomes.
    """
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(f"p has {p.shape[-1]} outcomes and q has {q.shape[-1]}: they must be over the same ones")
    dtype = torch.promote_types(torch.promote_types(p.dtype, q.dtype), torch.float32)
    p, q = p.to(dtype), q.to(dtype)
    mean = (p + q) / 2
    # Rounding can push a divergence of nearly equal distributions below zero by an ulp; it is left, since a clamp would
    # take the gradient away just where training ends up.
    return (_relative(p, mean) + _relative(q, mean)).sum(dim=-1) / 2


def _relative(p: Tensor, mean: Tensor) -> Tensor:
    """The summands p log(p / mean), 0 where p is 0."""
    tiny = torch.finfo(p.dtype).tiny
    return p * (p.clamp(min=tiny).log() - mean.clamp(min=tiny).log())
