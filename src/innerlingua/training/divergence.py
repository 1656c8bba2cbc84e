"""Stops a training whose numbers are no longer numbers, before they reach the weights or a checkpoint.

The Trainer itself goes on: it leaves a loss that is not finite out of its log (`logging_nan_inf_filter`), steps with
gradients that are NaN, saves the weights that come of it, and lets `save_total_limit` remove the ones before. Here

    the loss of a step          is looked at when its last micro-batch has gone forward, summed over ranks,
    the norm of its gradient    before the optimiser uses it (the norm is that of all ranks already); DeepSpeed steps
                                within the backward pass, so there right after,
    the weights                 before each checkpoint, and at the end.

What is looked at is the same number in every process, so all of them stop at the same place and none waits for another.
Under fp16 the scaler itself leaves out steps whose gradient is not finite, so the norm is not judged there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from innerlingua.errors import ModelError

__all__ = ["CONSTANT_STEPS", "ConstantTerms", "DivergenceError", "WeightGuard", "refuse_loss", "refuse_norm"]

CONSTANT_STEPS = 20
"""So many steps a term may have one and the same value."""


class DivergenceError(ModelError):
    """A loss, a gradient or a weight is NaN or infinite. Nothing of it was written."""


def refuse_loss(loss: Tensor, step: int) -> None:
    """Raise `DivergenceError` unless `loss`, a scalar, is finite. `step` counts the finished steps."""
    value = float(loss)
    if not math.isfinite(value):
        raise DivergenceError(f"the training has diverged: the loss is {value} at step {step}. {_remedy(step)}")


def refuse_norm(norm: Tensor | float | None, step: int) -> None:
    """Raise `DivergenceError` when the norm of the gradient is not finite; None, where nobody knows it, passes."""
    if norm is None:
        return
    if isinstance(norm, Tensor) and hasattr(norm, "full_tensor"):  # sharded by FSDP2
        norm = norm.full_tensor()
    value = float(norm)
    if not math.isfinite(value):
        raise DivergenceError(
            f"the training has diverged: the loss is finite and the norm of its gradient is {value} at step {step}. "
            f"{_remedy(step)}"
        )


def _remedy(step: int) -> str:
    if step == 0:
        return (
            "It is so from the beginning: look for values in the base model that are not finite, and for fp16, whose "
            "largest number is 65504 (bf16 has the range of float32)"
        )
    return (
        "Nothing of it was saved. Start again with a smaller trainer.learning_rate, more trainer.warmup_steps or a "
        "smaller trainer.max_grad_norm, and look at the rows of this step"
    )


class WeightGuard(TrainerCallback):
    """Refuses to save trained weights that are not finite: an optimiser can make them from a finite gradient.

    `summed` sums a tensor over all ranks, which may hold different shards.
    """

    def __init__(self, summed: Callable[[Tensor], Tensor]) -> None:
        self._summed = summed

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the Trainer after each step; whether a checkpoint may follow is known by then."""
        if _may_save(args, control):
            self._look(kwargs["model"], args, state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer after each epoch."""
        if _may_save(args, control):
            self._look(kwargs["model"], args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer at the end, after which the model is saved."""
        self._look(kwargs["model"], args, state)

    def _look(self, model: nn.Module, args: TrainingArguments, state: TrainerState) -> None:
        bad = {
            name: flag for name, parameter in model.named_parameters() if (flag := _not_finite(parameter)) is not None
        }
        if not bad:
            return
        flags = torch.stack(list(bad.values())).to(args.device).long()
        broken = [name for name, count in zip(bad, self._summed(flags).tolist(), strict=True) if count]
        if broken:
            raise DivergenceError(
                f"the training has diverged: after step {state.global_step}, {len(broken)} trained tensors hold values "
                f"that are not finite (the first is {broken[0]}), and are not saved. The optimiser made them from a "
                "finite gradient: look at trainer.learning_rate, trainer.adam_epsilon and trainer.optim"
            )


def _may_save(args: TrainingArguments, control: TrainerControl) -> bool:
    """Whether a checkpoint may follow: with `save_strategy: best` the evaluation decides, after the callbacks."""
    return control.should_save or (args.save_strategy == SaveStrategy.BEST and control.should_evaluate)


def _not_finite(parameter: nn.Parameter) -> Tensor | None:
    """Whether this process's part of a trained parameter holds a value that is not finite; None when not trained."""
    if not parameter.requires_grad:
        return None
    local: Tensor = parameter.detach()
    if hasattr(parameter, "ds_tensor"):  # taken apart by DeepSpeed ZeRO-3
        local = parameter.ds_tensor
    if hasattr(local, "to_local"):  # sharded by FSDP2
        local = local.to_local()
    return ~torch.isfinite(local).all()


class ConstantTerms:
    """Finds terms of which nothing that is trained changes anything: the same value to the last digit, step by step.

    Rows differ from step to step, and so does a term's mean over them. Where the rows are the same in each step, the
    weights have moved. Steps at a learning rate of 0 move none and are not counted; nor are terms of weight 0, which
    are there to be measured, and steps without a pair.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[float]) -> None:
        self._names, self._weights = names, weights
        self._last: list[float | None] = [None] * len(names)
        self._moved = [False] * len(names)
        self._equal = [1] * len(names)

    def see(self, position: int, value: float, learning_rate: float) -> None:
        """Take note of a term's mean over the pairs of a step. Raises `ModelError` when it never changes."""
        if self._weights[position] <= 0:
            return
        if value != self._last[position]:
            self._equal[position] = 1
        elif self._moved[position]:
            self._equal[position] += 1
        self._last[position], self._moved[position] = value, learning_rate > 0
        if self._equal[position] >= CONSTANT_STEPS:
            raise ModelError(
                f"the term {self._names[position]} is exactly {value} for {CONSTANT_STEPS} steps, though its weight is "
                f"{self._weights[position]:g} and the learning rate is not 0: nothing that is trained changes it. "
                "Train a part of the model that it depends on; where steps are lost in the rounding of 16-bit weights, "
                "train in float32; with a weight of 0 it is measured alone"
            )
