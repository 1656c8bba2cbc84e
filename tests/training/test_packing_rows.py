"""Training without padding: what is pooled, counted and refused. That gradients stay is in test_invariance.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from runs import ALIGNED, config, fixed_weights_run, gap, model_of, train
from transformers import PreTrainedTokenizerFast

from innerlingua.data import pack_rows, tokenize_pairs
from innerlingua.errors import DataError, ModelError
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer
from innerlingua.training.collate import TermCollator, rows_in, split_batch
from tiny import tiny_model


def build(folder: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast, terms: list[Any], **changes: Any) -> Trainer:
    packing = changes.pop("packing", None)
    model = changes.pop("model", None) or model_of()
    return Trainer(
        model=model,
        args=config(folder, **changes),
        train_dataset=rows,
        processing_class=tokenizer,
        terms=terms,
        packing=packing,
    )


@pytest.mark.parametrize("pooling", ["completion", "prompt"])
@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_every_pooling_follows_the_segments(
    pooling: str, anchor: str, tmp_path: Path, pairs: Dataset, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = []
    for changes in ({}, {"padding_free": True}, {"packing": 100}):
        given: Any = "live"
        if anchor == "prior":
            given = RoutingPrior.compute(
                model_of(seed=1), pairs, tokenizer, layers=ALIGNED, pooling=pooling, progress=False
            )
        term = RoutingAlignment(anchor=given, layers=ALIGNED, pooling=pooling, verify_weights=False, weight=20.0)
        [gradients], [log] = fixed_weights_run(
            tmp_path, tokenised, tokenizer, term, per_device_train_batch_size=8, **changes
        )
        found.append((gradients, log["routing_alignment"]))
    for gradients, value in found[1:]:
        assert gap(gradients, found[0][0]) < 2e-6
        assert value == pytest.approx(found[0][1], rel=1e-5)


def test_spans(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_list(
        [
            {
                "id": str(place),
                "language": "swh_Latn",
                "text": "maji ya moto " * (place + 1),
                "anchor_text": "hot water " * (place + 1),
                "spans": [[0, 4, 4, 9], [5, 7, 0, 3]] if place != 1 else None,
            }
            for place in range(4)
        ]
    )
    tokens = tokenize_pairs(rows, tokenizer).dataset
    values = []
    for changes in ({}, {"padding_free": True}):
        term = RoutingAlignment(anchor="live", layers=ALIGNED, pooling="spans", weight=20.0)
        [gradients], [log] = fixed_weights_run(
            tmp_path, tokens, tokenizer, term, per_device_train_batch_size=4, **changes
        )
        values.append((gradients, log["routing_alignment"]))
    assert gap(values[1][0], values[0][0]) < 2e-6
    assert values[1][1] == pytest.approx(values[0][1], rel=1e-5)
    assert values[0][1] > 1e-4


def test_packed_rows_are_packed(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    with pytest.warns(UserWarning, match=r"3 of 8 rows of train_dataset have no anchor"):
        trainer = build(tmp_path, tokenised, tokenizer, [term], packing=100, per_device_train_batch_size=2)
    lengths = [len(ids) for ids in tokenised["input_ids"]]
    packed = trainer.train_dataset
    assert len(packed) < len(tokenised)
    assert sum(map(len, packed["seq_lengths"])) == len(tokenised)
    assert isinstance(trainer.data_collator, TermCollator)
    seen = 0
    for batch in trainer.get_train_dataloader():
        seen += rows_in(batch)
        inputs, [entries] = split_batch(batch, trainer.terms)
        assert inputs["input_ids"].shape[0] == 1
        assert "attention_mask" not in inputs
        assert int(entries["segments"].max()) + 1 == rows_in(batch)
    assert seen == len(lengths)


def test_a_whole_training_with_packed_rows_and_evaluation(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = Trainer(
        model=model_of(),
        args=config(
            tmp_path, learning_rate=0.02, num_train_epochs=3, per_device_train_batch_size=2, eval_strategy="epoch"
        ),
        train_dataset=tokenised,
        eval_dataset=tokenised,
        processing_class=tokenizer,
        terms=[RoutingAlignment(anchor=prior, verify_weights=False)],
        packing=80,
    )
    _, logs = train(trainer)
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert logs[-1]["loss"] < logs[0]["loss"]
    assert evaluations[-1]["eval_routing_alignment"] < evaluations[0]["eval_routing_alignment"]


@pytest.mark.parametrize("packing", [None, 100])
def test_under_automatic_casting(
    packing: int | None, tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    """What a GPU does by itself; rounding is in the values then, and must not be taken for a row before."""
    found = []
    for joined in ({}, {"padding_free": True, "packing": packing}):
        term = RoutingAlignment(anchor="live", layers=ALIGNED)
        trainer = build(
            tmp_path, tokenised, tokenizer, [term], bf16=True, max_steps=1, per_device_train_batch_size=8, **joined
        )
        gradients, _ = train(trainer)
        found.append(gradients[0])
    assert gap(found[1], found[0]) < 2e-2


def test_without_terms_packing_trains_on_the_same_tokens(
    tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = tokenised.select_columns(["input_ids", "labels"])
    found = []
    for packing in (None, 100):
        trainer = build(tmp_path, rows, tokenizer, [], packing=packing, max_steps=1, per_device_train_batch_size=8)
        gradients, _ = train(trainer)
        found.append(gradients[0])
    assert gap(found[1], found[0]) < 2e-6


def test_length_grouped_batches_keep_pairs_together(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Less padding, the same rows, and each with its own anchor: at fixed weights the mean over all pairs stays."""
    rows = concatenate_datasets([tokenised] * 8)
    padding, means = [], []
    for strategy in ("sequential", "group_by_length"):
        options = {"train_sampling_strategy": strategy, "per_device_train_batch_size": 4}
        trainer = build(
            tmp_path,
            rows,
            tokenizer,
            [RoutingAlignment(anchor=prior, verify_weights=False)],
            learning_rate=0.0,
            num_train_epochs=1,
            **options,
        )
        padding.append(sum(batch["input_ids"].numel() for batch in trainer.get_train_dataloader()))
        totals: list[tuple[float, int]] = []
        original = trainer._log_terms
        trainer._log_terms = lambda parts, original=original, totals=totals: (  # type: ignore[method-assign]
            totals.extend((float(total), pairs) for total, pairs in parts),
            original(parts),
        )
        trainer.train()
        assert sum(pairs for _, pairs in totals) == 40
        means.append(sum(total for total, _ in totals) / 40)
    assert padding[1] < padding[0]
    assert means[1] == pytest.approx(means[0], rel=1e-5)


def test_refusals(tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast) -> None:
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    with pytest.raises(DataError, match=r"train_dataset is packed already .*Trainer\(\.\.\., packing=N\)"):
        build(tmp_path, pack_rows(tokenised, 200), tokenizer, [term], padding_free=True)
    with pytest.raises(DataError, match=r"has \d+ tokens, and a packed row takes 5"):
        build(tmp_path, tokenised, tokenizer, [term], packing=5)
    model = tiny_model("gpt_oss", vocab_size=320)
    for terms in ([RoutingAlignment(anchor="live", layers=[1])], []):
        with pytest.raises(ModelError, match="does not keep rows apart that lie end to end"):
            build(tmp_path, tokenised, tokenizer, terms, packing=200, model=model)


def test_the_collator_of_a_batch_without_pairs(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    trainer = build(tmp_path, tokenised, tokenizer, [term], padding_free=True)
    rows = [tokenised[place] for place in (1, 4)]  # without anchors
    batch = trainer.data_collator(rows)
    _, [entries] = split_batch(batch, trainer.terms)
    assert entries["pair_index"].numel() == 0
    expected = [0] * len(rows[0]["input_ids"]) + [1] * len(rows[1]["input_ids"])
    assert torch.equal(entries["segments"], torch.tensor([expected]))
