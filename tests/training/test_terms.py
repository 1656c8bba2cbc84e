"""Several terms at once: each is captured, weighed, added and logged under its own name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from runs import ALIGNED, config, fixed_weights_run, model_of, row_losses, train
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from innerlingua.errors import ModelError
from innerlingua.routing import RoutingAlignment, RoutingPrior, js_divergence
from innerlingua.training import Trainer


class DeepAlignment(RoutingAlignment):
    """The same loss at other layers, under another name."""

    name = "deep_alignment"


class FinalNorm:
    """A term without any routing: the mean square of the last hidden state, over the tokens of each row."""

    name = "final_norm"
    columns = ("labels",)

    def __init__(self, weight: float, *, poison: float = 0.0) -> None:
        self.weight = weight
        self.poison = poison
        self.seen: list[set[str]] = []

    def check(self, model: nn.Module) -> None:
        assert isinstance(model, nn.Module)

    def collate(self, rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, Tensor]:
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        return {"pair_index": torch.arange(len(rows)), "lengths": lengths}

    @contextmanager
    def capture(self, model: nn.Module, batch: dict[str, Tensor]) -> Iterator[list[Tensor]]:
        kept: list[Tensor] = []
        norm = model.get_submodule("model.norm")
        handle = norm.register_forward_hook(lambda module, args, output: kept.append(output))
        try:
            yield kept
        finally:
            handle.remove()

    def loss(self, captured: list[Tensor], batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        self.seen.append(set(batch))
        [hidden] = captured
        squares = [row[:length].square().mean() for row, length in zip(hidden, batch["lengths"].tolist(), strict=True)]
        return torch.stack(squares).sum() + self.poison, len(squares)


def test_two_alignments_and_a_foreign_term_add_up(
    tmp_path: Path, pairs: Dataset, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    deep = RoutingPrior.compute(model_of(seed=2), pairs, tokenizer, layers=[0, 3], progress=False)
    terms = [
        RoutingAlignment(anchor=prior, verify_weights=False, weight=1.5),
        DeepAlignment(anchor=deep, verify_weights=False, weight=0.7, layers=[3]),
        FinalNorm(weight=0.3),
    ]
    trainer = Trainer(
        model=model_of(),
        args=config(
            tmp_path,
            learning_rate=0.0,
            num_train_epochs=1,
            per_device_train_batch_size=8,
            router_aux_loss_coef=0.05,
        ),
        train_dataset=tokenised,
        processing_class=tokenizer,
        terms=terms,
    )
    _, [log] = train(trainer)

    model, rows = model_of(), tokenised.to_list()
    with torch.no_grad():
        losses = [row_losses(model, row, prior) for row in rows]
        cross_entropy = sum(float(ce) for ce, _, _ in losses) / sum(count for _, count, _ in losses)
        first = torch.stack([js for _, _, js in losses if js is not None]).mean()
        outputs = [
            model(input_ids=torch.tensor([row["input_ids"]]), output_router_logits=True, output_hidden_states=True)
            for row in rows
        ]
        second = torch.stack(
            [
                js_divergence(deep.rows([row["id"]])[0, 1], output.router_logits[3].softmax(-1).mean(0))
                for row, output in zip(rows, outputs, strict=True)
                if row["anchor_input_ids"] is not None
            ]
        ).mean()
        third = torch.stack([output.hidden_states[-1].square().mean() for output in outputs]).mean()
    for term, mean in zip(terms, (first, second, third), strict=True):
        assert log[term.name] == pytest.approx(float(mean), rel=1e-5)
        assert log[f"{term.name}_weighted"] == pytest.approx(term.weight * float(mean), rel=1e-5)
    weighted = 1.5 * float(first) + 0.7 * float(second) + 0.3 * float(third)
    assert log["loss"] == pytest.approx(cross_entropy + 0.05 * log["aux_loss"] + weighted, rel=1e-6)


def test_a_term_gets_its_own_entries_and_no_others(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    foreign = FinalNorm(weight=0.0)
    trainer = Trainer(
        model=model_of(),
        args=config(tmp_path, max_steps=1),
        train_dataset=tokenised,
        processing_class=tokenizer,
        terms=[foreign, RoutingAlignment(anchor=prior, verify_weights=False)],
    )
    trainer.train()
    assert foreign.seen == [{"pair_index", "lengths"}]


class Watched(RoutingAlignment):
    """Notes whether its sums carry a gradient."""

    carried: bool | None = None

    def loss(self, captured: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        total, count = super().loss(captured, batch)
        self.carried = total.requires_grad
        return total, count


@pytest.mark.parametrize("weight", [0.0, 0.1])
@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_a_weight_of_0_measures_without_gradient(
    anchor: str,
    weight: float,
    tmp_path: Path,
    tokenised: Dataset,
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    term = Watched(anchor=prior, verify_weights=False, weight=weight)
    if anchor == "live":
        term = Watched(anchor="live", weight=weight, layers=ALIGNED, anchor_gradient=True)
    fixed_weights_run(tmp_path, tokenised, tokenizer, term, per_device_train_batch_size=8)
    assert term.carried is (weight > 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_term_that_is_not_finite_stops_the_run_by_name(
    value: float, weight: float, tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_of()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = Trainer(
        model=model,
        args=config(tmp_path, max_steps=2),
        train_dataset=tokenised,
        processing_class=tokenizer,
        terms=[FinalNorm(weight=weight, poison=value)],
    )
    with pytest.raises(ModelError, match=f"final_norm is {value} at step 0"):
        trainer.train()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_routers_that_turn_nan_stop_the_run(
    tmp_path: Path, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_of()
    trainer = Trainer(
        model=model,
        args=config(tmp_path, max_steps=2),
        train_dataset=tokenised,
        processing_class=tokenizer,
        terms=[RoutingAlignment(anchor=prior, verify_weights=False)],
    )
    with torch.no_grad():
        model.get_submodule("model.layers.2.mlp.gate").weight[3] = float("nan")
    with pytest.raises(ModelError, match="routing_alignment is nan"):
        trainer.train()
