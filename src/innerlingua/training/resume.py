"""A guard for resumed trainings whose weights the Trainer does not bring back.

transformers saves a model with fused experts under one name per expert and fuses them again in `from_pretrained`. Its
Trainer resumes in another way: it loads the checkpoint's tensors by name, passes over what does not fit, and goes on
with the experts of the base model (huggingface/transformers issue 48805). A loss curve does not show it. So the guard
looks at what loading has changed: when some parameters took new values and whole matrices did not, the training is
refused. A model that was itself loaded from the checkpoint changes nowhere, and passes.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from innerlingua.errors import ModelError

__all__ = ["ResumeGuard"]

_SAMPLE = 1024


class ResumeGuard(TrainerCallback):
    """Refuses to go on when a resumed full fine-tuning brought back only a part of what is trained."""

    def __init__(self, model: nn.Module) -> None:
        # Adapters are loaded by PEFT, which knows its names.
        self._before = {} if isinstance(model, PeftModel) else _samples(model)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer after a checkpoint was loaded and before the first step."""
        before, self._before = self._before, {}
        if state.global_step == 0 or not before:
            return
        after = _samples(kwargs["model"])
        kept = [name for name, sample in before.items() if name in after and torch.equal(sample, after[name])]
        matrices = [name for name in kept if kwargs["model"].get_parameter(name).dim() > 1]
        if matrices and len(kept) < len(before):
            raise ModelError(
                f"resuming at step {state.global_step} would leave {len(matrices)} matrices at their old values (the "
                f"first is {matrices[0]}): fused experts are stored one by one, and the Trainer does not fuse them "
                "again. Build the trainer on the model of the checkpoint, "
                "AutoModelForCausalLM.from_pretrained(checkpoint), and resume with that; `innerlingua train --resume` "
                "does so by itself"
            )


def _samples(model: nn.Module) -> dict[str, Tensor]:
    """An evenly strided sample of every trained parameter, on the CPU."""
    samples = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            flat = parameter.detach().reshape(-1)
            samples[name] = flat[:: max(1, flat.numel() // _SAMPLE)].cpu().clone()
    return samples
