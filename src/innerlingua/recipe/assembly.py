"""The trainer of a recipe: model, rows and terms put together, and held to what was asked for."""

from __future__ import annotations

import torch
from accelerate import PartialState
from datasets import Dataset

from innerlingua.anatomy import check_trainable
from innerlingua.data.packing import LENGTHS
from innerlingua.recipe.batches import refuse_no_step, refuse_uneven
from innerlingua.recipe.model import mark_parts, trained_parts
from innerlingua.recipe.prior import Ingredients
from innerlingua.training import Term, Trainer

__all__ = ["make_trainer"]


def make_trainer(given: Ingredients, rows: Dataset, evaluation: Dataset | None, terms: list[Term]) -> Trainer:
    """The trainer, with exactly that trainable which the recipe asks for."""
    recipe, model = given.recipe, given.model
    trained, adapted = trained_parts(recipe.model, recipe.peft)
    adapters = mark_parts(recipe, model)
    if not terms:
        # Without terms TRL collates by itself, and knows only these.
        rows = rows.select_columns(["input_ids", "labels"])
        evaluation = evaluation.select_columns(["input_ids", "labels"]) if evaluation is not None else None
    trainer = Trainer(
        model=model,
        args=given.args,
        train_dataset=rows,
        eval_dataset=evaluation,
        processing_class=given.tokenizer,
        peft_config=adapters,
        terms=terms,
        packing=recipe.data.max_length if recipe.data.packing else None,
    )
    if recipe.data.packing:
        _look_at_packing(trainer, given, len(rows))
    check_trainable(trainer.model, trained, adapted=adapted)
    _keep_small_steps(trainer, given)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in trainer.model.parameters())
    what = [*trained, *(f"adapters on {part}" for part in adapted)]
    given.say(f"trainable: {trainable:,} of {everything:,} parameters ({', '.join(what)})")
    return trainer


def _look_at_packing(trainer: Trainer, given: Ingredients, rows: int) -> None:
    """Say how many packed rows `rows` became, and refuse numbers of these that cannot be trained on."""
    longest, processes = given.recipe.data.max_length, PartialState().num_processes
    assert longest is not None, "the recipe was checked"
    packed = len(trainer.train_dataset)
    full = sum(map(sum, trainer.train_dataset[LENGTHS])) / (packed * longest)
    given.say(f"packed: {rows:,} rows in {packed:,} of {longest} tokens, {full:.1%} full")
    refuse_no_step(given.args, processes, packed, packed=True)
    refuse_uneven(given.args, processes, packed, packed=True)


def _keep_small_steps(trainer: Trainer, given: Ingredients) -> None:
    """Trained routers beside adapters become float32, as the adapters are; for other trained 16-bit weights, a note.

    PEFT copies a router that is trained whole in the type of the base. In float32 it needs autocast, which the other
    weights of a 16-bit base do without.
    """
    args = given.args
    short = [p for p in trainer.model.parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)]
    if short and given.recipe.peft is not None and (args.bf16 or args.fp16):
        for parameter in short:
            parameter.data = parameter.data.float()
    elif short:
        remedy = (
            "model.dtype: float32 trains them in full"
            if given.recipe.peft is None
            else "trainer.bf16: true lets them be kept in float32"
        )
        given.say(
            f"note: trained weights are {str(short[0].dtype).removeprefix('torch.')}; steps of a size of "
            f"{args.learning_rate:g} are mostly lost in rounding, unless the launcher keeps float32 copies "
            f"(DeepSpeed ZeRO-2 and ZeRO-3 do). {remedy}"
        )
