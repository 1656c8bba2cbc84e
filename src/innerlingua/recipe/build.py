"""From a recipe to a run, step by step. Imports torch, so import it late.

The order is that of cost: the trainer's fields, the folder, the recipe of a run to be resumed, the rows, the model, the
prior, the training. What can be refused is refused before the next step costs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from innerlingua.data.wording import counted
from innerlingua.errors import RecipeError
from innerlingua.recipe import run
from innerlingua.recipe.assembly import make_trainer
from innerlingua.recipe.attempt import attempt, without_unexpected_keys
from innerlingua.recipe.batches import NO_STEP, refuse_no_step, refuse_uneven
from innerlingua.recipe.beginning import begin
from innerlingua.recipe.benchmarks import benchmark_callbacks, refuse_spread
from innerlingua.recipe.checkpoints import unseal_later
from innerlingua.recipe.drift import base_of, refuse_drift, sources
from innerlingua.recipe.group import own_group
from innerlingua.recipe.loading import placed, to_yaml
from innerlingua.recipe.model import chosen_implementations, load_model, load_tokenizer, mark_parts, with_layers
from innerlingua.recipe.prior import (
    Ingredients,
    check_recorded,
    prior_digest,
    replacing,
    stored_prior,
    values_digest,
)
from innerlingua.recipe.result import result_of, save_model, versions
from innerlingua.recipe.resume_state import checkpoint_to_resume
from innerlingua.recipe.rows import read_rows, refuse_unknown_tokens
from innerlingua.recipe.schema import Recipe
from innerlingua.recipe.terms import TERMS
from innerlingua.recipe.writable import refusing_full
from innerlingua.routing.processes import all_processes

__all__ = ["run_prior", "run_training"]

Say = Callable[[str], None]


def run_training(recipe: Recipe, *, resume: bool = False, overwrite: bool = False, say: Say = print) -> Path:
    """Train as `recipe` says and return the folder with the result.

    Under `accelerate launch` every process calls this; the main one writes. `resume` continues the last complete
    checkpoint, and is refused when something has changed that changes the training; `overwrite` replaces an earlier
    run.
    Raises the errors of `innerlingua.errors` for everything that a user can mend; one that opens with a key of the
    recipe also says where the key stands.
    """
    with own_group(), placed(recipe), refusing_full(f"trainer.output_dir: {recipe.trainer.get('output_dir')}"):
        return _run_training(recipe, resume=resume, overwrite=overwrite, say=say)


def _run_training(recipe: Recipe, *, resume: bool, overwrite: bool, say: Say) -> Path:
    recipe, args, state = begin(recipe, say)
    refuse_spread(recipe.evaluation, args)
    folder, group = Path(args.output_dir), all_processes()
    group.on_main(lambda: run.check_folder(folder, resume=resume, overwrite=overwrite))
    record: dict[str, Any] = {"processes": state.num_processes}
    if resume:
        refuse_drift(folder, recipe, record)
    checkpoint = checkpoint_to_resume(folder, say) if resume else None
    tokenizer = load_tokenizer(recipe.model)
    rows, recipe = read_rows(recipe, tokenizer, say)
    refuse_no_step(args, state.num_processes, len(rows.train))
    if not recipe.data.packing:
        refuse_uneven(args, state.num_processes, len(rows.train))
    record |= rows.digests() | {"sources": sources(recipe, rows)}
    if resume:
        refuse_drift(folder, recipe, record)
        group.on_main(lambda: check_recorded(recipe, folder, run.read_record(folder), say))
    callbacks = benchmark_callbacks(recipe.evaluation, tokenizer)
    model, recipe = _model(recipe, say, checkpoint=checkpoint)
    refuse_unknown_tokens(rows, tokenizer, model)
    record["base"] = base_of(recipe, model)
    mark_parts(recipe, model)  # refused before a prior is computed; `make_trainer` asks again
    if resume:
        refuse_drift(folder, recipe, record)
        say(f"resuming from {checkpoint}")
    given = Ingredients(
        recipe=recipe,
        args=args,
        model=model,
        tokenizer=tokenizer,
        anchors=rows.anchors,
        folder=folder,
        fresh_weights=not resume,
        overwrite=overwrite,
        say=say,
    )
    with replacing(folder), chosen_implementations(recipe.model):
        terms = [TERMS[name](getattr(recipe, name), given) for name in recipe.terms]
        say(f"the recipe as it is run:\n{to_yaml(recipe.values())}")
        trainer = make_trainer(given, rows.train, rows.evaluation, terms)
    for callback in callbacks:
        trainer.add_callback(callback)
    record |= group.on_main(
        lambda: {"prior": prior_digest(recipe, folder), "prior_values": values_digest(recipe, folder)}
    )

    def begun() -> bool:
        return bool(trainer.state.global_step > 0)

    with attempt(folder, args):
        group.on_main(lambda: _start(folder, recipe, record) if checkpoint is None else unseal_later(checkpoint))
        with chosen_implementations(recipe.model, begun=begun), without_unexpected_keys():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.state.global_step == 0:
            raise RecipeError(NO_STEP)
        files = save_model(trainer, folder)
        if state.is_main_process:
            result = result_of(trainer, recipe, rows, checkpoint=checkpoint, prior=record["prior"], files=files)
            run.write_json(folder / run.RESULT, result)
    state.wait_for_everyone()
    say(f"done: {counted(trainer.state.global_step, 'step')}; the model and {run.RESULT} are in {folder}")
    return folder


def _start(folder: Path, recipe: Recipe, record: Mapping[str, Any]) -> None:
    """Take out of `folder` what an earlier run left, and put there what a resume will compare with."""
    run.clear_folder(folder)
    start = {"versions": versions(), "files": [], "beside": run.held(folder)}
    # The record first: by it a folder is known as that of a run.
    run.write_json(folder / run.RECORD, {"schema": 1, **record, **start})
    run.write_recipe(folder, recipe)


def run_prior(recipe: Recipe, *, overwrite: bool = False, say: Say = print) -> Path:
    """Compute and store the routing prior that `recipe` needs, and return its folder.

    A stored one that is up to date is left as it is; a stale one is a `PriorError` unless `overwrite` is set. The prior
    of a run is never replaced: the run could not be resumed, and its record would name a prior that is gone.
    """
    if recipe.alignment is None or recipe.alignment.anchor == "live":
        raise RecipeError(
            "this recipe uses no routing prior: it has "
            f"{'no section alignment' if recipe.alignment is None else 'alignment.anchor: live'}"
        )
    with own_group(), placed(recipe), refusing_full(f"trainer.output_dir: {recipe.trainer.get('output_dir')}"):
        return _run_prior(recipe, overwrite=overwrite, say=say)


def _run_prior(recipe: Recipe, *, overwrite: bool, say: Say) -> Path:
    recipe, args, _ = begin(recipe, say)
    folder = Path(args.output_dir)
    all_processes().on_main(lambda: run.check_prior_folder(folder, overwrite=overwrite))
    tokenizer = load_tokenizer(recipe.model)
    rows, recipe = read_rows(recipe, tokenizer, say)
    model, recipe = _model(recipe, say)
    refuse_unknown_tokens(rows, tokenizer, model)
    given = Ingredients(
        recipe=recipe,
        args=args,
        model=model,
        tokenizer=tokenizer,
        anchors=rows.anchors,
        folder=folder,
        fresh_weights=True,
        overwrite=overwrite,
        say=say,
    )
    assert recipe.alignment is not None
    with replacing(folder), chosen_implementations(recipe.model):
        stored_prior(recipe.alignment, given)
    return folder / run.PRIOR


def _model(recipe: Recipe, say: Say, *, checkpoint: Path | None = None) -> tuple[PreTrainedModel, Recipe]:
    """The model, and the recipe with `alignment.layers` as a list of its layers and its family's `alignment.score`."""
    model = load_model(recipe.model, checkpoint=checkpoint)
    if recipe.alignment is not None:
        recipe = recipe.model_copy(update={"alignment": with_layers(recipe.alignment, model, say)})
    return model, recipe
