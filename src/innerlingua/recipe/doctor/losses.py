"""What the loss is made of before anything is trained, and where the gradient of each piece goes.

    loss = cross-entropy + coefficient * balance loss + sum over terms of weight * term

The first step is run as the training runs it, all its micro-batches forward and backward, and left before the optimiser
moves: its loss, its logged values and its gradient norm are those that a training logs at step 1. Then each piece is
taken alone on one micro-batch of that step, a forward and a backward pass each, so that no more than one set of
gradients is ever held.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from innerlingua.recipe.doctor.model import PART_NAMES, part_names
from innerlingua.recipe.doctor.prepared import Prepared
from innerlingua.recipe.doctor.report import FirstStep, Gradients, Piece
from innerlingua.training import Term
from innerlingua.training.collate import rows_in

__all__ = [
    "BALANCE",
    "CROSS_ENTROPY",
    "WatchedTerm",
    "first_step",
    "pieces",
    "run_micro_batch",
    "synchronise",
    "without_gradient",
]

Step = Callable[[], None]

CROSS_ENTROPY, BALANCE = "cross_entropy", "balance_loss"


class WatchedTerm:
    """A term of the loss whose value is kept with its graph. `weight` is what the trainer multiplies it with, and can
    be set to 0 without the term's noticing, so that it still carries a gradient."""

    def __init__(self, term: Term) -> None:
        self.term = term
        self.name = term.name
        self.columns = term.columns
        self.weight = term.weight
        self.value: Tensor | None = None
        self.pairs = 0

    def check(self, model: nn.Module) -> None:
        """The term's own check."""
        self.term.check(model)

    def collate(self, rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, Tensor]:
        """The term's own entries."""
        return self.term.collate(rows, width)

    def capture(self, model: nn.Module, batch: dict[str, Tensor]) -> AbstractContextManager[Any]:
        """The term's own context."""
        return self.term.capture(model, batch)

    def loss(self, captured: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """The term's own value, which is kept."""
        self.value, self.pairs = self.term.loss(captured, batch)
        return self.value, self.pairs


def first_step(prepared: Prepared, *, advance: Step) -> tuple[FirstStep, list[dict[str, Any]], list[float]]:
    """The first step, its micro-batches as the trainer collated them, and the seconds that each took.

    Raises what the training would raise there.
    """
    trainer = prepared.trainer
    batches, items = _first_batches(prepared)
    trainer.current_gradient_accumulation_steps = len(batches)
    prepared.clear_gradients()
    trainer._metrics["train"].clear()  # of passes before this one
    trainer._total_train_tokens = 0
    loss, seconds = 0.0, []
    for place, batch in enumerate(batches):
        trainer.accelerator.gradient_state._set_sync_gradients(place == len(batches) - 1)
        started = time.perf_counter()
        loss += float(trainer.training_step(prepared.model, dict(batch), items))
        synchronise(trainer.args.device)
        seconds.append(time.perf_counter() - started)
        advance()
    logged = {key: sum(values) / len(values) for key, values in trainer._metrics["train"].items()}
    step = FirstStep(
        micro_batches=len(batches),
        rows=sum(map(rows_in, batches)),
        padded_tokens=sum(batch["input_ids"].numel() for batch in batches),
        loss=loss,
        logged=logged,
        gradients=_gradients(prepared),
        without_gradient=without_gradient(prepared),
    )
    prepared.clear_gradients()
    return step, batches, seconds


def pieces(prepared: Prepared, terms: Sequence[WatchedTerm], batch: dict[str, Any], *, advance: Step) -> list[Piece]:
    """The pieces of the loss on one micro-batch: cross-entropy first, then the balance loss where there is one."""
    trainer = prepared.trainer
    coefficient = trainer.router_aux_loss_coef if trainer.aux_loss_enabled else 0.0
    weights = [term.weight for term in terms]
    balance: list[Tensor] = []

    def keep_balance(module: nn.Module, args: Any, output: Any) -> None:
        balance[:] = [output.aux_loss]

    hook = trainer.model.register_forward_hook(keep_balance) if coefficient else None
    chosen: list[tuple[str, float, Callable[[Tensor], Tensor]]] = [(CROSS_ENTROPY, 1.0, lambda loss: loss)]
    if coefficient:
        chosen.append((BALANCE, coefficient, lambda loss: balance[0]))
    chosen += [(term.name, weight, _mean_of(term)) for term, weight in zip(terms, weights, strict=True)]
    try:
        # What is left of the trainer's own loss is the cross-entropy.
        trainer.router_aux_loss_coef = 0.0
        for term in terms:
            term.weight = 0.0
        found = []
        for name, weight, choose in chosen:
            prepared.restore_random_state()
            value = choose(_forward(prepared, batch))
            if value.requires_grad:
                (value * prepared.gradient_scale).backward()  # type: ignore[no-untyped-call]
            found.append(Piece(name, weight, float(value.detach()), _gradients(prepared)))
            prepared.clear_gradients()
            del value
            balance.clear()
            for term in terms:
                term.value = None
            advance()
        return found
    finally:
        trainer.router_aux_loss_coef = coefficient
        for term, weight in zip(terms, weights, strict=True):
            term.weight = weight
        if hook is not None:
            hook.remove()


def run_micro_batch(prepared: Prepared, batch: dict[str, Any]) -> float:
    """Seconds of one micro-batch forward and backward, as a step of its own. The gradients stay."""
    trainer = prepared.trainer
    started = time.perf_counter()
    batches, items = trainer.get_batch_samples(iter([dict(batch)]), 1, trainer.args.device)
    trainer.current_gradient_accumulation_steps = 1
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    trainer.training_step(prepared.model, batches[0], items)
    synchronise(trainer.args.device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    """Wait until `device` has done what it was given, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _first_batches(prepared: Prepared) -> tuple[list[dict[str, Any]], Any]:
    """The micro-batches of the first step in the order of a training, and the number of their supervised tokens."""
    trainer, plan = prepared.trainer, prepared.plan
    accumulation = trainer.args.gradient_accumulation_steps
    count = accumulation
    if plan.steps_of_an_epoch == 1:
        count = plan.micro_batches_of_an_epoch % accumulation or accumulation
    prepared.restore_random_state()
    if hasattr(prepared.loader, "set_epoch"):
        prepared.loader.set_epoch(0)
    return trainer.get_batch_samples(iter(prepared.loader), count, trainer.args.device)


def _forward(prepared: Prepared, batch: dict[str, Any]) -> Tensor:
    """The trainer's loss of one micro-batch as a step of its own, with its graph."""
    trainer = prepared.trainer
    batches, items = trainer.get_batch_samples(iter([dict(batch)]), 1, trainer.args.device)
    trainer.current_gradient_accumulation_steps = 1
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    prepared.model.train()
    inputs = trainer._prepare_inputs(batches[0])
    with trainer.maybe_activation_offload_context, trainer.compute_loss_context_manager():
        loss: Tensor = trainer.compute_loss(prepared.model, inputs, num_items_in_batch=items)
    return loss


def _mean_of(term: WatchedTerm) -> Callable[[Tensor], Tensor]:
    def mean(loss: Tensor) -> Tensor:
        assert term.value is not None, "set by the forward pass"
        return term.value / max(1, term.pairs)

    return mean


def _gradients(prepared: Prepared) -> Gradients:
    names = part_names(prepared.trainer.model)
    squares: defaultdict[str, float] = defaultdict(float)
    for name, parameter in prepared.trained():
        squares[names[name]] += 0.0 if parameter.grad is None else float(_norm(parameter.grad)) ** 2
    scale = prepared.gradient_scale
    return Gradients(
        parts={part: squares[part] ** 0.5 / scale for part in PART_NAMES if part in squares},
        total=sum(squares.values()) ** 0.5 / scale,
    )


def _norm(gradient: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float32)  # without a copy in float32
    return norm


def without_gradient(prepared: Prepared) -> list[str]:
    """Names of trained tensors that the first step does not move. An adapter's first matrix has no gradient while its
    second is 0, as it is at the start, and is no such tensor."""
    return [
        name
        for name, parameter in prepared.trained()
        if ".lora_A" not in name and (parameter.grad is None or not bool(parameter.grad.any()))
    ]
