"""The three runs of the demo: plain fine-tuning, SARA, and SARA with shuffled anchors.

All three start from the same base and see the same rows in the same order for the same number of steps. The last two
differ in the anchors alone: in the control each fact is pulled towards the routing of another fact's English text. When
the control does as well as SARA, what helps is the pull and not the meaning.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
from transformers import PreTrainedTokenizerFast, PrinterCallback, Qwen3MoeForCausalLM, TrainerCallback
from trl import SFTConfig

from innerlingua.data import tokenize_pairs
from innerlingua.demo.world import Row
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer

__all__ = ["Tuned", "rows_dataset", "tune"]


@dataclass(frozen=True)
class Tuned:
    """What a run leaves besides its model: the median seconds per step and what the trainer logged."""

    seconds_per_step: float
    log: list[dict[str, Any]]


class _Steps(TrainerCallback):
    """Times the steps and reports them."""

    def __init__(self, on_step: Callable[[int], None]) -> None:
        self._on_step = on_step
        self._begun = 0.0
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock and report the step."""
        self.seconds.append(time.perf_counter() - self._begun)
        self._on_step(state.global_step)


def rows_dataset(rows: list[Row], tokenizer: PreTrainedTokenizerFast) -> datasets.Dataset:
    """Rows as token ids and labels of both sides; the answer alone is trained on."""
    return tokenize_pairs(datasets.Dataset.from_list(rows), tokenizer).dataset


def tune(
    model: Qwen3MoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: datasets.Dataset,
    prior: RoutingPrior | None,
    *,
    weight: float,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> Tuned:
    """Train `model` in place on tokenised `rows`: with `prior` None plainly, else with the alignment term."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # TRL turns checkpointing on unless it is told not to, and transformers is about to rename the option.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        args = SFTConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, steps // 20),
            adam_beta2=0.95,
            weight_decay=0.0,
            max_length=None,
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=max(1, steps // 10),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            terms=[] if prior is None else [RoutingAlignment(anchor=prior, weight=weight)],
        )
        clock = _Steps(on_step)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    model.train(False)
    return Tuned(statistics.median(clock.seconds), list(trainer.state.log_history))
