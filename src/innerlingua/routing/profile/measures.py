"""What is measured on pooled routing and on the counts of chosen experts. Pure functions, natural logarithm.

| measure | of | equation | source |
|---|---|---|---|
| JS | a pair | `js_divergence(p, q)` | SARA (Dong et al., Findings of ACL 2026) |
| normalised JS | a pair | JS(p, q) / (log E - (H(p) + H(q)) / 2), in [0, 1] | Bandarkar et al., arXiv 2510.04694 |
| overlap | a pair | Jaccard of the k most used experts of each side | common; the ranking of a tie is our choice |
| load variation | a language | standard deviation / mean of the experts' shares of all choices | common |
| shared, exclusive experts | all languages | `expert_shares` | Chen et al., arXiv 2601.14050 |

Shape letters: N sentences or pairs, G languages, L layers, E experts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from innerlingua.routing.divergence import js_unchecked

__all__ = [
    "dead_experts",
    "entropy",
    "expert_overlap",
    "expert_shares",
    "load_variation",
    "most_used",
    "normalised_js_divergence",
    "pairwise_js",
]


def entropy(p: Tensor) -> Tensor:
    """The entropy of `p` in nats, over the last dimension; 0 log 0 is 0."""
    terms: Tensor = torch.special.entr(p)
    return terms.sum(dim=-1)


def normalised_js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """JS divided by what it could be at most given both entropies; in [0, 1], over the last dimension.

    JS = H(m) - (H(p) + H(q)) / 2 with H(m) <= log E, so the ratio is 1 when the mean m is uniform. Two uniform
    distributions give 0 / 0, which is defined as 0. Source: Bandarkar et al., arXiv 2510.04694. Give it float64: near
    that point both terms are differences of almost equal numbers.
    """
    room = math.log(p.shape[-1]) - (entropy(p) + entropy(q)) / 2
    degenerate = room < 1e-9
    ratio = js_unchecked(p, q) / room.masked_fill(degenerate, 1.0)
    return ratio.masked_fill(degenerate, 0.0).clamp(0.0, 1.0)


def pairwise_js(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """JS of every two of N distributions `p` (N, L, E): (first index, second index, JS (N (N - 1) / 2, L)).

    By JS = H(m) - (H(p) + H(q)) / 2: one logarithm for each pair instead of four. Give it float64, since this form is a
    difference of entropies. O(N^2 L E).
    """
    first, second = torch.triu_indices(p.shape[0], p.shape[0], offset=1, device=p.device)
    own = entropy(p)
    mixed = entropy((p[first] + p[second]) / 2)
    return first, second, mixed - (own[first] + own[second]) / 2


def most_used(counts: Tensor, pooled: Tensor, k: int) -> Tensor:
    """Which experts are among the k most used of each sentence: booleans of the shape of `counts`, (..., E).

    `counts` says how many tokens chose an expert. Equal counts, frequent in short sentences, are ranked by the mean
    routing `pooled`, which is below 1 and so never outweighs a count.
    """
    chosen = (counts + pooled).topk(k, dim=-1).indices
    return torch.zeros(counts.shape, dtype=torch.bool, device=counts.device).scatter_(-1, chosen, True)


def expert_overlap(a: Tensor, b: Tensor) -> Tensor:
    """The Jaccard index of two sets of experts, given as booleans (..., E); shape (...), float64. Two empty sets give
    0."""
    both = (a & b).sum(dim=-1).double()
    either = (a | b).sum(dim=-1)
    return both / either.clamp(min=1)


def load_variation(load: Tensor) -> Tensor:
    """The coefficient of variation of the experts' load over the last dimension: 0 is balanced, sqrt(E - 1) one expert
    only.

    `load` may be counts or shares. Without any load it is not a number.
    """
    return load.std(dim=-1, correction=0) / load.mean(dim=-1)


def dead_experts(load: Tensor) -> Tensor:
    """How many experts were never chosen, over the last dimension."""
    return (load == 0).sum(dim=-1)


def expert_shares(load: Tensor, *, top: int, threshold: float) -> tuple[Tensor, Tensor]:
    """What share of each language's main experts is shared with others, and what share belongs to it: two (G, L).

    `load` is (G, L, E), counts or shares. Of each language and layer the `top` most frequent experts are kept (those
    with a frequency above 0). An expert's frequency in a language divided by the sum over languages is that language's
    share in the expert. An expert is exclusive to a language when that share is above `threshold`; it is shared when no
    language's share reaches it. What remains of a language's experts belongs to another language. Rule: Chen et al.,
    arXiv 2601.14050; that the result is given per language, as a share of its kept experts, is our choice.
    """
    frequency = load / load.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(load.dtype).tiny)
    values, indices = frequency.topk(min(top, frequency.shape[-1]), dim=-1)
    kept = torch.zeros_like(frequency).scatter_(-1, indices, values)
    total = kept.sum(dim=0)
    share = kept / total.masked_fill(total == 0, 1.0)
    mine = share > 0
    common = mine & (share.amax(dim=0) < threshold)
    number = mine.sum(dim=-1).clamp(min=1).double()
    return common.sum(dim=-1) / number, (share > threshold).sum(dim=-1) / number
