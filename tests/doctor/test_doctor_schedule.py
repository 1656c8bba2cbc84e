"""Steps for any number of processes, as accelerate deals out micro-batches."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, SequentialSampler

from innerlingua.recipe.doctor.prepared import Plan
from innerlingua.recipe.doctor.report import Batch, Schedule
from innerlingua.recipe.doctor.schedule import estimated_time, plan_for


def prepared(micro_batches: int, accumulation: int, **options: Any) -> Any:
    """What `plan_for` reads of a prepared trainer: its plan for one process, and its arguments."""
    args = SimpleNamespace(
        **{
            "gradient_accumulation_steps": accumulation,
            "dataloader_drop_last": False,
            "max_steps": -1,
            "num_train_epochs": 2.5,
            **options,
        }
    )
    steps = math.ceil(micro_batches / accumulation)
    return SimpleNamespace(
        plan=Plan(3, micro_batches, steps, math.ceil(2.5 * steps)), trainer=SimpleNamespace(args=args)
    )


@pytest.mark.parametrize("rows", [7, 8, 40, 41, 1000])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_micro_batches_of_a_process_are_those_that_accelerate_deals(rows: int, processes: int, drop_last: bool) -> None:
    batches = BatchSampler(SequentialSampler(range(rows)), 4, drop_last)
    dealt = len(BatchSamplerShard(batches, num_processes=processes, process_index=0))
    found = plan_for(prepared(len(batches), 2, dataloader_drop_last=drop_last), processes)
    assert found.micro_batches_of_an_epoch == dealt
    assert found.steps_of_an_epoch == max(1, math.ceil(dealt / 2))
    assert found.steps == math.ceil(2.5 * found.steps_of_an_epoch)


def test_max_steps_win() -> None:
    found = plan_for(prepared(100, 5, max_steps=70), 4)
    assert (found.micro_batches_of_an_epoch, found.steps_of_an_epoch, found.steps, found.epochs) == (25, 5, 70, 14)


def test_time_is_micro_batches_times_steps() -> None:
    plan = Schedule(
        rows=100,
        packed_rows=None,
        processes=1,
        micro_batch=2,
        accumulation=4,
        rows_of_a_step=8,
        steps_of_an_epoch=13,
        epochs=2,
        steps=26,
        warmup_steps=1,
        target_tokens=0,
        supervised_tokens=0,
        anchor_tokens=0,
        rows_left_out=0,
    )
    short, long = Batch(2, 10, 0, 1.0), Batch(2, 90, 0, 9.0)
    found = estimated_time(plan, [2.0, 4.0], optimizer=0.5, least=short, most=long)
    assert found.step == 4 * 3.0 + 0.5
    assert found.training == 26 * 12.5
    assert (found.shortest, found.longest) == (26 * 4.5, 26 * 36.5)
    assert estimated_time(plan, [2.0], optimizer=None, least=short, most=long).step == 8.0
