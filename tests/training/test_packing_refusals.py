"""What cannot be packed, or not together with something else: one message, and without terms it speaks of none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from runs import config, gap, model_of, train
from transformers import PreTrainedTokenizerFast, TrainingArguments

from innerlingua.errors import DataError, RecipeError
from innerlingua.routing import RoutingAlignment
from innerlingua.training import Trainer


def build(
    folder: Path, rows: Any, tokenizer: PreTrainedTokenizerFast, *, packing: Any = 200, **changes: Any
) -> Trainer:
    arguments = {name: changes.pop(name) for name in ("args", "terms", "data_collator") if name in changes}
    return Trainer(
        **{"model": model_of(), "args": config(folder, max_steps=1, **changes)} | arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        packing=packing,
    )


@pytest.mark.parametrize("packing", ["512", 0, -1, True, False, 1.5, 200.5, [200], float("nan")], ids=repr)
@pytest.mark.parametrize("live", [True, False])
def test_a_length_that_is_none(
    packing: Any, live: bool, tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    terms = [RoutingAlignment(anchor="live", layers=[1])] if live else []
    with pytest.raises(RecipeError, match=rf"^packing is the number of tokens .*; not {re.escape(repr(packing))}$"):
        build(tmp_path, tokenised, tokenizer, packing=packing, terms=terms)


def test_whole_numbers_of_numpy_are_lengths(
    tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    packed = build(tmp_path, tokenised, tokenizer, packing=np.int64(200)).train_dataset
    assert len(packed) < len(tokenised)
    assert max(map(sum, packed["seq_lengths"])) <= 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_collator": lambda rows: {}}, r"Trainer\(\.\.\., packing=N\) needs the trainer's own collator"),
        (
            {"packing": True, "max_length": 100},
            r"packing cannot be combined with Trainer\(\.\.\., packing=N\): TRL would",
        ),
        (
            {"label_smoothing_factor": 0.1},
            r"label_smoothing_factor cannot be combined with Trainer\(\.\.\., packing=N\)",
        ),
        ({"eos_token": "<s>"}, r"eos_token .* after the rows were tokenised"),
    ],
)
def test_without_terms_no_term_is_blamed(
    changes: dict[str, Any], message: str, tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    own = {"args": config(tmp_path, **changes)} if "data_collator" not in changes else changes
    with pytest.raises(RecipeError, match=message) as caught:
        build(tmp_path, tokenised, tokenizer, **own)
    assert not re.search(r"\bterms?\b|\bprior\b", str(caught.value))


@pytest.mark.parametrize("way", ["packing", "padding_free"])
@pytest.mark.parametrize("coefficient", [None, 0.5])
def test_padding_that_the_balance_loss_would_count(
    way: str, coefficient: float | None, tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    ways: dict[str, dict[str, Any]] = {"packing": {}, "padding_free": {"packing": None, "padding_free": True}}
    terms = [RoutingAlignment(anchor="live", layers=[1])]
    options = {"terms": terms, "pad_to_multiple_of": 96, **ways[way]}
    with pytest.raises(RecipeError, match=rf"^pad_to_multiple_of cannot be combined with {way}: .*balancing loss"):
        build(tmp_path, tokenised, tokenizer, router_aux_loss_coef=coefficient, **options)
    build(tmp_path, tokenised, tokenizer, router_aux_loss_coef=0.0, **options)
    build(tmp_path, tokenised, tokenizer, **options | {"packing": None, "padding_free": False}).train()


def test_without_padding_the_balance_loss_is_that_of_padded_rows(
    tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = []
    for changes in ({"packing": None, "pad_to_multiple_of": 96}, {"packing": 4096}):
        trainer = build(
            tmp_path, tokenised, tokenizer, router_aux_loss_coef=0.5, per_device_train_batch_size=8, **changes
        )
        [gradients], [log] = train(trainer)
        found.append((gradients, log["aux_loss"]))
    assert gap(found[1][0], found[0][0]) < 2e-6
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)


def test_what_must_be_given_with_packing(
    tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(
        DataError, match=r"must be a datasets.Dataset when packing is given, not IterableDataset: a str"
    ):
        build(tmp_path, tokenised.to_iterable_dataset(), tokenizer)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(RecipeError, match=r"args must be a trl.SFTConfig when packing is given, not TrainingArg"):
        build(tmp_path, tokenised, tokenizer, args=arguments)
