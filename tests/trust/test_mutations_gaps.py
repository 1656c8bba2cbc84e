"""Tests that the list of mutations asked for: mistakes that no other test would see."""

from __future__ import annotations

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from innerlingua.data import tokenize_pairs
from innerlingua.routing import RoutingAlignment, RoutingPrior
from tiny import tiny_model


def test_a_live_anchor_is_taken_without_dropout(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    """In training mode half of the attention would be dropped; the anchor is the prior of the same weights exactly."""
    model = tiny_model(vocab_size=len(tokenizer), attention_dropout=0.5)
    rows = tokenize_pairs(pairs, tokenizer).dataset
    prior = RoutingPrior.compute(model, rows, tokenizer, layers=[1, 2], progress=False)
    model.train()
    term = RoutingAlignment(anchor="live", layers=[1, 2])
    entries = term.collate(rows.to_list(), max(map(len, rows["input_ids"])))
    with term.capture(model, entries):
        assert torch.allclose(entries["prior"], prior.rows(rows["id"]), atol=1e-6)
    assert all(module.training for module in model.modules())
