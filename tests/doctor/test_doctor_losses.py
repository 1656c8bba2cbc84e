"""The pieces of the loss against a plain computation: no trainer, no hooks, no padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from innerlingua.anatomy import parameter_parts
from innerlingua.data import read_pairs, tokenize_pairs
from innerlingua.recipe.doctor.losses import without_gradient
from innerlingua.recipe.doctor.prepared import Plan, Prepared
from innerlingua.recipe.doctor.report import Losses, Report
from innerlingua.routing import js_divergence

# All rows are one micro-batch of one step, so that nothing hangs on their order.
WHOLE = (
    *("--trainer.per-device-train-batch-size", "24", "--trainer.gradient-accumulation-steps", "1"),
    *("--trainer.max-steps", "1", "--alignment.layers", "[1, 2]"),
)


def plain_losses(model: PreTrainedModel, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Cross-entropy over all labels of all rows, and the mean divergence of targets and anchors at layers 1, 2."""
    total, count, divergences = torch.zeros(()), 0, []
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        output = model(input_ids=ids, output_router_logits=True, use_cache=False)
        total = total + torch.nn.functional.cross_entropy(output.logits[0, :-1], labels, reduction="sum")
        count += int((labels != -100).sum())
        with torch.no_grad():
            anchor = model(input_ids=torch.tensor([row["anchor_input_ids"]]), output_router_logits=True)
        pooled = [
            torch.stack([routing.router_logits[layer].softmax(-1).mean(0) for layer in (1, 2)])
            for routing in (anchor, output)
        ]
        divergences.append(js_divergence(pooled[0].detach(), pooled[1]).mean())
    return {"cross_entropy": total / count, "routing_alignment": torch.stack(divergences).mean()}


def norms(model: PreTrainedModel, loss: Tensor) -> dict[str, float]:
    """The norm of the gradient of `loss` by part."""
    model.zero_grad()
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    squares: dict[str, float] = {}
    for (name, part), parameter in zip(parameter_parts(model).items(), model.parameters(), strict=True):
        assert name
        squares[part] = squares.get(part, 0.0) + (0.0 if parameter.grad is None else float(parameter.grad.norm()) ** 2)
    return {part: square**0.5 for part, square in squares.items()}


def losses_of(report: Report) -> Losses:
    assert report.losses is not None, report.findings
    return report.losses


@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_each_piece_and_its_gradient_by_part(
    anchor: str,
    examined: Callable[..., Report],
    home: Callable[..., Path],
    rows_file: Path,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    found = losses_of(examined(*WHOLE, "--alignment.anchor", anchor, "--trainer.gradient-checkpointing"))
    model = AutoModelForCausalLM.from_pretrained(home(), attn_implementation="eager", experts_implementation="eager")
    rows = tokenize_pairs(read_pairs([str(rows_file)]).dataset, tokenizer).dataset.to_list()
    expected = plain_losses(model, rows)
    pieces = {piece.name: piece for piece in found.pieces}
    assert list(pieces) == ["cross_entropy", "balance_loss", "routing_alignment"]
    for name, loss in expected.items():
        assert pieces[name].value == pytest.approx(float(loss), rel=1e-5)
        parts = norms(model, loss)
        assert parts.keys() == pieces[name].gradients.parts.keys()
        for part, norm in parts.items():
            assert pieces[name].gradients.parts[part] == pytest.approx(norm, rel=1e-4, abs=1e-7), (name, part)
    # Routing says nothing about the head, which lies behind it.
    assert pieces["routing_alignment"].gradients.parts["head"] == 0.0
    assert min(pieces["routing_alignment"].gradients.parts[part] for part in ("router", "experts", "attention")) > 0


def test_the_pieces_add_up_to_the_loss_of_the_step(examined: Callable[..., Report]) -> None:
    found = losses_of(examined(*WHOLE, "--alignment.weight", "7"))
    assert [piece.weight for piece in found.pieces] == [1.0, 0.001, 7.0]
    assert sum(piece.weight * piece.value for piece in found.pieces) == pytest.approx(found.step.loss, rel=1e-6)
    total = sum(piece.weight * piece.gradients.total for piece in found.pieces)
    assert found.step.gradients.total <= total


def test_weight_0_is_measured_and_has_no_gradient(examined: Callable[..., Report]) -> None:
    found = losses_of(examined(*WHOLE, "--alignment.weight", "0"))
    term = found.pieces[-1]
    assert (term.name, term.weight, term.gradients.total) == ("routing_alignment", 0.0, 0.0)
    assert term.value > 0


def test_only_what_is_trained_has_a_gradient(examined: Callable[..., Report]) -> None:
    found = losses_of(examined(*WHOLE, "--peft.r", "2", "--peft.parts", "[experts]", "--peft.router", "train"))
    for piece in found.pieces:
        assert set(piece.gradients.parts) == {"router", "adapters on experts"}
    assert found.step.without_gradient == []


def test_without_a_term_and_a_balance_loss_the_cross_entropy_is_all(examined: Callable[..., Report]) -> None:
    report = examined(*WHOLE[:-2], "--alignment", "null", "--trainer.router-aux-loss-coef", "0.0")
    assert [piece.name for piece in losses_of(report).pieces] == ["cross_entropy"]
    assert losses_of(report).step.loss == pytest.approx(losses_of(report).pieces[0].value, rel=1e-6)


def test_trained_tensors_without_a_gradient_are_named() -> None:
    names = ("moved", "still", "unreached", "frozen", "q_proj.lora_A.weight", "q_proj.lora_B.weight")
    tensors = {name: torch.nn.Parameter(torch.ones(2)) for name in names}
    tensors["frozen"].requires_grad_(False)
    tensors["moved"].grad = torch.tensor([0.0, 1e-30])
    for name in ("still", "q_proj.lora_A.weight", "q_proj.lora_B.weight"):
        tensors[name].grad = torch.zeros(2)
    model = SimpleNamespace(named_parameters=tensors.items)
    prepared = Prepared(SimpleNamespace(model=model), None, None, Plan(1, 1, 1, 1), (torch.empty(0), []))  # type: ignore[arg-type]
    assert without_gradient(prepared) == ["still", "unreached", "q_proj.lora_B.weight"]
