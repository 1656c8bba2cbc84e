"""From router logits to the experts that are used: what a family's row says, computed once more and independently.

    rank_e = score(z)_e + bias_e        (or z_e + bias_e), outside the best groups the masked score
    chosen = the k experts with the largest rank

Shapes: logits (N, E), ranks (N, E), chosen (N, k) for N tokens. Groups are those of DeepSeek-V2 and V3 (arXiv
2405.04434, 2412.19437): E experts in G groups, a group as good as its best or the sum of its two best experts, the
best few groups kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from innerlingua.anatomy.layers import MoELayer, logits_position, reach
from innerlingua.anatomy.scores import expert_scores
from innerlingua.anatomy.sharding import whole

__all__ = ["chosen_experts", "dispatch_weights", "expert_ranks"]


def expert_ranks(layer: MoELayer, logits_NE: Tensor) -> Tensor:
    """What the experts are chosen by, (N, E) float32: the larger, the earlier. Follows the family's row."""
    family = layer.family
    plain = family.bias is None and family.groups is None
    # Every score rises with the logit, so that the logits themselves rank; they do not lose digits near 0 and 1.
    ranks_NE = logits_NE.float() if plain or family.bias_on == "logits" else expert_scores(logits_NE, layer.score)
    if family.bias is not None:
        bias = reach(family.bias, layer.router, layer.block)
        if bias is not None:
            ranks_NE = ranks_NE + whole(bias.detach()).float().reshape(-1).to(ranks_NE.device)
    return _within_best_groups(layer, ranks_NE) if family.groups is not None else ranks_NE


def chosen_experts(layer: MoELayer, logits: Tensor, output: Any) -> Tensor | None:
    """The experts that the router named for each token, (N, k) integers; None when its output does not name them.

    `logits` and `output` are what `on_routing` gives. Where only the block chooses, the choice is computed from the
    row.
    """
    family = layer.family
    outputs = output if isinstance(output, tuple) else (output,)
    if isinstance(output, Tensor):
        return expert_ranks(layer, logits.detach().reshape(-1, layer.num_experts)).topk(layer.top_k).indices
    if family.chosen == "scores":
        dense_NE = next(value for position, value in enumerate(outputs) if position != logits_position(layer, outputs))
        chosen: Tensor = dense_NE.reshape(-1, layer.num_experts).topk(layer.top_k).indices
        return chosen
    if family.chosen == "sorted":
        return _unsorted(layer, outputs)
    integers = (value for value in outputs if isinstance(value, Tensor) and not value.is_floating_point())
    found = next(integers, None)
    if found is None:
        return None
    found = found.reshape(-1, layer.top_k)
    if family.last_skips:
        weights = dispatch_weights(layer, output, found)
        if weights is not None:
            found = found.masked_fill(weights == 0, layer.num_experts - 1)
    return found


def dispatch_weights(layer: MoELayer, output: Any, chosen_Nk: Tensor) -> Tensor | None:
    """The weights that the router gave to the chosen experts, (N, k) float32, before any scale per expert; None if
    none.

    They are the first floating-point tensor of that size beside the logits.
    """
    outputs = output if isinstance(output, tuple) else (output,)
    if layer.family.chosen == "sorted":
        return None  # in the order of the sorting
    logits_at = None if layer.family.logits or isinstance(output, Tensor) else logits_position(layer, outputs)
    given = [
        value.detach().float()
        for position, value in enumerate(outputs)
        if position != logits_at and isinstance(value, Tensor) and value.is_floating_point()
    ]
    if layer.family.chosen == "scores":
        return given[0].reshape(-1, layer.num_experts).gather(1, chosen_Nk)
    if isinstance(output, Tensor):
        return None
    weights = next((value for value in given if value.numel() == chosen_Nk.numel()), None)
    if weights is None:
        return None
    weights = weights.reshape(-1, layer.top_k)
    if layer.family.expert_scale is not None:
        scale_E = whole(reach(layer.family.expert_scale, layer.router).detach()).float()
        weights = weights / scale_E[chosen_Nk]
    return weights


def _within_best_groups(layer: MoELayer, ranks_NE: Tensor) -> Tensor:
    groups = reach("num_group", layer.router)
    kept = reach("topk_group", layer.router)
    when = layer.family.groups_when
    if (
        groups is None
        or kept is None
        or groups == kept
        or (when is not None and reach(when[0], layer.router) != when[1])
    ):
        return ranks_NE
    ranks_NGM = ranks_NE.view(len(ranks_NE), groups, -1)
    best = 1 if layer.family.groups == "best" else 2
    rank_NG = ranks_NGM.topk(best, dim=-1).values.sum(dim=-1)
    outside_NG = torch.ones_like(rank_NG, dtype=torch.bool).scatter(-1, rank_NG.topk(kept, dim=-1).indices, False)
    kept_NGM = ranks_NGM.masked_fill(outside_NG.unsqueeze(-1), layer.family.masked)
    return kept_NGM.view_as(ranks_NE)


def _unsorted(layer: MoELayer, outputs: tuple[Any, ...]) -> Tensor:
    """(N, k) from a sorting of the N x k assignments by expert, and the number of them that each expert got."""
    order_A, _, _, sizes_E = outputs[:4]
    expert_A = torch.repeat_interleave(torch.arange(len(sizes_E)), torch.as_tensor(sizes_E)).to(order_A.device)
    return torch.empty_like(order_A).scatter_(0, order_A, expert_A).reshape(-1, layer.top_k)
