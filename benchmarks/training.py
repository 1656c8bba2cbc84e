"""The models, rows and trainers that the benchmarks of a step compare.

All trainers of a comparison share one model and one optimizer, so that they differ in the step alone: the same
weights, the same routing, the same places in memory. A step is what the Trainer's own loop does with one batch:
reading the rows, collating, forward, backward, clipping, optimizer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import get_peft_model
from tokenizer import tiny_tokenizer  # beside this file
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM
from trl import SFTConfig, SFTTrainer

from innerlingua import RoutingAlignment, RoutingPrior, Trainer
from innerlingua.anatomy import find_moe_layers
from innerlingua.recipe.model import adapter_config
from innerlingua.recipe.schema import PeftSection

VOCABULARY = 8192
WEIGHT = 1.5


def add_model_arguments(parser: argparse.ArgumentParser, **defaults: int) -> None:
    """The sizes of the model and of a step."""
    sizes = {
        "hidden": "width of the hidden states",
        "layers": "decoder layers, all of them MoE",
        "experts": "experts of a layer",
        "top_k": "experts of a token",
        "tokens": "tokens of a row",
        "batch": "rows of a batch",
    }
    for name, meaning in sizes.items():
        default = defaults[name]
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--experts-implementation", default=None, help="default: that of transformers")


def model_of(args: argparse.Namespace) -> PreTrainedModel:
    """A random Qwen3-MoE."""
    torch.manual_seed(0)
    heads = max(1, args.hidden // 64)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 2,
        moe_intermediate_size=args.hidden // 2,
        num_hidden_layers=args.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=min(64, args.hidden),
        num_experts=args.experts,
        num_experts_per_tok=args.top_k,
        norm_topk_prob=True,
        max_position_embeddings=max(4096, args.tokens),
    )
    model = Qwen3MoeForCausalLM(config)
    if args.experts_implementation is not None:
        model.set_experts_implementation(args.experts_implementation)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def with_adapters(model: PreTrainedModel) -> nn.Module:
    """LoRA on attention and experts, routers trained whole, as a recipe's `peft` section makes them."""
    return get_peft_model(model, adapter_config(PeftSection(router="train"), model))


def aligned_layers(layers: int) -> list[int]:
    """15 % to 72 % of the depth, the package's default."""
    return list(range(round(layers * 0.15), round(layers * 0.72) + 1))


def rows_of(args: argparse.Namespace) -> Dataset:
    """Pairs of random tokens, four steps of them, both sides of equal length."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(args.batch * 4):
        target = generator.integers(3, VOCABULARY, args.tokens).tolist()
        anchor = generator.integers(3, VOCABULARY, args.tokens).tolist()
        rows.append(
            {
                "id": str(index),
                "language": "swh_Latn",
                "input_ids": target,
                "labels": target,
                "anchor_input_ids": anchor,
                "anchor_labels": anchor,
            }
        )
    return Dataset.from_list(rows)


def arguments_of(args: argparse.Namespace) -> SFTConfig:
    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.batch,
        max_steps=10_000,
        max_length=None,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,  # `gpu.py` measures what a GPU does with it
        report_to="none",
        gradient_checkpointing=False,  # turned on and off on the shared model
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def prior_of(args: argparse.Namespace, model: PreTrainedModel, rows: Dataset) -> RoutingPrior:
    """The stored prior, in the numeric type of the steps."""
    return RoutingPrior.compute(
        model,
        rows,
        tiny_tokenizer(),
        args=arguments_of(args),
        layers=aligned_layers(args.layers),
        progress=False,
    )


@dataclass(frozen=True)
class Subject:
    """One trainer and its steps of `micro_batches` batches."""

    trainer: Any
    rows: Dataset
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    batch: int
    micro_batches: int = 1

    def batch_of(self, number: int) -> dict[str, Any]:
        first = number * self.batch % len(self.rows)
        collated: dict[str, Any] = self.collate(self.rows.__getitems__(list(range(first, first + self.batch))))
        return collated

    def forward_and_backward(self, number: int) -> Tensor:
        """The Trainer's own `training_step` with each micro-batch of a step; their loss, detached."""
        trainer, count = self.trainer, self.micro_batches
        drawn = [self.batch_of(number * count + place) for place in range(count)]
        samples, items = trainer.get_batch_samples(iter(drawn), count, trainer.args.device)
        trainer.current_gradient_accumulation_steps = count
        total = torch.zeros(())
        for place, sample in enumerate(samples):
            trainer.accelerator.gradient_state._set_sync_gradients(place == count - 1)
            total = total + trainer.training_step(trainer.model, sample, items)
        return total

    def forward(self, number: int) -> Tensor:
        """The loss with its graph."""
        trainer = self.trainer
        trainer.model.train()
        samples, items = trainer.get_batch_samples(iter([self.batch_of(number)]), 1, trainer.args.device)
        trainer.current_gradient_accumulation_steps = 1
        inputs = trainer._prepare_inputs(samples[0])
        with trainer.compute_loss_context_manager():
            loss: Tensor = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=items)
        return loss

    def step(self, number: int) -> None:
        self.forward_and_backward(number)
        trainer = self.trainer
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.model.zero_grad()


def subject_of(
    args: argparse.Namespace,
    model: nn.Module,
    rows: Dataset,
    optimizer: torch.optim.Optimizer,
    make: Callable[..., Any],
) -> Subject:
    """The trainer that `make` gives for the shared model and optimizer."""
    trainer = make(
        model=model,
        args=arguments_of(args),
        train_dataset=rows,
        processing_class=tiny_tokenizer(),
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)),
    )
    loader = trainer.get_train_dataloader()
    return Subject(trainer, loader.dataset, loader.collate_fn, args.batch, args.micro_batches)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """The Trainer's default: fused AdamW. A rate of nearly nothing, so that the routing stays what it is."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=1e-9, fused=True)


def plain(**kwargs: Any) -> SFTTrainer:
    return SFTTrainer(**kwargs)


def stored(prior: RoutingPrior, trainer: type[Trainer] = Trainer) -> Callable[..., Trainer]:
    def make(**kwargs: Any) -> Trainer:
        # The adapters have changed no weight, but routers that are trained whole have another name.
        return trainer(**kwargs, terms=[RoutingAlignment(anchor=prior, weight=WEIGHT)])

    return make


def live(layers: list[int], trainer: type[Trainer] = Trainer) -> Callable[..., Trainer]:
    def make(**kwargs: Any) -> Trainer:
        return trainer(**kwargs, terms=[RoutingAlignment(anchor="live", layers=layers, weight=WEIGHT)])

    return make


def set_checkpointing(model: nn.Module, on: bool) -> None:
    """Non-reentrant gradient checkpointing, as the Trainer turns it on."""
    if on:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if hasattr(model, "peft_config"):
            model.enable_input_require_grads()
    else:
        model.gradient_checkpointing_disable()


def anchor_pass(subject: Subject, model: nn.Module, layers: list[int]) -> Callable[[int], None]:
    """A bare forward pass over the anchors of a step as deep as the last of `layers`: no head, no gradient, nothing
    captured.

    `subject` has live anchors; they are collated beforehand.
    """
    backbone = find_moe_layers(model)[0].backbone
    config, depth = backbone.config, max(layers) + 1
    device = next(model.parameters()).device
    ready = []
    for number in range(len(subject.rows) // subject.batch):
        entries = {key.rpartition(".")[2]: value for key, value in subject.batch_of(number).items()}
        ready.append([entries[f"anchor_{name}"].to(device) for name in ("input_ids", "attention_mask")])

    def run(number: int) -> None:
        whole, config.num_hidden_layers = config.num_hidden_layers, depth
        for place in range(subject.micro_batches):
            input_ids, attention_mask = ready[(number * subject.micro_batches + place) % len(ready)]
            backbone.eval()
            with torch.no_grad():
                backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            backbone.train()
        config.num_hidden_layers = whole

    return run
