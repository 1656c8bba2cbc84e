"""What the tests of the trainer share: tiny runs, the gradients of each step, the plain loss to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig

from innerlingua.data import tokenize_pairs
from innerlingua.routing import RoutingAlignment, RoutingPrior, js_divergence
from innerlingua.training import Trainer
from tiny import tiny_model

VOCAB = 320  # room for the tests' tokenizer
ALIGNED = [1, 2]

# Rows 1, 4 and 5 have no anchor: micro-batches of one have rows without any, and no two halves have as many pairs.
ANCHORED = [True, False, True, True, False, False, True, True]


def model_of(*, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A tiny Qwen3-MoE with the vocabulary of the tests' tokenizer."""
    return tiny_model("qwen3_moe", seed=seed, vocab_size=VOCAB, **changes)


def config(folder: Path, **changes: Any) -> SFTConfig:
    """Arguments of a small run on the CPU, rows in their order, every step logged."""
    defaults: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "gradient_checkpointing": False,
        "max_length": None,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "optim": "sgd",
        "learning_rate": 0.1,
        "router_aux_loss_coef": 0.0,
    }
    return SFTConfig(**(defaults | changes))


def partly_anchored(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """The eight pairs, tokenised, three of them without their anchor."""
    rows = pairs.to_list()
    for row, anchored in zip(rows, ANCHORED, strict=True):
        if not anchored:
            row["anchor_prompt"] = row["anchor_completion"] = None
    return tokenize_pairs(Dataset.from_list(rows), tokenizer).dataset


def prior_of(dataset: Dataset, tokenizer: PreTrainedTokenizerFast, *, seed: int = 1) -> RoutingPrior:
    """A prior that the model under test did not make, so that the divergences are not small."""
    return RoutingPrior.compute(model_of(seed=seed), dataset, tokenizer, layers=ALIGNED, progress=False)


class Gradients(TrainerCallback):
    """Keeps the gradients of every optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        named = kwargs["model"].named_parameters()
        self.steps.append({name: p.grad.detach().clone() for name, p in named if p.grad is not None})


def train(trainer: Any) -> tuple[list[dict[str, Tensor]], list[dict[str, float]]]:
    """Run it; the gradients and the log entry of each step."""
    gradients = Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    return gradients.steps, step_logs(trainer)


def step_logs(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def fixed_weights_run(
    folder: Path, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, term: RoutingAlignment, **changes: Any
) -> tuple[list[dict[str, Tensor]], list[dict[str, float]]]:
    """One epoch through the real trainer at learning rate 0: every step sees the same weights."""
    arguments = {"learning_rate": 0.0, "num_train_epochs": 1} | changes
    model = arguments.pop("model", None) or model_of()
    packing = arguments.pop("packing", None)
    trainer = Trainer(
        model=model,
        args=config(folder, **arguments),
        train_dataset=dataset,
        processing_class=tokenizer,
        terms=[term],
        packing=packing,
    )
    return train(trainer)


# -- the plain loss: one row at a time, no padding, no hooks, no trainer -----------------------------------------------


def row_losses(model: PreTrainedModel, row: dict[str, Any], prior: RoutingPrior) -> tuple[Tensor, int, Tensor | None]:
    """Of one tokenised row: the sum of the cross-entropy, how many labels, and the mean JS over layers or None."""
    ids = torch.tensor([row["input_ids"]])
    output = model(input_ids=ids, output_router_logits=True, use_cache=False)
    labels = torch.tensor(row["labels"])[1:]
    cross_entropy = torch.nn.functional.cross_entropy(output.logits[0, :-1], labels, ignore_index=-100, reduction="sum")
    if row["anchor_input_ids"] is None:
        return cross_entropy, int((labels != -100).sum()), None
    target = torch.stack([output.router_logits[layer].softmax(-1).mean(0) for layer in ALIGNED])
    return cross_entropy, int((labels != -100).sum()), js_divergence(prior.rows([row["id"]])[0], target).mean()


def plain_step(
    model: PreTrainedModel, rows: Sequence[dict[str, Any]], prior: RoutingPrior, weight: float
) -> tuple[dict[str, Tensor], float | None]:
    """Gradients of CE mean over labels + weight x JS mean over pairs, for one global batch, and that JS."""
    model.zero_grad(set_to_none=True)
    losses = [row_losses(model, row, prior) for row in rows]
    divergences = [js for _, _, js in losses if js is not None]
    loss = sum(ce for ce, _, _ in losses) / sum(count for _, count, _ in losses)
    if divergences:
        loss = loss + weight * torch.stack(divergences).mean()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return gradients, float(torch.stack(divergences).mean().detach()) if divergences else None


def gap(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest distance between two sets of gradients (or weights), per tensor and relative to the largest norm."""
    assert found.keys() == expected.keys()
    scale = max(float(tensor.detach().norm()) for tensor in expected.values())
    return max(float((found[name] - expected[name]).detach().norm()) for name in expected) / scale


# -- one run, in one process or as a rank of several -------------------------------------------------------------------

GLOBAL_BATCH = 8


def short_run(
    folder: Path,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    prior: RoutingPrior,
    anchor: str,
    batch: int,
    accumulation: int,
    model: PreTrainedModel | None = None,
    **changes: Any,
) -> tuple[Trainer, list[dict[str, float]], float]:
    """Three steps and an evaluation: the trainer, the log of each step, the evaluated term."""
    term = RoutingAlignment(anchor=prior, verify_weights=False, weight=20.0)
    if anchor == "live":
        term = RoutingAlignment(anchor="live", weight=20.0, layers=ALIGNED)
    trainer = Trainer(
        model=model or model_of(),
        args=config(
            folder,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=1,
            gradient_accumulation_steps=accumulation,
            **{"max_steps": 3, "learning_rate": 0.01} | changes,
        ),
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=tokenizer,
        terms=[term],
    )
    _, logs = train(trainer)
    return trainer, logs, trainer.evaluate()["eval_routing_alignment"]
