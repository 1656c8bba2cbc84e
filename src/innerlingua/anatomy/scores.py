"""From router logits to the routing distribution: a probability over all routed experts, before top-k.

Shapes: logits, scores and distribution are (..., experts). They are float32 whatever the logits are, because the mean
over hundreds of tokens and the logarithm of that mean are too coarse in bfloat16.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from innerlingua.anatomy.families import Score
from innerlingua.errors import ModelError, nearest

__all__ = ["SCORES", "check_score", "expert_scores", "routing_distribution"]

SCORES: tuple[str, ...] = get_args(Score)


def check_score(score: str | None) -> str | None:
    """`score` itself; None stands for that of the family. Raises `ModelError` for a word that is not in `SCORES`."""
    if score is not None and score not in SCORES:
        raise ModelError(f"unknown score function {score!r}{nearest(str(score), SCORES)}")
    return score


def expert_scores(logits: Tensor, score: str) -> Tensor:
    """The score of every expert before it is divided by their sum, float32, shape of `logits`.

    `score` is a word of `SCORES` (see `innerlingua.anatomy.families` for which family has which, and why). Raises
    `ModelError` for any other word.
    """
    if score == "softmax":
        return torch.softmax(logits, dim=-1, dtype=torch.float32)
    if score == "sigmoid_normalised":
        return torch.sigmoid(logits.float())
    if score == "sqrtsoftplus_normalised":
        return torch.nn.functional.softplus(logits.float()).sqrt()
    raise ModelError(f"unknown score function {score!r}{nearest(score, SCORES)}")


def routing_distribution(logits: Tensor, score: str) -> Tensor:
    """The routing distribution of each token, float32, shape of `logits`; rows sum to one. `score` as
    `expert_scores`."""
    scores = expert_scores(logits, score)
    return scores if score == "softmax" else scores / scores.sum(dim=-1, keepdim=True)
