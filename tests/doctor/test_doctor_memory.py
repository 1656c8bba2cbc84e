"""Bytes: counted in closed forms, against a real optimiser, and against a whole training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_iter
from trl import SFTConfig

from innerlingua.recipe import Recipe
from innerlingua.recipe.doctor import measure, memory, training
from innerlingua.recipe.doctor.memory import Room, counted, optimizer_trial, shares
from innerlingua.recipe.doctor.report import Memory, Report
from innerlingua.training import Trainer
from tiny import tiny_model

FLOAT = 4


def memory_of(report: Report) -> Memory:
    assert report.memory is not None, report.findings
    return report.memory


def test_live_bytes_in_closed_form() -> None:
    weight = torch.randn(100, 100, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(weight)
    model.weight.grad = torch.zeros_like(weight)
    square, number = 100 * 100 * FLOAT, FLOAT
    with counted(model) as count:
        product = model.weight @ model.weight
        assert (count.live, count.peak) == (square, square)
        view = product.t()[:50]
        assert count.live == square  # a view is no memory
        loss = product.relu().sum()  # relu keeps its result for the backward pass
        assert (count.live, count.peak) == (2 * square + number, 2 * square + number)
        loss.backward()
        del product, view, loss
        assert count.live == 0
        assert 3 * square < count.peak < 6 * square


@pytest.mark.parametrize(
    ("options", "of_a_matrix"),
    [
        ({"optim": "adamw_torch"}, 2 * 64 * 32 * FLOAT + FLOAT),
        ({"optim": "sgd"}, 0),
        ({"optim": "adafactor"}, (64 + 32 + 1) * FLOAT),
    ],
)
def test_the_states_of_the_optimiser_are_those_that_it_makes(
    options: dict[str, Any], of_a_matrix: int, tmp_path: Path
) -> None:
    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", **options)
    matrix = torch.nn.Linear(32, 64, bias=False)
    trial = optimizer_trial(args, matrix)
    assert trial is not None
    assert trial.bytes == of_a_matrix

    model = tiny_model("gpt_oss")
    model.lm_head.requires_grad_(False)
    trial = optimizer_trial(args, model)
    assert trial is not None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    optimizer = optimizer_class(trained, **settings)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [value for value in tree_iter(dict(optimizer.state)) if isinstance(value, Tensor)]
    assert trial.bytes == sum(value.numel() * value.element_size() for value in states)


@pytest.mark.parametrize("method", [[], ["--peft.r", "4"]])
def test_the_sum_is_what_a_training_takes(
    method: list[str],
    examined: Callable[..., Report],
    recipe_of: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every storage that two real steps make, on the longest rows alone."""
    options = ("--trainer.max-steps", "2", "--trainer.per-device-train-batch-size", "24", *method)
    options += ("--trainer.gradient-accumulation-steps", "1", "--alignment.anchor", "live")
    estimate = memory_of(examined(*options))
    assert estimate.most is not None
    assert estimate.most.bytes is not None

    from innerlingua.recipe import build

    peaks = []
    train = Trainer.train

    def counted_train(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        with counted(self.model) as count:
            result = train(self, *args, **kwargs)
        peaks.append(count.peak)
        return result

    monkeypatch.setattr(Trainer, "train", counted_train)
    build.run_training(recipe_of(*options), say=lambda text: None)
    expected = estimate.gradients + (estimate.optimizer or 0) + estimate.most.bytes
    # The rehearsal of the section trainer trains a model of its own first.
    assert max(peaks) == pytest.approx(expected, rel=0.1)


def test_longer_rows_take_more_and_checkpointing_less(examined: Callable[..., Report]) -> None:
    plain = memory_of(examined())
    checkpointed = memory_of(examined("--trainer.gradient-checkpointing"))
    for found in (plain, checkpointed):
        assert found.least is not None
        assert found.most is not None
        assert found.least.padded_tokens < found.most.padded_tokens
        assert (found.least.bytes or 0) < (found.most.bytes or 0)
    assert plain.most is not None
    assert checkpointed.most is not None
    assert (checkpointed.most.bytes or 0) < (plain.most.bytes or 0)
    assert plain.weights == plain.gradients
    assert plain.total == plain.standing + (plain.most.bytes or 0)


def test_ways_of_spreading() -> None:
    parts = {"weights": 1000, "gradients": 400, "optimizer": 800, "rest": 50}
    assert shares(1, **parts) == []
    found = {share.way: share.bytes for share in shares(4, **parts)}
    assert found == {
        "DDP": 1000 + 2 * 400 + 800 + 50,
        "DeepSpeed ZeRO-2": 1000 + (400 + 800) // 4 + 50,
        "FSDP, all sharded": (1000 + 400 + 800) // 4 + 50,
    }


def test_a_model_that_does_not_fit_is_not_run(examined: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    """No device here is small enough, so one is made up."""
    monkeypatch.setattr(memory, "room_on", lambda device: Room("a small device", 200_000, 100_000))
    monkeypatch.setattr(training, "prepare", lambda trainer: pytest.fail("it was run"))
    report = examined()
    assert not report.refused
    assert [finding.what for finding in report.findings if "nothing was run" in finding.what]
    assert report.losses is report.time is None
    assert report.skipped["losses"] == "the model does not fit on the device"
    found = memory_of(report)
    assert found.gradients > 100_000
    assert found.optimizer is not None
    assert any("by the estimate the training needs" in finding.what for finding in report.findings)


def test_a_device_that_runs_out_of_memory_is_refused_as_a_training_is(
    examined: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU would say this; there is none here."""

    def full(*args: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(measure, "run_micro_batch", full)
    report = examined()
    refused = [finding.what for finding in report.findings if finding.level == "refused"]
    assert len(refused) == 1
    assert "trainer.per_device_train_batch_size: 4 rows at once do not fit on cpu: CUDA out of memory" in refused[0]
    assert report.losses is None
    assert memory_of(report).most is None
