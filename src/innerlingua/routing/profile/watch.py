"""Routing statistics of each row of a batch, taken while a forward pass runs without gradient.

`anatomy.capture_routing` pools under autograd, checkpointing and packing. A profile needs none of that and two things
more: the entropy of each token's routing, which the mean over tokens does not tell, and how many tokens chose each
expert. All three come from one softmax per layer, and nothing of a token stays.

Shape letters: B rows, T tokens of a row, L layers, E experts, k chosen experts of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from innerlingua.anatomy import MoELayer, routing_distribution
from innerlingua.anatomy.choice import chosen_experts
from innerlingua.anatomy.layers import on_routing
from innerlingua.errors import ModelError

__all__ = ["RowStatistics", "device_of", "named_experts", "watch_routing"]


@dataclass(frozen=True)
class RowStatistics:
    """Filled by one forward pass, float32. `mean` (B, L, E): mean routing. `entropy` (B, L): mean token entropy, nats.

    `counts` (B, L, E): how many of the row's tokens chose the expert; they sum to k x tokens.
    """

    mean: Tensor
    entropy: Tensor
    counts: Tensor


@contextmanager
def watch_routing(
    layers: Sequence[MoELayer], attention_mask: Tensor, *, score: str | None = None
) -> Iterator[RowStatistics]:
    """Take the statistics of the forward pass that runs inside, over the tokens of `attention_mask` (B, T).

    `layers` must agree in their number of experts. Raises `ModelError` for a router that returns no chosen experts.
    """
    mask = attention_mask != 0
    rows, tokens = mask.shape
    experts = layers[0].num_experts
    device = mask.device
    found = RowStatistics(
        mean=torch.empty((rows, len(layers), experts), device=device),
        entropy=torch.empty((rows, len(layers)), device=device),
        counts=torch.empty((rows, len(layers), experts), device=device),
    )
    weight = (mask / mask.sum(dim=1, keepdim=True)).float().unsqueeze(1)
    # Padding counts towards one more row, which is thrown away: cheaper than to pick the real tokens out.
    row = torch.arange(rows, device=device)[:, None].expand(rows, tokens).masked_fill(~mask, rows)
    offset = (row * experts).reshape(-1, 1)
    ones = torch.ones(1, device=device)

    def taker(position: int, layer: MoELayer) -> Callable[[Tensor, Any], None]:
        def take(logits: Tensor, output: Any) -> None:
            with torch.autocast(logits.device.type, enabled=False):
                p = routing_distribution(logits.detach(), score or layer.score).view(rows, tokens, experts).to(device)
                found.mean[:, position] = torch.bmm(weight, p).squeeze(1)
                token_entropy = torch.special.entr(p).sum(dim=-1)
                found.entropy[:, position] = torch.bmm(weight, token_entropy.unsqueeze(2)).flatten()
            flat = (named_experts(layer, logits, output).to(device) + offset).flatten()
            counts = torch.zeros((rows + 1) * experts, device=device).scatter_add_(0, flat, ones.expand_as(flat))
            found.counts[:, position] = counts.view(rows + 1, experts)[:rows]

        return take

    handles = [handle for position, layer in enumerate(layers) for handle in on_routing(layer, taker(position, layer))]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def named_experts(layer: MoELayer, logits: Tensor, output: Any) -> Tensor:
    """The experts that a router chose for each token, (tokens, k); what is given is what `on_routing` gives."""
    chosen = chosen_experts(layer, logits, output)
    if chosen is None:
        raise ModelError(
            f"the router {layer.name} ({type(layer.router).__name__}) returns no indices of the chosen experts, "
            "so their load cannot be counted"
        )
    return chosen


def device_of(backbone: PreTrainedModel) -> torch.device:
    """Where the token ids of a batch belong."""
    weight = backbone.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.device
