"""A stored prior that does not belong to the training is refused from Python, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig
from runs import config, model_of
from transformers import PreTrainedTokenizerFast

from innerlingua.data import tokenize_pairs
from innerlingua.errors import DataError, PriorError
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer


@pytest.fixture
def own(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> RoutingPrior:
    """The prior of the very model and rows that the tests train."""
    return RoutingPrior.compute(model_of(), pairs, tokenizer, layers=[1, 2], progress=False)


def _trainer(folder: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast, term: Any, **kwargs: Any) -> Trainer:
    model = kwargs.pop("model", None) or model_of()
    args = config(folder, max_steps=1)
    return Trainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer, terms=[term], **kwargs)


def test_the_models_own_prior_is_taken(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, own: RoutingPrior
) -> None:
    _trainer(tmp_path, pairs, tokenizer, RoutingAlignment(anchor=own)).train()


def test_adapters_leave_the_weights_what_they_were(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, own: RoutingPrior
) -> None:
    adapters = LoraConfig(
        r=2,
        target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        task_type="CAUSAL_LM",
    )
    _trainer(tmp_path, pairs, tokenizer, RoutingAlignment(anchor=own), peft_config=adapters).train()


def test_other_weights_are_refused_unless_said(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, own: RoutingPrior
) -> None:
    with pytest.raises(PriorError, match=r"other weights than this model's \(\d+ of \d+ tensors, the first is"):
        _trainer(tmp_path, pairs, tokenizer, RoutingAlignment(anchor=own), model=model_of(seed=7))
    _trainer(
        tmp_path, pairs, tokenizer, RoutingAlignment(anchor=own, verify_weights=False), model=model_of(seed=7)
    ).train()


def test_other_anchor_texts_are_refused_by_row(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, own: RoutingPrior
) -> None:
    rows = pairs.map(lambda row: {"anchor_completion": row["anchor_completion"].replace("yellow", "green")})
    with pytest.raises(PriorError, match="the anchor of row 'sun' is not the text that it was computed from"):
        _trainer(tmp_path, rows, tokenizer, RoutingAlignment(anchor=own))


def test_other_pooled_tokens_of_the_same_text_are_refused(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    prior = RoutingPrior.compute(model_of(), pairs, tokenizer, layers=[1, 2], pooling="completion", progress=False)
    rows = tokenize_pairs(pairs, tokenizer, completion_only_loss=False).dataset
    with pytest.raises(PriorError, match="or other tokens of it are pooled"):
        _trainer(tmp_path, rows, tokenizer, RoutingAlignment(anchor=prior, pooling="completion"))


def test_languages_of_the_users_own_are_taken(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, own: RoutingPrior
) -> None:
    rows = pairs.map(lambda row: {"language": "hlt_Latn" if row["language"] == "swh_Latn" else row["language"]})
    _trainer(tmp_path, rows, tokenizer, RoutingAlignment(anchor=own)).train()


def test_a_repeated_row_is_refused(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, own: RoutingPrior
) -> None:
    with pytest.raises(DataError, match="sky"):
        _trainer(tmp_path, pairs.select([0, 0, 1]), tokenizer, RoutingAlignment(anchor=own))
