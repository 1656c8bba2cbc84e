"""Tests that the list of mutations asked for: mistakes that no other test would see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from evaluation.stored_runs import write_scores
from innerlingua.data import tokenize_pairs
from innerlingua.evaluation.comparison import compare_runs
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


def test_holms_correction_is_what_a_comparison_takes_by_default(tmp_path: Path) -> None:
    """With p-values of some size: a tiny one is equal to three times itself within any tolerance."""
    won = {"eng_Latn": 10, "hin_Deva": 11, "swh_Latn": 12, "npi_Deva": 13}  # of 16 samples that changed
    before = {("mmlu", code): np.r_[np.zeros(many), np.ones(16 - many)] for code, many in won.items()}
    after = {key: 1 - scores for key, scores in before.items()}
    found = compare_runs(
        [write_scores(tmp_path / "a", before), write_scores(tmp_path / "b", after)], replicates=1000, permutations=1000
    )
    rows = sorted((one for one in found.differences if one.kind == "language"), key=lambda one: one.p)
    first, second, third = (one.p for one in rows)
    assert 0.01 < first < second < third < 0.5
    by_hand = [3 * first, max(3 * first, 2 * second), max(3 * first, 2 * second, third)]
    assert [one.corrected for one in rows] == pytest.approx(by_hand)
