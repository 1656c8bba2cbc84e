"""How many steps, tokens and seconds a training is, by the trainer's own plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from innerlingua.recipe.doctor.prepared import Plan, Prepared
from innerlingua.recipe.doctor.report import Batch, DataSet, Schedule, Time

__all__ = ["estimated_time", "plan_for", "schedule"]


def plan_for(prepared: Prepared, processes: int) -> Plan:
    """The plan when `processes` share the work, as accelerate deals out micro-batches and transformers counts steps."""
    plan, args = prepared.plan, prepared.trainer.args
    if processes == 1:
        return plan
    deal = math.floor if args.dataloader_drop_last else math.ceil
    micro_batches = deal(plan.micro_batches_of_an_epoch / processes)
    steps_of_an_epoch = max(math.ceil(micro_batches / args.gradient_accumulation_steps), 1)
    if args.max_steps > 0:
        return Plan(math.ceil(args.max_steps / steps_of_an_epoch), micro_batches, steps_of_an_epoch, args.max_steps)
    return Plan(
        math.ceil(args.num_train_epochs),
        micro_batches,
        steps_of_an_epoch,
        math.ceil(args.num_train_epochs * steps_of_an_epoch),
    )


def schedule(prepared: Prepared, data: DataSet, processes: int, *, live: bool) -> Schedule:
    """Steps and tokens of the training on `data`."""
    args = prepared.trainer.args
    plan = plan_for(prepared, processes)
    micro_batch = args.train_batch_size
    rows = len(prepared.trainer.train_dataset)  # packed ones, where they are packed
    seen = min(rows, prepared.plan.micro_batches_of_an_epoch * micro_batch)
    anchor = data.everything.anchor
    return Schedule(
        rows=data.everything.rows,
        packed_rows=rows if prepared.trainer.padding_free else None,
        processes=processes,
        micro_batch=micro_batch,
        accumulation=args.gradient_accumulation_steps,
        rows_of_a_step=micro_batch * args.gradient_accumulation_steps * processes,
        steps_of_an_epoch=plan.steps_of_an_epoch,
        epochs=plan.steps / plan.steps_of_an_epoch,
        steps=plan.steps,
        warmup_steps=args.get_warmup_steps(plan.steps),
        target_tokens=data.everything.target.total,
        supervised_tokens=data.everything.supervised,
        anchor_tokens=anchor.total if live and anchor is not None else 0,
        rows_left_out=rows - seen,
    )


def estimated_time(
    plan: Schedule, seconds: Sequence[float], *, optimizer: float | None, least: Batch, most: Batch
) -> Time:
    """The time of a step from the timed micro-batches of the first one, and of the training from that.

    The bounds are a training of nothing but the shortest, or nothing but the longest micro-batches.
    """
    extra = optimizer or 0.0
    of_a_step = plan.accumulation * fmean(seconds) + extra
    bounds = sorted(plan.steps * (plan.accumulation * batch.seconds + extra) for batch in (least, most))
    return Time(
        step=of_a_step, optimizer=optimizer, training=of_a_step * plan.steps, shortest=bounds[0], longest=bounds[1]
    )
