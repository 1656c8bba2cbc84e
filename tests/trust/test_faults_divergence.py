"""A training that diverges stops where it does, in every process, and its good checkpoints stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from soak_record import record
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainerControl, TrainerState

from innerlingua.errors import DataError, ModelError
from innerlingua.recipe.checkpoints import flaw_of
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Term, Trainer
from innerlingua.training.divergence import CONSTANT_STEPS, DivergenceError, WeightGuard
from training.processes import run_two
from training.runs import config, model_of, partly_anchored, prior_of


@pytest.fixture(scope="module")
def rows(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    return partly_anchored(pairs, tokenizer)


@pytest.fixture(scope="module")
def prior(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> RoutingPrior:
    return prior_of(pairs, tokenizer)


class Bound:
    """A term on the weight of the final norm alone: `value` of it, once for each row."""

    name = "bound"
    columns: tuple[str, ...] = ()

    def __init__(self, value: Callable[[Tensor], Tensor], *, weight: float = 1.0) -> None:
        self.value, self.weight = value, weight

    def check(self, model: nn.Module) -> None:
        assert isinstance(model.get_parameter("model.norm.weight"), Tensor)

    def collate(self, rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, Tensor]:
        return {"pair_index": torch.arange(len(rows))}

    @contextmanager
    def capture(self, model: nn.Module, batch: dict[str, Tensor]) -> Iterator[Tensor]:
        yield model.get_parameter("model.norm.weight")

    def loss(self, captured: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        pairs = batch["pair_index"].numel()
        return self.value(captured) * pairs, pairs


class At(TrainerCallback):
    """Does something to the model at the beginning of one step."""

    def __init__(self, step: int, what: Callable[[nn.Module], None]) -> None:
        self.step, self.what = step, what

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            with torch.no_grad():
                self.what(kwargs["model"])


def trainer_of(
    folder: Path,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    terms: Sequence[Term],
    *,
    packing: int | None = None,
    **changes: Any,
) -> Trainer:
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1, "learning_rate": 0.01} | changes
    return Trainer(
        model=model_of(),
        args=config(folder, **{"max_steps": 6, "per_device_train_batch_size": 2} | settings),
        train_dataset=rows,
        processing_class=tokenizer,
        terms=terms,
        packing=packing,
    )


def kept(folder: Path) -> list[str]:
    """The checkpoints that are there, each of which must be whole and hold numbers alone."""
    found = sorted((folder / "out").glob("checkpoint-*"))
    for path in found:
        assert flaw_of(path, int(path.name.partition("-")[2])) is None
        assert all(tensor.isfinite().all() for tensor in load_file(path / "model.safetensors").values())
    return [path.name for path in found]


def fill(name: str, value: float) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        model.get_parameter(name).view(-1)[0] = value

    return change


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_nan_stops_the_run_at_once(
    aligned: bool,
    accumulation: int,
    tmp_path: Path,
    rows: Dataset,
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    terms = [RoutingAlignment(anchor=prior, verify_weights=False)] if aligned else []
    # The last norm is above every router: the term stays a number, the cross-entropy does not. What the Trainer logs
    # hides it (`logging_nan_inf_filter`).
    plain = rows if aligned else rows.select_columns(["input_ids", "labels"])
    trainer = trainer_of(tmp_path, plain, tokenizer, terms, gradient_accumulation_steps=accumulation, logging_steps=100)
    assert trainer.args.logging_nan_inf_filter
    trainer.add_callback(At(2, fill("model.norm.weight", float("nan"))))
    with pytest.raises(
        DivergenceError, match=r"the loss is nan at step 2\. Nothing of it was saved\. Start again with a"
    ):
        trainer.train()
    assert kept(tmp_path) == ["checkpoint-2"]


def test_an_infinite_loss_is_told_from_the_first_step_on(
    tmp_path: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = trainer_of(tmp_path, rows.select_columns(["input_ids", "labels"]), tokenizer, [])
    trainer.add_callback(At(0, fill("model.norm.weight", float("inf"))))
    with pytest.raises(DivergenceError, match=r"at step 0\. It is so from the beginning"):
        trainer.train()
    assert kept(tmp_path) == []


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_is_not_used(
    clip: float, tmp_path: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    # The root of nothing is nothing, and its slope is not a number.
    term = Bound(lambda weight: (weight.sum() * 0.0).sqrt())
    trainer = trainer_of(tmp_path, rows, tokenizer, [term], max_grad_norm=clip)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    with pytest.raises(DivergenceError, match=r"finite and the norm of its gradient is (nan|inf) at step 0"):
        trainer.train()
    assert all(torch.equal(before[name], parameter) for name, parameter in trainer.model.named_parameters())


class NoEpsilon(TrainerCallback):
    """From one step on Adam divides by the root of its second moment alone: 0 / 0 for what never had a gradient."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            for group in kwargs["optimizer"].param_groups:
                group["eps"] = 0.0


def test_weights_that_an_optimiser_breaks_are_not_saved(
    tmp_path: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    plain = rows.select_columns(["input_ids", "labels"])
    trainer = trainer_of(tmp_path, plain, tokenizer, [], optim="adamw_torch")
    trainer.add_callback(NoEpsilon(2))
    with pytest.raises(DivergenceError, match=r"after step 3, \d+ trained tensors hold values that are not finite"):
        trainer.train()
    assert kept(tmp_path) == ["checkpoint-2"]


def test_the_weights_are_looked_at_before_the_model_is_saved_at_the_end(
    tmp_path: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    plain = rows.select_columns(["input_ids", "labels"])
    trainer = trainer_of(
        tmp_path, plain, tokenizer, [], optim="adamw_torch", adam_epsilon=0.0, max_steps=1, save_strategy="no"
    )
    with pytest.raises(DivergenceError, match="after step 1"):
        trainer.train()


@pytest.mark.parametrize("strategy", ["best", "no"])
def test_the_weights_are_looked_at_before_an_evaluation_that_may_save_them(tmp_path: Path, strategy: str) -> None:
    args = config(tmp_path, save_strategy=strategy, eval_strategy="steps", eval_steps=1, metric_for_best_model="loss")
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, float("nan"))
    guard = WeightGuard(lambda flags: flags)
    evaluated = TrainerControl(should_evaluate=True)
    for look in (guard.on_step_end, guard.on_epoch_end):
        if strategy == "no":
            look(args, TrainerState(), evaluated, model=model)
            continue
        with pytest.raises(DivergenceError, match="1 trained tensors"):
            look(args, TrainerState(), evaluated, model=model)


def steps_of(trainer: Trainer) -> int:
    trainer.train()
    return int(trainer.state.global_step)


def test_a_term_that_nothing_changes_is_told(tmp_path: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    constant = {"max_steps": CONSTANT_STEPS + 5, "save_strategy": "no"}

    def run(term: Bound, **changes: Any) -> int:
        return steps_of(trainer_of(tmp_path, rows, tokenizer, [term], **constant | changes))

    with pytest.raises(ModelError, match=f"the term bound is exactly 2.5 for {CONSTANT_STEPS} steps"):
        run(Bound(lambda weight: weight.sum() * 0.0 + 2.5))
    # What is measured alone, what moves, and what cannot move because nothing is to be learned yet, is left alone.
    assert run(Bound(lambda weight: weight.sum() * 0.0 + 2.5, weight=0.0)) == CONSTANT_STEPS + 5
    assert run(Bound(lambda weight: weight.square().sum())) == CONSTANT_STEPS + 5
    assert run(Bound(lambda weight: weight.sum() * 0.0 + 2.5), learning_rate=0.0) == CONSTANT_STEPS + 5


def test_a_term_without_gradient_is_refused(tmp_path: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match="no gradient flows from the term bound"):
        steps_of(trainer_of(tmp_path, rows, tokenizer, [Bound(lambda weight: weight.detach().sum())]))
    assert steps_of(trainer_of(tmp_path, rows, tokenizer, [Bound(lambda w: w.detach().sum(), weight=0.0)])) == 6


def test_rows_without_a_supervised_token_are_refused(
    tmp_path: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    # The first label is of a token that nothing precedes, so nothing predicts it.
    empty = rows.to_list()
    empty[3]["labels"] = [5] + [-100] * (len(empty[3]["labels"]) - 1)
    for packing in (None, 64):  # beside others in a packed row, its tokens would not be missed
        with pytest.raises(DataError, match=r"row 3 .* of train_dataset has no token to train on"):
            trainer_of(
                tmp_path,
                Dataset.from_list(empty),
                tokenizer,
                [Bound(lambda weight: weight.square().sum())],
                packing=packing,
            )


TWO = """
from datasets import load_from_disk
from transformers import PreTrainedTokenizerFast
from innerlingua.errors import ModelError
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer
from runs import config, model_of

told = {}
for name in ("loss", "term"):
    model = model_of()
    trainer = Trainer(
        model=model,
        args=config(folder / f"{name}{rank}", max_steps=4, per_device_train_batch_size=2, learning_rate=0.01),
        train_dataset=load_from_disk(folder / "rows"),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        terms=[RoutingAlignment(anchor=RoutingPrior.open(folder / "prior"), verify_weights=False)],
    )
    norm = {"loss": "model.norm", "term": "model.layers.1.mlp.gate"}[name]
    if rank == 1:  # the other process computes with its own, sound weights
        def poison(module, arguments, output):
            spoilt = [t * float("nan") if torch.is_tensor(t) and t.is_floating_point() else t for t in
                      (output if isinstance(output, tuple) else (output,))]
            return tuple(spoilt) if isinstance(output, tuple) else spoilt[0]
        seen = []
        def from_the_third(module, arguments, output):
            seen.append(1)
            return poison(module, arguments, output) if trainer.state.global_step == 2 else output
        model.get_submodule(norm).register_forward_hook(from_the_third)
    try:
        trainer.train()
        told[name] = "nothing"
    except ModelError as error:
        told[name] = f"{type(error).__name__} after {trainer.state.global_step}: {error}"
(folder / f"told{rank}.json").write_text(json.dumps(told))
"""


@pytest.mark.slow
def test_every_process_stops_where_one_diverges(
    tmp_path: Path, rows: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows.save_to_disk(tmp_path / "rows")
    prior.save(tmp_path / "prior")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    run_two(TWO, tmp_path)
    one, other = (json.loads((tmp_path / f"told{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    assert one["loss"].startswith("DivergenceError after 2: the training has diverged: the loss is nan at step 2")
    assert one["term"].startswith("DivergenceError after 2: the term routing_alignment is nan at step 2")
    record(
        "where one process diverges, every process stops at the same step with the same message",
        "two processes (DDP, gloo); the loss, then the term, of the second alone is NaN from its third step on",
        2,
        "inputs",
        "both stop before the step is made",
    )
