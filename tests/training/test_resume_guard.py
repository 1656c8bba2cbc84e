"""Resuming from Python: the Trainer does not bring fused experts back, so it must start from the checkpoint's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from runs import config, model_of
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from innerlingua.errors import ModelError
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer


def _trainer(
    folder: Path, model: Any, rows: Dataset, tokenizer: PreTrainedTokenizerFast, prior: RoutingPrior
) -> Trainer:
    args = config(folder, max_steps=4, save_strategy="steps", save_steps=2, per_device_train_batch_size=2)
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    return Trainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer, terms=[term])


def test_resuming_on_the_base_model_is_refused(
    tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast, prior: RoutingPrior
) -> None:
    _trainer(tmp_path, model_of(), tokenised, tokenizer, prior).train()
    resumed = _trainer(tmp_path, model_of(), tokenised, tokenizer, prior)
    with pytest.raises(ModelError, match=r"step 2 would leave 8 matrices.*experts.*from_pretrained"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


@pytest.mark.usefixtures("deterministic")
def test_resuming_on_the_model_of_the_checkpoint_ends_where_the_whole_run_ends(
    tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast, prior: RoutingPrior
) -> None:
    whole = _trainer(tmp_path, model_of(), tokenised, tokenizer, prior)
    whole.train()
    checkpoint = tmp_path / "out" / "checkpoint-2"
    resumed = _trainer(tmp_path, AutoModelForCausalLM.from_pretrained(checkpoint), tokenised, tokenizer, prior)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for (name, one), other in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_fresh_training_is_left_alone(
    tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast, prior: RoutingPrior
) -> None:
    trainer = _trainer(tmp_path, model_of(), tokenised, tokenizer, prior)
    trainer.train()
    assert trainer.state.global_step == 4
