"""The whole loss of one step against a plain, slow computation that shares nothing with the package.

Cross-entropy token by token from the full logits, the balance loss by transformers' own function, and the alignment
term by softmax, mean and Jensen-Shannon in loops over Python floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from runs import ALIGNED, fixed_weights_run, model_of
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from innerlingua.routing import RoutingAlignment, RoutingPrior

COEFFICIENT = 0.05
WEIGHT = 1.5


def softmax(logits: Sequence[float]) -> list[float]:
    largest = max(logits)
    powers = [math.exp(value - largest) for value in logits]
    return [power / math.fsum(powers) for power in powers]


def mean_routing(tokens: Sequence[Sequence[float]]) -> list[float]:
    rows = [softmax(token) for token in tokens]
    return [math.fsum(row[expert] for row in rows) / len(rows) for expert in range(len(rows[0]))]


def jensen_shannon(p: Sequence[float], q: Sequence[float]) -> float:
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return 0.5 * math.fsum(a * math.log(a / m) for a, m in zip(p, middle, strict=True)) + 0.5 * math.fsum(
        b * math.log(b / m) for b, m in zip(q, middle, strict=True)
    )


def router_logits(model: PreTrainedModel, token_ids: list[int]) -> list[list[list[float]]]:
    """(layers, tokens, experts) of one text by itself."""
    output = model(input_ids=torch.tensor([token_ids]), output_router_logits=True, use_cache=False)
    return [logits.tolist() for logits in output.router_logits]


@torch.no_grad()
def slow_loss(model: PreTrainedModel, anchors: PreTrainedModel, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """(the whole loss, the mean JS): `anchors` is the model that the prior comes from."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    output = model(input_ids=ids, attention_mask=mask, output_router_logits=True, use_cache=False)
    losses = []
    for row, logits in zip(rows, output.logits.double().tolist(), strict=True):
        for place, label in enumerate(row["labels"][1:]):
            if label != -100:
                losses.append(-math.log(softmax(logits[place])[label]))
    balance = float(load_balancing_loss_func(output.router_logits, 8, 2, mask))
    divergences = []
    for row in rows:
        if row["anchor_input_ids"] is None:
            continue
        target, anchor = router_logits(model, row["input_ids"]), router_logits(anchors, row["anchor_input_ids"])
        layers = [jensen_shannon(mean_routing(anchor[i]), mean_routing(target[i])) for i in ALIGNED]
        divergences.append(math.fsum(layers) / len(layers))
    divergence = math.fsum(divergences) / len(divergences)
    return math.fsum(losses) / len(losses) + COEFFICIENT * balance + WEIGHT * divergence, divergence


@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_the_loss_of_one_step_is_the_plain_one(
    anchor: str,
    tmp_path: Path,
    tokenised: Dataset,
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    term = RoutingAlignment(anchor=prior, verify_weights=False, weight=WEIGHT)
    if anchor == "live":
        term = RoutingAlignment(anchor="live", weight=WEIGHT, layers=ALIGNED)
    _, [log] = fixed_weights_run(
        tmp_path,
        tokenised,
        tokenizer,
        term,
        per_device_train_batch_size=8,
        router_aux_loss_coef=COEFFICIENT,
    )
    expected, divergence = slow_loss(model_of(), model_of(seed=1 if anchor == "prior" else 0), tokenised.to_list())
    assert log["loss"] == pytest.approx(expected, rel=1e-6)
    assert log["routing_alignment"] == pytest.approx(divergence, rel=1e-5)
    assert WEIGHT * divergence > 1e-3 * expected  # it would be missed
