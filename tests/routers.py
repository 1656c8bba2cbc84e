"""An independent, slow reading of routing, to hold the package's against: router inputs and weights, in plain loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def routers_of(model: nn.Module) -> dict[int, nn.Module]:
    """The routers of a tiny model (see `tiny.py`) by decoder layer, by name alone."""
    found = {}
    for name, module in model.named_modules():
        levels = name.split(".")
        if levels[-1] in ("gate", "router") and "layers" in levels:
            found[int(levels[levels.index("layers") + 1])] = module
    return found


@contextmanager
def router_inputs(model: nn.Module) -> Iterator[dict[int, list[Tensor]]]:
    """What each router is given, flattened to (tokens, hidden), one entry per call."""
    seen: dict[int, list[Tensor]] = {layer: [] for layer in routers_of(model)}
    handles = [
        router.register_forward_pre_hook(
            lambda module, args, layer=layer: seen[layer].append(args[0].detach().reshape(-1, args[0].shape[-1]))
        )
        for layer, router in routers_of(model).items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def naive_per_token(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """(batch, tokens, layers, experts): softmax (DeepSeek: normalised sigmoid) of weight @ hidden + bias."""
    rows, tokens = batch["input_ids"].shape
    with router_inputs(model) as seen, torch.no_grad():
        model(**batch)
    layers = []
    for layer, router in routers_of(model).items():
        (hidden,) = seen[layer]
        weight = router.weight.detach().double()
        bias = dict(router.named_parameters()).get("bias")
        distributions = []
        for token in hidden.double():
            logits = weight @ token + (0 if bias is None else bias.detach().double())
            if model.config.model_type == "deepseek_v3":
                scores = 1 / (1 + (-logits).exp())
                distributions.append(scores / scores.sum())
            else:
                powers = (logits - logits.max()).exp()
                distributions.append(powers / powers.sum())
        layers.append(torch.stack(distributions).view(rows, tokens, -1))
    return torch.stack(layers, dim=2)


def masked_mean(per_token: Tensor, mask: Tensor) -> Tensor:
    """(batch, layers, experts) from (batch, tokens, layers, experts) and (batch, tokens), row by row."""
    return torch.stack([row[chosen.bool()].mean(dim=0) for row, chosen in zip(per_token, mask, strict=True)])
