"""What a capture holds: the routing of one forward pass, by decoder layer, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from innerlingua.errors import ModelError

__all__ = ["PassRouting", "RoutingCapture"]


@dataclass
class PassRouting:
    """What one forward pass gave, by decoder layer: (segments, experts), and (batch, tokens, experts) when kept."""

    pooled: dict[int, Tensor] = field(default_factory=dict)
    per_token: dict[int, Tensor] = field(default_factory=dict)


class RoutingCapture:
    """What was captured: the routing of the last complete forward pass inside the context.

    One capture holds one pass. A second one replaces the first as soon as it is complete (a pass that raises replaces
    nothing), so read a pass before the next, or give each its own capture. `generate` makes one pass for every new
    token: to see the routing of a generated text, capture one pass over the whole of it.

    `layers` are decoder-layer indices, in the order of the layer dimension. `passes` counts the complete passes.
    `pooled` is (segments, layers, experts), one segment per row unless segments were given; `per_token` is (batch,
    tokens, layers, experts). Both are float32 and carry a gradient when the pass did. Reading them before a pass, or
    `per_token` when it was not asked for, raises `ModelError`. `lost` counts the passes that were replaced before
    anything of them was read.
    """

    def __init__(self, layers: Sequence[int], *, keeps_tokens: bool) -> None:
        self.layers = list(layers)
        self.passes = 0
        self.keeps_tokens = keeps_tokens
        self._result = PassRouting()
        self._unread = False
        self.lost = 0

    def __repr__(self) -> str:
        if not self.passes:
            return f"RoutingCapture(layers={self.layers}, no complete forward pass yet)"
        first = next(iter(self._result.pooled.values()), None)
        shape = "" if first is None else f", segments={first.shape[0]}, experts={first.shape[1]}"
        held = "" if self.passes == 1 else ", the last is held"
        return f"RoutingCapture(layers={self.layers}{shape}, passes={self.passes}{held})"

    @property
    def pooled(self) -> Tensor:
        """The mean routing distribution of each segment: (segments, layers, experts), float32."""
        return self._stack(self._read().pooled, dim=1)

    @property
    def per_token(self) -> Tensor:
        """The routing distribution of each token: (batch, tokens, layers, experts), float32."""
        if not self.keeps_tokens:
            raise ModelError("the routing of single tokens was not kept: ask for it with per_token=True")
        return self._stack(self._read().per_token, dim=2)

    def of_layer(self, layer: int) -> Tensor:
        """The part of `pooled` at one decoder layer, (segments, experts); it tells whether a gradient reaches just
        that layer."""
        pooled = self._read().pooled
        if layer not in pooled:
            raise ModelError(f"no routing was captured at decoder layer {layer}: captured are {sorted(pooled)}")
        return pooled[layer]

    def keep(self, result: PassRouting) -> None:
        """Hold a complete pass; the hooks call it."""
        self.lost += self._unread
        self.passes, self._unread, self._result = self.passes + 1, True, result

    def _read(self) -> PassRouting:
        self._unread = False
        return self._result

    def _stack(self, parts: Mapping[int, Tensor], dim: int) -> Tensor:
        missing = [layer for layer in self.layers if layer not in parts]
        if missing:
            raise ModelError(
                f"no routing was captured at decoder layers {missing}: no complete forward pass of the model ran "
                "inside `capture_routing`"
            )
        experts = {layer: parts[layer].shape[-1] for layer in self.layers}
        if len(set(experts.values())) > 1:
            raise ModelError(f"the layers differ in their number of experts ({experts}): capture them one by one")
        first = parts[self.layers[0]].device
        return torch.stack([parts[layer].to(first) for layer in self.layers], dim=dim)
