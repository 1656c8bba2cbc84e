"""Evaluation: the mean over all pairs of the data set, from nothing each time, and the model left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from runs import ALIGNED, config, model_of, step_logs
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from innerlingua.data import tokenize_pairs
from innerlingua.errors import DataError
from innerlingua.routing import RoutingAlignment, RoutingPrior, pair_divergence
from innerlingua.training import Trainer


def mean_over_pairs(model: PreTrainedModel, dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> float:
    by_language = pair_divergence(model, dataset, tokenizer, layers=ALIGNED)
    return float(torch.cat(list(by_language.values())).mean())


def alignment(anchor: str, model: PreTrainedModel, pairs: Dataset, tokenizer: Any) -> RoutingAlignment:
    if anchor == "live":
        return RoutingAlignment(anchor="live", layers=ALIGNED)
    return RoutingAlignment(
        anchor=RoutingPrior.compute(model, pairs, tokenizer, layers=ALIGNED, batch_size=3, progress=False)
    )


@pytest.fixture
def anchor_of_model(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> RoutingPrior:
    return RoutingPrior.compute(model_of(), pairs, tokenizer, layers=ALIGNED, progress=False)


def trainer_of(
    folder: Path, rows: Dataset, tokenizer: Any, term: RoutingAlignment, *, model: Any = None, **kwargs: Any
) -> Trainer:
    changes = kwargs.pop("changes", {})
    return Trainer(
        model=model or model_of(),
        args=config(folder, per_device_eval_batch_size=3, **changes),
        train_dataset=rows,
        processing_class=tokenizer,
        terms=[term],
        **({"eval_dataset": rows} | kwargs),
    )


@pytest.mark.parametrize("batch", [3, 5, 8])  # 3: two pairs, one pair, two pairs
@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_it_is_the_mean_over_the_pairs(
    anchor: str, batch: int, tmp_path: Path, pairs: Dataset, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_of()
    term = alignment(anchor, model, pairs, tokenizer)
    trainer = trainer_of(tmp_path, tokenised, tokenizer, term, model=model)
    trainer.args.per_device_eval_batch_size = batch
    expected = mean_over_pairs(model_of(), tokenised, tokenizer)
    metrics = trainer.evaluate()
    assert metrics["eval_routing_alignment"] == pytest.approx(expected, rel=1e-5)
    assert metrics["eval_routing_alignment_weighted"] == pytest.approx(1.5 * expected, rel=1e-5)
    batches = [tokenised.select(range(start, min(start + batch, 8))) for start in range(0, 8, batch)]
    naive = sum(mean_over_pairs(model_of(), rows, tokenizer) for rows in batches) / len(batches)
    assert batch == 8 or abs(naive - expected) > 1e-3 * expected


@pytest.mark.parametrize("between", ["evaluate", "predict"])
def test_a_second_evaluation_starts_afresh(
    between: str, tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_of()
    trainer = trainer_of(
        tmp_path, tokenised, tokenizer, RoutingAlignment(anchor=prior, verify_weights=False), model=model
    )
    before = trainer.evaluate()["eval_routing_alignment"]
    if between == "predict":
        trainer.predict(trainer.eval_dataset)
    with torch.no_grad():
        for layer in ALIGNED:
            model.get_submodule(f"model.layers.{layer}.mlp.gate").weight.mul_(-1)
    after = trainer.evaluate()["eval_routing_alignment"]
    fresh = trainer_of(
        tmp_path, tokenised, tokenizer, RoutingAlignment(anchor=prior, verify_weights=False), model=model
    ).evaluate()
    assert abs(after - before) > 1e-3 * before
    assert after == pytest.approx(fresh["eval_routing_alignment"], rel=1e-6)


def test_named_evaluation_sets_are_measured_apart(
    tmp_path: Path, tokenised: Dataset, anchor_of_model: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    halves = {"first": tokenised.select(range(3)), "rest": tokenised.select(range(3, 8))}
    term = RoutingAlignment(anchor=anchor_of_model, verify_weights=False)
    trainer = trainer_of(tmp_path, tokenised, tokenizer, term, eval_dataset=halves)
    trainer.evaluate()
    for name, half in halves.items():
        expected = mean_over_pairs(model_of(), half, tokenizer)
        [entry] = [log for log in trainer.state.log_history if f"eval_{name}_loss" in log]
        # TRL logs its own metrics without the name of the set, too.
        assert entry["eval_routing_alignment"] == pytest.approx(expected, rel=1e-5)


class Modes(TrainerCallback):
    """After every step, whether all modules are in training mode."""

    def __init__(self) -> None:
        self.training: list[bool] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.training.append(all(module.training for module in kwargs["model"].modules()))


@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_evaluation_during_training_leaves_training_alone(
    anchor: str, tmp_path: Path, pairs: Dataset, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    runs = []
    for changes in ({}, {"eval_strategy": "steps", "eval_steps": 2}):
        model, modes = model_of(), Modes()
        term = alignment(anchor, model, pairs, tokenizer)
        changes = {"max_steps": 4, "per_device_train_batch_size": 3, "learning_rate": 0.05, **changes}
        trainer = trainer_of(tmp_path, tokenised, tokenizer, term, model=model, changes=changes, callbacks=[modes])
        trainer.train()
        assert modes.training == [True] * 4
        runs.append(trainer)
    quiet, watched = ([(log["loss"], log.get("routing_alignment")) for log in step_logs(trainer)] for trainer in runs)
    assert watched == quiet
    entries = [log for log in runs[1].state.log_history if "eval_loss" in log]
    assert len(entries) == 2
    # The weights have moved between the two; the second is that of the last weights alone.
    again = runs[1].evaluate()["eval_routing_alignment"]
    assert entries[1]["eval_routing_alignment"] == pytest.approx(again, rel=1e-6)
    assert entries[0]["eval_routing_alignment"] != pytest.approx(again, rel=1e-3)


def test_an_evaluation_with_metrics_measures_the_same(
    tmp_path: Path, tokenised: Dataset, anchor_of_model: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    shapes = []

    def compute_metrics(prediction: Any) -> dict[str, float]:
        shapes.append(np.asarray(prediction.predictions).shape[0])
        return {}

    term = RoutingAlignment(anchor=anchor_of_model, verify_weights=False)
    metrics = trainer_of(tmp_path, tokenised, tokenizer, term, compute_metrics=compute_metrics).evaluate()
    assert shapes == [8]
    expected = mean_over_pairs(model_of(), tokenised, tokenizer)
    assert metrics["eval_routing_alignment"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_rows_given_to_evaluate_must_be_tokenised_pairs(
    anchor: str, tmp_path: Path, pairs: Dataset, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_of()
    term = alignment(anchor, model, pairs, tokenizer)
    trainer = trainer_of(tmp_path, tokenised, tokenizer, term, model=model)
    rows = pairs.select(range(2))
    metrics = trainer.evaluate(tokenize_pairs(rows, tokenizer).dataset)
    assert metrics["eval_routing_alignment"] == pytest.approx(mean_over_pairs(model, rows, tokenizer), rel=1e-5)
    if anchor == "live":
        with pytest.raises(DataError, match="anchor_input_ids"):
            trainer.evaluate(rows)
