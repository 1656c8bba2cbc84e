"""What must not change the term and its gradients: padding, the order of rows, gradient checkpointing.

And what the gradients reach.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from runs import ALIGNED, config, fixed_weights_run, gap, model_of, train
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from innerlingua.data import tokenize_pairs
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer

WEIGHT = 20.0
TOLERANCE = 2e-6
PLAIN = {"per_device_train_batch_size": 8}

CHANGES: dict[str, dict[str, Any]] = {
    "more padding": {"pad_to_multiple_of": 96},
    "rows reversed": {},
    "checkpointing": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "checkpointing by default": {"gradient_checkpointing": True},
    "no padding": {"padding_free": True},
    "no padding, but some at the end": {"padding_free": True, "pad_to_multiple_of": 96},
    "no padding, checkpointing, accumulation": {"padding_free": True, "gradient_checkpointing": True}
    | {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3},
    "packed": {"packing": 100},
    "packed, checkpointing, two micro-batches": {"packing": 100, "gradient_checkpointing": True}
    | {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
    "checkpointing, accumulation": {"gradient_checkpointing": True, "per_device_train_batch_size": 3}
    | {"gradient_accumulation_steps": 3},
}


def term_of(anchor: str, prior: RoutingPrior) -> RoutingAlignment:
    if anchor == "prior":
        return RoutingAlignment(anchor=prior, verify_weights=False, weight=WEIGHT)
    return RoutingAlignment(anchor="live", weight=WEIGHT, layers=ALIGNED, anchor_gradient=anchor == "live, gradient")


@pytest.fixture(scope="module", params=["prior", "live", "live, gradient"])
def plain_run(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tokenised: Dataset,
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[str, dict[str, Tensor], dict[str, float]]:
    """The anchor, and the gradients and log of one step on eight rows without any change."""
    folder = tmp_path_factory.mktemp("plain")
    term = term_of(request.param, prior)
    [gradients], [log] = fixed_weights_run(folder, tokenised, tokenizer, term, **PLAIN)
    return request.param, gradients, log


@pytest.mark.parametrize("change", CHANGES)
def test_term_and_gradients_stay(
    change: str,
    plain_run: tuple[str, dict[str, Tensor], dict[str, float]],
    tmp_path: Path,
    tokenised: Dataset,
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    anchor, expected, log = plain_run
    rows = tokenised.select(range(7, -1, -1)) if change == "rows reversed" else tokenised
    [found], [changed] = fixed_weights_run(
        tmp_path, rows, tokenizer, term_of(anchor, prior), **(PLAIN | CHANGES[change])
    )
    assert gap(found, expected) < TOLERANCE
    assert changed["routing_alignment"] == pytest.approx(log["routing_alignment"], rel=1e-5)


def test_checkpointing_changes_nothing_with_adapters(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = []
    for checkpointing in (False, True):
        trainer = Trainer(
            model=model_of(),
            args=config(tmp_path, max_steps=2, learning_rate=0.1, gradient_checkpointing=checkpointing),
            train_dataset=tokenised,
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=2, target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"]
            ),
            terms=[RoutingAlignment(anchor=prior, verify_weights=False, weight=WEIGHT)],
        )
        gradients, _ = train(trainer)
        found.append(gradients[1])
        # The second step: B of every adapter has left zero, so A has a gradient, too.
        assert all(float(g.norm()) > 0 for name, g in gradients[1].items() if "layers.2.mlp.gate" in name)
    assert gap(found[1], found[0]) < TOLERANCE


@pytest.mark.usefixtures("deterministic")
def test_the_term_reaches_aligned_routers_and_nothing_above(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    def gradients(weight: float) -> dict[str, Tensor]:
        term = RoutingAlignment(anchor=prior, verify_weights=False, weight=weight)
        [found], _ = fixed_weights_run(tmp_path, tokenised, tokenizer, term, per_device_train_batch_size=8)
        return found

    plain, aligned = gradients(0.0), gradients(WEIGHT)
    changed = {name for name in plain if not torch.equal(plain[name], aligned[name])}
    for layer in ALIGNED:
        assert f"model.layers.{layer}.mlp.gate.weight" in changed
    assert {name for name in plain if ".layers.0." in name} - changed == set()
    # The last aligned layer's experts, and all that lies above, do not see the term: the same bits.
    above = {
        name
        for name in plain
        if ".layers.3." in name or ".layers.2.mlp.experts." in name or name == "model.norm.weight"
    }
    assert len(above) > 5
    assert above & changed == set()


def test_the_same_text_on_both_sides_has_no_divergence(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [
        row | {"id": str(place), "anchor_prompt": row["prompt"], "anchor_completion": row["completion"]}
        for place, row in enumerate(pairs)
    ]
    same = tokenize_pairs(Dataset.from_list(rows), tokenizer).dataset
    prior = RoutingPrior.compute(model_of(), same, tokenizer, layers=ALIGNED, batch_size=3, progress=False)
    for term in (RoutingAlignment(anchor=prior, verify_weights=False), RoutingAlignment(anchor="live", layers=ALIGNED)):
        _, [log] = fixed_weights_run(tmp_path, same, tokenizer, term, per_device_train_batch_size=8)
        assert abs(log["routing_alignment"]) < 1e-6
