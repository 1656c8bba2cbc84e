"""Families that call the number of experts otherwise than TRL, which computes the balance loss by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from runs import VOCAB, config, step_logs
from transformers import PreTrainedTokenizerFast
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from innerlingua.data import tokenize_pairs
from innerlingua.routing import RoutingAlignment
from innerlingua.training import Trainer
from tiny import EXPERTS, tiny_model


@pytest.mark.parametrize("aligned", [False, True])
def test_the_balance_loss_of_phimoe_is_that_of_its_own_experts(
    aligned: bool, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny_model("phimoe", vocab_size=VOCAB)
    assert not hasattr(model.config, "num_experts")  # or this test and what it tests can go
    rows = tokenize_pairs(pairs, tokenizer).dataset
    args = config(tmp_path, router_aux_loss_coef=None, max_steps=1, learning_rate=0.0, per_device_train_batch_size=8)
    terms = [RoutingAlignment(anchor="live", layers=[1, 2])] if aligned else []
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=rows if aligned else rows.select_columns(["input_ids", "labels"]),
        processing_class=tokenizer,
        terms=terms,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    model.train()
    output = model.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_router_logits=True
    )
    expected = load_balancing_loss_func(output.router_logits, EXPERTS, 2, batch["attention_mask"])
    # The experts are drawn at random among near-equal ones in training, and the choice moves what lies above.
    assert step_logs(trainer)[0]["aux_loss"] == pytest.approx(float(expected.detach()), rel=0.02)
