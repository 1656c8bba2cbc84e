"""Without terms, and with weight 0, the trainer is `trl.SFTTrainer`: the same losses and weights, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from runs import config, model_of, step_logs
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from trl import SFTTrainer

from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer

STEPS = 20
CLOCK = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
OURS = {"routing_alignment", "routing_alignment_weighted"}


def rows_of(kind: str, pairs: Dataset) -> Dataset:
    rows = []
    for row in pairs:
        named = {"id": row["id"], "language": row["language"]}
        for prefix in ("", "anchor_"):
            prompt, completion = row[f"{prefix}prompt"], row[f"{prefix}completion"]
            if kind == "text":
                named[f"{prefix}text"] = f"{prompt} {completion}"
            elif kind == "messages":
                named[f"{prefix}messages"] = [
                    {"role": "user", "content": prompt},
                    {"role": "assistant", "content": completion},
                ]
            else:
                named |= {f"{prefix}prompt": prompt, f"{prefix}completion": completion}
        rows.append(named)
    return Dataset.from_list(rows)


def adapters() -> LoraConfig:
    return LoraConfig(
        r=2,
        target_modules=["q_proj", "v_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"],
        lora_dropout=0.0,
    )


class Run:
    """What a run leaves: its log without the clock, its weights before and after."""

    def __init__(self, cls: type, folder: Path, rows: Dataset, tokenizer: Any, tuning: str, **kwargs: Any) -> None:
        args = config(
            folder,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=STEPS,
            optim="adamw_torch",
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            router_aux_loss_coef=None,  # TRL's default: the model's own coefficient
            train_sampling_strategy="random",
            assistant_only_loss="messages" in rows.column_names,
        )
        model = model_of(num_hidden_layers=3, router_aux_loss_coef=0.01)
        trainer = cls(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=adapters() if tuning == "lora" else None,
            **kwargs,
        )
        self.before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
        self.log = [{k: v for k, v in entry.items() if k not in CLOCK} for entry in trainer.state.log_history]
        self.steps = step_logs(trainer)
        self.weights: dict[str, Tensor] = trainer.model.state_dict()


def assert_equal_runs(run: Run, plain: Run) -> None:
    assert len(plain.steps) == STEPS
    assert all(entry["aux_loss"] > 0 for entry in plain.steps)
    moved = [name for name, value in plain.weights.items() if not torch.equal(value, plain.before[name])]
    assert any("experts" in name for name in moved)
    assert any("gate" in name for name in moved)
    assert [{k: v for k, v in entry.items() if k not in OURS} for entry in run.log] == plain.log
    assert run.weights.keys() == plain.weights.keys()
    assert [name for name in plain.weights if not torch.equal(run.weights[name], plain.weights[name])] == []


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("kind", ["prompt-completion", "text", "messages"])
@pytest.mark.usefixtures("deterministic")
def test_without_terms_and_with_weight_0_it_is_sft(
    kind: str, tuning: str, tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = rows_of(kind, pairs)
    plain = Run(SFTTrainer, tmp_path, rows, tokenizer, tuning)
    assert_equal_runs(Run(Trainer, tmp_path, rows, tokenizer, tuning, terms=[]), plain)
    made = RoutingPrior.compute(model_of(seed=1, num_hidden_layers=3), rows, tokenizer, layers=[1], progress=False)
    term = RoutingAlignment(anchor=made, verify_weights=False, weight=0.0, layers=[1])
    measured = Run(Trainer, tmp_path, rows, tokenizer, tuning, terms=[term])
    assert_equal_runs(measured, plain)
    assert all(entry["routing_alignment"] > 1e-4 for entry in measured.steps)
    assert all(entry["routing_alignment_weighted"] == 0 for entry in measured.steps)


@pytest.mark.usefixtures("deterministic")
def test_a_live_anchor_of_weight_0_is_sft_and_any_other_weight_is_not(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    plain = Run(SFTTrainer, tmp_path, pairs, tokenizer, "full")
    live = RoutingAlignment(anchor="live", weight=0.0, layers=[1], anchor_gradient=True)
    assert_equal_runs(Run(Trainer, tmp_path, pairs, tokenizer, "full", terms=[live]), plain)
    slight = RoutingAlignment(anchor="live", weight=1e-3, layers=[1])
    other = Run(Trainer, tmp_path, pairs, tokenizer, "full", terms=[slight])
    with pytest.raises(AssertionError):
        assert_equal_runs(other, plain)


@pytest.mark.usefixtures("deterministic")
def test_the_callers_arguments_stay_as_they_are(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    args = config(tmp_path, max_length=500)
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    trainer = Trainer(model=model_of(), args=args, train_dataset=tokenised, processing_class=tokenizer, terms=[term])
    assert (args.max_length, args.remove_unused_columns) == (500, True)
    assert (trainer.args.max_length, trainer.args.remove_unused_columns) == (None, False)
