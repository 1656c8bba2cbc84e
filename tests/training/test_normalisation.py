"""A term is the mean over the pairs of the global batch, however that batch is split up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from runs import ANCHORED, config, fixed_weights_run, gap, model_of, plain_step, row_losses, train
from transformers import PreTrainedTokenizerFast

from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer

WEIGHT = 20.0  # so that the term is not lost beside the cross-entropy
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def rows(tokenised: Dataset) -> list[dict[str, Any]]:
    return tokenised.to_list()


# The steps that a split makes of the eight rows; the last ones are smaller.
SPLITS = {
    "8": (8, 1, [8]),
    "4 x 2": (4, 2, [8]),
    "1 x 8": (1, 8, [8]),
    "3 x 3": (3, 3, [8]),
    "2 x 3": (2, 3, [6, 2]),
    "5 x 1": (5, 1, [5, 3]),
}


@pytest.mark.parametrize("anchor", ["prior", "live"])
@pytest.mark.parametrize("split", SPLITS)
def test_gradients_and_log_of_each_split_are_those_of_the_plain_loss(
    split: str,
    anchor: str,
    tmp_path: Path,
    tokenised: Dataset,
    rows: list[dict[str, Any]],
    prior: RoutingPrior,
    pairs: Dataset,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    batch, accumulation, steps = SPLITS[split]
    term = RoutingAlignment(anchor=prior, verify_weights=False, weight=WEIGHT)
    model = model_of()
    if anchor == "live":
        # On fixed weights a live anchor is the prior of those weights.
        term = RoutingAlignment(anchor="live", weight=WEIGHT, layers=prior.layers)
        prior = RoutingPrior.compute(model, pairs, tokenizer, layers=prior.layers, progress=False)
    gradients, logs = fixed_weights_run(
        tmp_path,
        tokenised,
        tokenizer,
        term,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    assert len(gradients) == len(logs) == len(steps)
    start = 0
    for count, found, log in zip(steps, gradients, logs, strict=True):
        expected, divergence = plain_step(model, rows[start : start + count], prior, WEIGHT)
        assert gap(found, expected) < TOLERANCE
        assert log["routing_alignment"] == pytest.approx(divergence, rel=1e-5)
        assert log["routing_alignment_weighted"] == pytest.approx(WEIGHT * log["routing_alignment"])
        start += count


def test_a_mean_of_micro_batch_means_would_be_seen(rows: list[dict[str, Any]], prior: RoutingPrior) -> None:
    model = model_of()
    exact, divergence = plain_step(model, rows, prior, WEIGHT)
    assert sum(ANCHORED[:4]) != sum(ANCHORED[4:])
    halves = [plain_step(model, half, prior, WEIGHT) for half in (rows[:4], rows[4:])]
    plain = [plain_step(model, half, prior, 0.0)[0] for half in (rows[:4], rows[4:])]
    whole = plain_step(model, rows, prior, 0.0)[0]
    naive = {
        name: whole[name] + sum(half[name] - ce[name] for (half, _), ce in zip(halves, plain, strict=True)) / 2
        for name in exact
    }
    assert gap(naive, exact) > 100 * TOLERANCE
    means = [mean for _, mean in halves if mean is not None]
    assert abs(sum(means) / 2 - divergence) / divergence > 1e-3  # the log is held to 1e-5


def test_a_step_without_pairs_is_plain_tuning_and_logs_no_term(
    tmp_path: Path,
    tokenised: Dataset,
    rows: list[dict[str, Any]],
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    order = [1, 4, 0, 2]
    gradients, logs = fixed_weights_run(
        tmp_path,
        tokenised.select(order),
        tokenizer,
        RoutingAlignment(anchor=prior, verify_weights=False, weight=WEIGHT),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
    )
    for place, (found, log) in enumerate(zip(gradients, logs, strict=True)):
        expected, _ = plain_step(model_of(), [rows[row] for row in order[2 * place : 2 * place + 2]], prior, WEIGHT)
        assert gap(found, expected) < TOLERANCE
        assert ("routing_alignment" in log) == (place == 1)


def test_trajectories_of_all_splits_of_eight_are_equal(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    ends, curves = [], []
    for batch, accumulation in ((8, 1), (4, 2), (1, 8)):
        trainer = Trainer(
            model=model_of(),
            args=config(
                tmp_path,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                max_steps=6,
                learning_rate=0.01,
            ),
            train_dataset=tokenised,
            processing_class=tokenizer,
            terms=[RoutingAlignment(anchor=prior, verify_weights=False, weight=WEIGHT)],
        )
        _, logs = train(trainer)
        ends.append({name: p.detach() for name, p in trainer.model.named_parameters()})
        curves.append([(log["loss"], log["routing_alignment"]) for log in logs])
    assert curves[0][-1][1] < 0.9 * curves[0][0][1]  # it did train
    for end, curve in zip(ends[1:], curves[1:], strict=True):
        assert gap(end, ends[0]) < 1e-6
        assert torch.allclose(torch.tensor(curve), torch.tensor(curves[0]), rtol=2e-5)


def test_with_the_balance_loss_on_the_logged_term_is_the_same(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    values = []
    for batch, accumulation in ((8, 1), (1, 8)):
        _, logs = fixed_weights_run(
            tmp_path,
            tokenised,
            tokenizer,
            RoutingAlignment(anchor=prior, verify_weights=False, weight=WEIGHT),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            router_aux_loss_coef=0.1,
        )
        assert logs[0]["aux_loss"] > 0
        values.append(logs[0]["routing_alignment"])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_the_log_over_several_steps_is_the_mean_of_the_steps(
    tmp_path: Path,
    tokenised: Dataset,
    rows: list[dict[str, Any]],
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    _, logs = fixed_weights_run(
        tmp_path,
        tokenised,
        tokenizer,
        RoutingAlignment(anchor=prior, verify_weights=False),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        logging_steps=2,
    )
    with torch.no_grad():
        divergences = [row_losses(model_of(), row, prior)[2] for row in rows]
    halves = [[float(d) for d in half if d is not None] for half in (divergences[:4], divergences[4:])]
    assert len(logs) == 1
    assert logs[0]["routing_alignment"] == pytest.approx(sum(sum(h) / len(h) for h in halves) / 2, rel=1e-5)


@pytest.mark.parametrize("workers", [1])
def test_a_data_loading_worker_changes_nothing(
    workers: int, tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    stored = RoutingPrior.open(prior.save(tmp_path / "prior"))
    runs = [
        fixed_weights_run(
            tmp_path,
            tokenised,
            tokenizer,
            RoutingAlignment(anchor=anchor, verify_weights=False),
            per_device_train_batch_size=3,
            dataloader_num_workers=number,
        )
        for anchor, number in ((prior, 0), (stored, workers))
    ]
    for found, expected in zip(runs[1][0], runs[0][0], strict=True):
        assert gap(found, expected) == 0
    assert [log["routing_alignment"] for log in runs[1][1]] == [log["routing_alignment"] for log in runs[0][1]]


@pytest.mark.parametrize("split", [(8, 1), (4, 2), (1, 8)])
def test_a_model_whose_loss_is_a_mean_of_each_micro_batch_gets_the_same_term(
    split: tuple[int, int],
    tmp_path: Path,
    tokenised: Dataset,
    rows: list[dict[str, Any]],
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Models that take no `num_items_in_batch`: the Trainer then divides every loss by the accumulation steps."""

    def gradients(weight: float) -> dict[str, torch.Tensor]:
        trainer = Trainer(
            model=model_of(),
            args=config(
                tmp_path,
                learning_rate=0.0,
                num_train_epochs=1,
                per_device_train_batch_size=split[0],
                gradient_accumulation_steps=split[1],
            ),
            train_dataset=tokenised,
            processing_class=tokenizer,
            terms=[RoutingAlignment(anchor=prior, verify_weights=False, weight=weight)],
        )
        trainer.model_accepts_loss_kwargs = False
        [step], _ = train(trainer)
        return step

    def difference(aligned: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: aligned[name] - plain[name] for name in aligned}

    model = model_of()
    expected = difference(*(plain_step(model, rows, prior, weight)[0] for weight in (WEIGHT, 0.0)))
    assert gap(difference(gradients(WEIGHT), gradients(0.0)), expected) < 1e-5
