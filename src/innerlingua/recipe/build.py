"""From a recipe to a run: the only place where methods meet the trainer. Imports torch, so import it late.

The order is that of cost: the trainer's fields, the folder, the recipe of a run to be resumed, the rows, the model, the
prior, the training. What can be refused is refused before the next step costs anything.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, enable_full_determinism, set_seed

from innerlingua.anatomy import check_trainable, set_trainable
from innerlingua.data.packing import LENGTHS
from innerlingua.data.wording import counted
from innerlingua.errors import RecipeError
from innerlingua.recipe import run
from innerlingua.recipe.attempt import attempt, without_unexpected_keys
from innerlingua.recipe.benchmarks import benchmark_callbacks, refuse_spread
from innerlingua.recipe.checkpoints import unseal_later
from innerlingua.recipe.drift import refuse_drift, sources
from innerlingua.recipe.group import own_group
from innerlingua.recipe.loading import about, placed, to_yaml
from innerlingua.recipe.model import (
    adapter_config,
    chosen_implementations,
    load_model,
    load_tokenizer,
    trained_parts,
    with_layers,
)
from innerlingua.recipe.prior import (
    Ingredients,
    check_recorded,
    prior_digest,
    replacing,
    stored_prior,
    values_digest,
)
from innerlingua.recipe.rehearsal import rehearse
from innerlingua.recipe.resume_state import checkpoint_to_resume
from innerlingua.recipe.rows import read_rows, refuse_unknown_tokens
from innerlingua.recipe.schema import AlignmentSection, Recipe
from innerlingua.recipe.trainer import resolve_trainer, sft_config
from innerlingua.recipe.writable import refusing_full
from innerlingua.recipe.zero import load_whole
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.routing.processes import all_processes
from innerlingua.training import Term, Trainer

if TYPE_CHECKING:
    from trl import SFTConfig

__all__ = [
    "NO_STEP",
    "TERMS",
    "Ingredients",
    "begin",
    "make_trainer",
    "refuse_no_step",
    "refuse_uneven",
    "resolved",
    "run_prior",
    "run_training",
]

Say = Callable[[str], None]

NO_STEP = (
    "no step was trained: num_train_epochs or max_steps leave none, or a batch is larger than the data and "
    "dataloader_drop_last drops it"
)


def _routing_alignment(section: AlignmentSection, given: Ingredients) -> Term:
    assert section.layers != "auto", "resolved when the model was loaded"
    anchor: RoutingPrior | str = "live" if section.anchor == "live" else stored_prior(section, given)
    return RoutingAlignment(
        anchor=anchor,
        weight=section.weight,
        layers=section.layers,
        anchor_gradient=section.anchor_gradient,
        pooling=section.pooling,
        score=section.score,
        verify_weights=False,  # compared above by the main process; others may hold none yet (FSDP)
    )


TERMS: dict[str, Callable[[Any, Ingredients], Term]] = {
    "alignment": _routing_alignment,
}
"""From a section of the recipe to the term that it adds. A later method is one more row."""


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
    folder = Path(args.output_dir)
    refuse_spread(recipe.evaluation, args)
    group = all_processes()
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
    _refuse_parts(recipe, model)
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
    if state.is_main_process and not resume:
        run.clear_folder(folder)
        start = {"versions": _versions(), "files": [], "beside": run.held(folder)}
        # The record first: by it a folder is known as that of a run.
        run.write_json(folder / run.RECORD, {"schema": 1, **record, **start})
        run.write_recipe(folder, recipe)
    if state.is_main_process and checkpoint is not None:
        unseal_later(checkpoint)
    state.wait_for_everyone()

    def begun() -> bool:
        return bool(trainer.state.global_step > 0)

    with attempt(folder, args):
        with chosen_implementations(recipe.model, begun=begun), without_unexpected_keys():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.state.global_step == 0:
            raise RecipeError(NO_STEP)
        files = _save(trainer, folder, state)
        if state.is_main_process:
            result = {
                "schema": 1,
                "command": "train",
                "versions": _versions(),
                "seed": args.seed,
                "rows": rows.counts,
                "layers": recipe.alignment.layers if recipe.alignment else None,
                "prior": record["prior"],
                "steps": trainer.state.global_step,
                "distributed": _distribution(trainer),
                "metrics": _last_values(trainer.state.log_history, trained=_steps_made(trainer, checkpoint) > 0),
                "files": files,
            }
            run.write_json(folder / run.RESULT, result)
    state.wait_for_everyone()
    say(f"done: {counted(trainer.state.global_step, 'step')}; the model and {run.RESULT} are in {folder}")
    return folder


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


def begin(recipe: Recipe, say: Say) -> tuple[Recipe, SFTConfig, PartialState]:
    """The recipe with every key of its trainer, checked and rehearsed, and the arguments of it; seeds the process."""
    given = resolved(recipe, say)
    recipe = resolve_trainer(given)
    with refusing_full(f"the folder for temporary files (TMPDIR, {tempfile.gettempdir()})"):
        rehearse(given)
    if recipe.trainer.get("use_cpu"):
        say(f"no CUDA device is used: use_cpu: true, bf16: {str(recipe.trainer['bf16']).lower()}")
    args = sft_config(recipe)
    load_whole(args)
    # The trainer seeds itself, but only after adapters were drawn.
    if args.full_determinism:
        enable_full_determinism(args.seed)
    else:
        set_seed(args.seed)
    return recipe, args, PartialState()


def resolved(recipe: Recipe, say: Say) -> Recipe:
    """`recipe` with the keys of ours that depend on other sections."""
    model, data = recipe.model, recipe.data
    if model.dtype is None:
        model = model.model_copy(update={"dtype": "float32" if recipe.peft is None else "auto"})
        why = "full fine-tuning" if recipe.peft is None else "the checkpoint's own, under adapters"
        say(f"model.dtype: {model.dtype} ({why})")
    if data.missing_anchor is None:
        data = data.model_copy(update={"missing_anchor": "error" if recipe.terms else "keep"})
    return recipe.model_copy(update={"model": model, "data": data})


def _model(recipe: Recipe, say: Say, *, checkpoint: Path | None = None) -> tuple[PreTrainedModel, Recipe]:
    """The model, and the recipe with `alignment.layers` as a list of its layers and its family's `alignment.score`."""
    model = load_model(recipe.model, checkpoint=checkpoint)
    if recipe.alignment is not None:
        recipe = recipe.model_copy(update={"alignment": with_layers(recipe.alignment, model, say)})
    return model, recipe


def _refuse_parts(recipe: Recipe, model: PreTrainedModel) -> None:
    """Refuse parts that the model does not have, before a prior is computed. `make_trainer` asks again."""
    if recipe.peft is not None:
        adapter_config(recipe.peft, model)
        return
    with about("model.train"):
        set_trainable(model, trained_parts(recipe.model, None)[0])


def make_trainer(given: Ingredients, rows: Dataset, evaluation: Dataset | None, terms: list[Term]) -> Trainer:
    """The trainer, with exactly that trainable which the recipe asks for."""
    recipe, model = given.recipe, given.model
    trained, adapted = trained_parts(recipe.model, recipe.peft)
    adapters = adapter_config(recipe.peft, model) if recipe.peft is not None else None
    if adapters is None:
        with about("model.train"):
            set_trainable(model, trained)
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
        packed = len(trainer.train_dataset)
        tokens = sum(map(sum, trainer.train_dataset[LENGTHS]))
        assert recipe.data.max_length is not None, "the recipe was checked"
        full = tokens / (packed * recipe.data.max_length)
        given.say(f"packed: {len(rows):,} rows in {packed:,} of {recipe.data.max_length} tokens, {full:.1%} full")
        refuse_no_step(given.args, PartialState().num_processes, packed)
        refuse_uneven(given.args, PartialState().num_processes, packed)
    check_trainable(trainer.model, trained, adapted=adapted)
    _keep_small_steps(trainer, given)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in trainer.model.parameters())
    what = [*trained, *(f"adapters on {part}" for part in adapted)]
    given.say(f"trainable: {trainable:,} of {everything:,} parameters ({', '.join(what)})")
    return trainer


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
            f"(DeepSpeed ZeRO-2 does). {remedy}"
        )


def refuse_no_step(args: SFTConfig, processes: int, rows: int) -> None:
    """Refuse rows, packed or not, that all fall into an incomplete batch that is dropped."""
    batch = args.per_device_train_batch_size * (1 if args.accelerator_config.split_batches else processes)
    if args.dataloader_drop_last and rows < batch:
        raise RecipeError(
            f"trainer.dataloader_drop_last: data.train has {rows} rows, which do not fill one batch of {batch}, so "
            "none would be trained on: lower trainer.per_device_train_batch_size, or leave dataloader_drop_last out"
        )


def refuse_uneven(args: SFTConfig, processes: int, rows: int) -> None:
    """Refuse rows that give some processes one micro-batch more than others, which would wait for them for ever."""
    given = args.accelerator_config
    if given.even_batches or given.split_batches or args.dataloader_drop_last:
        return
    batches = -(-rows // args.per_device_train_batch_size)
    if batches % processes:
        raise RecipeError(
            f"trainer.accelerator_config: even_batches: false with {rows} rows leaves {batches} micro-batches of "
            f"{args.per_device_train_batch_size} for {processes} processes: some would have one more and wait for the "
            "others for ever. Leave even_batches out, set trainer.dataloader_drop_last: true, or choose another "
            "trainer.per_device_train_batch_size"
        )


def _save(trainer: Trainer, folder: Path, state: PartialState) -> list[str]:
    """Save the model and the tokenizer into `folder`, and return the names of the files, sorted.

    They are written aside and moved, configuration last: what is cut short does not load as a model.
    """
    aside = folder / ".saving"
    if state.is_main_process and aside.exists():
        shutil.rmtree(aside)
    state.wait_for_everyone()
    try:
        trainer.save_model(str(aside))
    except BaseException:
        if state.is_main_process:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    state.wait_for_everyone()
    if not state.is_main_process:
        return []
    names = sorted((path.name for path in aside.iterdir()), key=lambda name: (name.endswith("config.json"), name))
    # TRL writes a card beside its checkpoints.
    card = (folder / "README.md").exists() and "README.md" not in run.read_record(folder)["beside"]
    run.record_files(folder, [*names, *(["README.md"] if card else [])])
    for name in names:
        os.replace(aside / name, folder / name)
    aside.rmdir()
    return sorted(names)


def _distribution(trainer: Trainer) -> dict[str, Any]:
    """How the training was spread: a launcher that was asked for two processes may have started one."""
    accelerator, plugin = trainer.accelerator, trainer.args.deepspeed_plugin
    return {
        "processes": accelerator.num_processes,
        "kind": accelerator.distributed_type.value,
        "wrapper": type(trainer.model_wrapped).__name__,
        "zero_stage": None if plugin is None else plugin.zero_stage,
    }


def _steps_made(trainer: Trainer, checkpoint: Path | None) -> int:
    """The steps of this process; none for a run that was resumed after its last one."""
    before = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    return int(trainer.state.global_step) - before


def _last_values(history: list[dict[str, float]], *, trained: bool) -> dict[str, float]:
    merged: dict[str, float] = {}
    for entry in history:
        merged |= entry
    # The Trainer's mean loss and speed are those of this process; over no step, they are numbers of nothing.
    return {key: value for key, value in merged.items() if trained or not key.startswith("train_")}


def _versions() -> dict[str, str]:
    packages = ("innerlingua", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
    return {name: version(name) for name in packages}
