"""A model whose experts are modules of their own, as those that come with code of their own still have them.

Each expert runs only when a token is sent to it. Built from the fused experts of a tiny OLMoE, so that it computes the
same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import load_from_disk
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerlingua.anatomy import find_moe_layers
from innerlingua.routing import RoutingAlignment
from innerlingua.training import Trainer
from tiny import tiny_model
from training.runs import VOCAB, config


class Expert(nn.Module):
    """One gated feed-forward network."""

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(gate_up.clone())
        self.down = nn.Parameter(down.clone())

    def forward(self, hidden_states: Tensor) -> Tensor:
        gate, up = nn.functional.linear(hidden_states, self.gate_up).chunk(2, dim=-1)
        return nn.functional.linear(nn.functional.silu(gate) * up, self.down)


class ListedExperts(nn.ModuleList):
    """The experts of one layer; those without a token do not run."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        result = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self):
            token, place = torch.where(top_k_index == number)
            if token.numel():
                result = result.index_add(0, token, expert(hidden_states[token]) * top_k_weights[token, place, None])
        return result


def listed_model(*, vocab_size: int, num_experts: int = 8) -> PreTrainedModel:
    """A tiny OLMoE with its experts taken apart."""
    model = tiny_model("olmoe", vocab_size=vocab_size, num_experts=num_experts)
    for layer in find_moe_layers(model):
        fused = layer.experts
        pairs = zip(fused.gate_up_proj.detach(), fused.down_proj.detach(), strict=True)
        layer.block.experts = ListedExperts(Expert(gate_up, down) for gate_up, down in pairs)
    return model


def trained(folder: Path, batch: int, accumulation: int, **changes: Any) -> Trainer:
    """Six steps on the rows in `folder`, with sixteen experts of which two are used by a token, and a live anchor."""
    # First: under arguments that name ZeRO-3, transformers takes a model apart while it makes it.
    model = listed_model(vocab_size=VOCAB, num_experts=16)
    args = config(
        folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=6,
        learning_rate=0.1,
        max_grad_norm=1.0,
        **changes,
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=load_from_disk(folder / "rows"),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        terms=[RoutingAlignment(anchor="live", weight=20.0, layers=[1, 2])],
    )
    trainer.train()
    return trainer
