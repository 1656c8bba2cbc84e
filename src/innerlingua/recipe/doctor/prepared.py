"""A trainer as it stands when its first step would begin.

`Trainer.train` prepares a good deal: checkpointing, precision, the optimiser, hooks, the order of the rows. None of
that is written again here: it is started, and left at the last moment before the first batch, by an error of our own
from a callback. No optimiser has stepped by then, and nothing has been saved.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig

from innerlingua.training import Trainer

__all__ = ["Plan", "Prepared", "prepare", "quiet_args"]


@dataclass(frozen=True)
class Plan:
    """What the trainer has planned for one process: epochs (whole ones), micro-batches and steps of an epoch, steps."""

    epochs: int
    micro_batches_of_an_epoch: int
    steps_of_an_epoch: int
    steps: int


@dataclass(frozen=True)
class Prepared:
    """`model` is the trainer's, wrapped for its device and precision; `loader` gives its micro-batches."""

    trainer: Trainer
    model: nn.Module
    loader: Any
    plan: Plan
    random_state: tuple[Tensor, list[Tensor]]

    def restore_random_state(self) -> None:
        """Set the generators to what the first step of a training finds."""
        torch.set_rng_state(self.random_state[0])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(self.random_state[1])

    @property
    def gradient_scale(self) -> float:
        """What gradients are multiplied with against underflow (float16), 1 otherwise."""
        scaler = self.trainer.accelerator.scaler
        return 1.0 if scaler is None else float(scaler.get_scale())

    def clear_gradients(self) -> None:
        """Free all gradients."""
        self.trainer.model.zero_grad(set_to_none=True)

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that are trained, by name."""
        return ((name, p) for name, p in self.trainer.model.named_parameters() if p.requires_grad)


def quiet_args(args: SFTConfig, folder: str) -> SFTConfig:
    """A copy of `args` that writes into `folder` if anywhere, tells nobody, and reads rows in this process."""
    quiet = copy.copy(args)
    quiet.output_dir = folder
    quiet.report_to = []
    quiet.push_to_hub = False
    quiet.enable_jit_checkpoint = False
    quiet.disable_tqdm = True
    quiet.auto_find_batch_size = False
    quiet.dataloader_num_workers = 0
    quiet.dataloader_prefetch_factor = None
    quiet.dataloader_persistent_workers = False
    quiet.dataloader_multiprocessing_context = None
    return quiet


def prepare(trainer: Trainer) -> Prepared:
    """Start the training of `trainer` and stop before its first step."""
    stop = _StopBeforeTheFirstStep()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(stop)
    try:
        trainer.train()
    except _ReadyToTrain:
        trainer.remove_callback(stop)
    else:
        raise AssertionError("the trainer began without telling its callbacks")
    loader = trainer.callback_handler.train_dataloader
    epochs, steps_of_an_epoch, _, _, _, micro_batches, steps = trainer.set_initial_training_values(trainer.args, loader)
    return Prepared(
        trainer=trainer,
        model=trainer.model_wrapped,
        loader=loader,
        plan=Plan(epochs, micro_batches, steps_of_an_epoch, steps),
        random_state=stop.random_state,
    )


class _ReadyToTrain(Exception):  # noqa: N818  # no error: it carries control out of the trainer
    pass


class _StopBeforeTheFirstStep(TrainerCallback):
    random_state: tuple[Tensor, list[Tensor]]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self.random_state = torch.get_rng_state(), cuda
        raise _ReadyToTrain
