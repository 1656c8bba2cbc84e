"""Anchors are computed in the numeric type of the training: a stored prior is held to it, a live one follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from runs import ALIGNED, config, fixed_weights_run, model_of
from transformers import PreTrainedTokenizerFast

from innerlingua.data import tokenize_pairs
from innerlingua.errors import PriorError
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer

HALVES = {"bf16": {"bf16": True}, "fp16": {"bf16": False, "fp16": True}}


def trainer_of(
    folder: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast, prior: RoutingPrior, **changes: Any
) -> Trainer:
    return Trainer(
        model=model_of(),
        args=config(folder, max_steps=1, **changes),
        train_dataset=rows,
        processing_class=tokenizer,
        terms=[RoutingAlignment(anchor=prior)],
    )


@pytest.mark.parametrize("half", HALVES)
def test_a_prior_of_another_type_is_refused_before_the_first_step(
    half: str, tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = RoutingPrior.compute(model_of(), pairs, tokenizer, layers=ALIGNED, progress=False)
    args = config(tmp_path, **HALVES[half])
    halved = RoutingPrior.compute(model_of(), pairs, tokenizer, args=args, layers=ALIGNED, progress=False)
    name = {"bf16": "bfloat16", "fp16": "float16"}[half]
    with pytest.raises(PriorError, match=rf"computed in float32, and the passes of this training compute in {name}"):
        trainer_of(tmp_path, pairs, tokenizer, whole, **HALVES[half])
    with pytest.raises(PriorError, match=rf"computed in {name}, and the passes .* in float32 .*args=args"):
        trainer_of(tmp_path, pairs, tokenizer, halved)
    trainer_of(tmp_path, pairs, tokenizer, whole).train()
    trainer_of(tmp_path, pairs, tokenizer, halved, **HALVES[half])


def test_it_is_refused_for_a_launcher_s_type_too(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch --mixed_precision bf16` casts although the arguments say nothing."""
    whole = RoutingPrior.compute(model_of(), pairs, tokenizer, layers=ALIGNED, progress=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(PriorError, match="passes of this training compute in bfloat16"):
        trainer_of(tmp_path, pairs, tokenizer, whole)


def test_half_weights_under_automatic_casting_are_of_one_type(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A bfloat16 base with adapters: with and without casting the passes are bfloat16."""
    model = model_of().bfloat16()
    prior = RoutingPrior.compute(model, pairs, tokenizer, layers=ALIGNED, progress=False)
    assert prior.fingerprint["compute"] == "bfloat16"
    Trainer(
        model=model,
        args=config(tmp_path, max_steps=1, bf16=True),
        train_dataset=pairs,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        terms=[RoutingAlignment(anchor=prior)],
    )


@pytest.mark.parametrize("anchor", ["prior", "live", "live, gradient"])
def test_the_same_text_on_both_sides_has_no_divergence_under_bf16(
    anchor: str, tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [
        row | {"id": str(place), "anchor_prompt": row["prompt"], "anchor_completion": row["completion"]}
        for place, row in enumerate(pairs)
    ]
    same = tokenize_pairs(Dataset.from_list(rows), tokenizer).dataset
    if anchor == "prior":
        args = config(tmp_path, bf16=True)
        made = RoutingPrior.compute(model_of(), same, tokenizer, args=args, layers=ALIGNED, progress=False)
        term = RoutingAlignment(anchor=made)
    else:
        term = RoutingAlignment(anchor="live", layers=ALIGNED, anchor_gradient=anchor == "live, gradient")
    options = {"per_device_train_batch_size": 4, "max_steps": 2, "bf16": True}
    gradients, logs = fixed_weights_run(tmp_path, same, tokenizer, term, **options)
    assert len(logs) == 2
    # In float32 beside bfloat16 it would be 1e-5 and more.
    assert max(abs(log["routing_alignment"]) for log in logs) < 1e-6
    assert all(torch.isfinite(g).all() for step in gradients for g in step.values())
