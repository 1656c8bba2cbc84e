"""The examination: the steps of `innerlingua train` one after the other, up to the first that would change something.

Each step is a training's own function, so that what is refused is refused in a training's own words. Where a training
stops, the examination notes the refusal and goes on with all that does not depend on it: a bad row does not hide a
misspelt layer.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig

from innerlingua.anatomy import RoutingTap, check_routing, find_moe_layers
from innerlingua.errors import ModelError, RecipeError
from innerlingua.recipe import run
from innerlingua.recipe.batches import refuse_no_step, refuse_uneven
from innerlingua.recipe.beginning import begin, resolved
from innerlingua.recipe.benchmarks import benchmark_callbacks, refuse_spread
from innerlingua.recipe.doctor import judgement
from innerlingua.recipe.doctor.findings import Findings
from innerlingua.recipe.doctor.measure import Watch
from innerlingua.recipe.doctor.model import describe as describe_model
from innerlingua.recipe.doctor.model import parts_table
from innerlingua.recipe.doctor.pair import rendered_pair
from innerlingua.recipe.doctor.prepared import quiet_args
from innerlingua.recipe.doctor.report import Report
from innerlingua.recipe.doctor.rows import describe as describe_rows
from innerlingua.recipe.doctor.rows import row_lengths, same_rows
from innerlingua.recipe.doctor.sharding import sharding
from innerlingua.recipe.doctor.training import examine_training, parts_key
from innerlingua.recipe.model import load_model, load_tokenizer, mark_parts, with_layers
from innerlingua.recipe.prior import Ingredients
from innerlingua.recipe.result import versions
from innerlingua.recipe.rows import Rows, read_rows, refuse_unknown_tokens
from innerlingua.recipe.schema import Recipe

__all__ = ["examine"]


def examine(recipe: Recipe, path: str, watch: Watch, *, processes: int = 1) -> Report:
    """Examine `recipe`, which was read from `path`, for a training by `processes`. Changes nothing on disk.

    What a training would refuse is in the report, and not raised. Raises `RecipeError` under a launcher of several
    processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            "innerlingua doctor looks at one process: start it without the launcher, on one device. --processes N says "
            "how many the training will have"
        )
    found = Findings(recipe)
    report = Report(recipe_path=path, versions=versions())
    folder = Path(recipe.trainer["output_dir"])

    watch.stage("the section trainer")
    args: SFTConfig | None = None
    with found.stage("trainer", "every option of the trainer is known, in range, and was tried on a small model"):
        recipe, args, _ = begin(recipe, found.say)
    if args is None:
        recipe = _without_trainer(resolved(recipe, found.say))
    with found.stage("trainer.output_dir", "the folder of the run is free"):
        run.check_folder(folder, resume=False, overwrite=False)

    watch.stage("the rows")
    recipe, tokenizer, rows = _rows(recipe, found, report)
    if rows is not None and args is not None:
        enough = False
        with found.stage("trainer.dataloader_drop_last"):
            refuse_no_step(args, processes, len(rows.train))
            enough = True
        if enough and not recipe.data.packing:
            with found.stage("trainer.accelerator_config"):
                refuse_uneven(args, processes, len(rows.train))
        args = args if enough else None
    if recipe.evaluation is not None and tokenizer is not None:
        with found.stage("evaluation.tasks", "the benchmarks to ask along the training are there, in every language"):
            if args is not None:
                refuse_spread(recipe.evaluation, args)
            benchmark_callbacks(recipe.evaluation, tokenizer)
    watch.stage("the model")
    recipe, model = _model(recipe, found, report)
    if rows is not None and model is not None and tokenizer is not None:
        known = False
        with found.stage("model.path"):
            refuse_unknown_tokens(rows, tokenizer, model)
            known = True
        rows = rows if known else None

    if model is not None and args is not None and tokenizer is not None and rows is not None and _is_resolved(recipe):
        with tempfile.TemporaryDirectory(prefix="innerlingua-doctor-") as scratch:
            given = Ingredients(
                recipe=recipe,
                args=quiet_args(args, scratch),
                model=model,
                tokenizer=tokenizer,
                anchors=rows.anchors,
                folder=folder,
                fresh_weights=True,
                overwrite=False,
                say=found.say,
            )
            examine_training(given, rows, found, report, watch, processes)
    elif model is not None:
        _model_alone(recipe, model, found, report)
    _explain_gaps(report)
    judgement.of_everything(found, report, recipe, args)
    report.recipe, report.findings, report.said = recipe.values(), found.items, found.said
    return report


def _rows(
    recipe: Recipe, found: Findings, report: Report
) -> tuple[Recipe, PreTrainedTokenizerBase | None, Rows | None]:
    tokenizer: PreTrainedTokenizerBase | None = None
    rows: Rows | None = None
    with found.stage("model.path"):
        tokenizer = load_tokenizer(recipe.model)
    if tokenizer is None:
        return recipe, None, None
    with found.stage("data.train", "every row was read, checked and tokenised"):
        rows, recipe = read_rows(recipe, tokenizer, found.say)
    if rows is None:
        if recipe.data.eval is not None:
            # A training stops at a bad row of the training data; those of the evaluation may be bad, too.
            alone = recipe.data.model_copy(update={"train": recipe.data.eval, "eval": None})
            with found.stage("data.eval"):
                read_rows(recipe.model_copy(update={"data": alone}), tokenizer, _to_nobody)
        return recipe, tokenizer, None
    report.data = [describe_rows("train", recipe.data.train, rows.counts["train"] or {}, row_lengths(rows.train))]
    if rows.evaluation is not None:
        counts = rows.counts["eval"] or {}
        report.data.append(describe_rows("eval", recipe.data.eval or [], counts, row_lengths(rows.evaluation)))
        judgement.of_overlap(found, *same_rows(rows.train, rows.evaluation), of=len(rows.evaluation))
    report.pair = rendered_pair(rows.train, tokenizer)
    return recipe, tokenizer, rows


def _model(recipe: Recipe, found: Findings, report: Report) -> tuple[Recipe, PreTrainedModel | None]:
    model: PreTrainedModel | None = None
    with found.stage("model.path"):
        model = load_model(recipe.model)
    if model is None:
        return recipe, None
    if recipe.alignment is not None:
        with found.stage("alignment.layers"):
            resolved = with_layers(recipe.alignment, model, found.say)
            recipe = recipe.model_copy(update={"alignment": resolved})
    try:
        find_moe_layers(model)
    except ModelError:
        if recipe.alignment is None:  # else it was refused above
            with found.stage(parts_key(recipe)):
                mark_parts(recipe, model)
        return recipe, model
    with found.stage("model.path"):
        report.model = describe_model(model, recipe)
        report.parameters = parts_table(model)
        report.sharding = sharding(model, recipe.model)
    return recipe, model


def _model_alone(recipe: Recipe, model: PreTrainedModel, found: Findings, report: Report) -> None:
    """What a training checks on the model, where rows or options are refused and no trainer can be made."""
    if report.model is None:
        return
    with found.stage(parts_key(recipe)):
        mark_parts(recipe, model)
        report.parameters = parts_table(model)
    section = recipe.alignment
    if section is not None and section.layers != "auto" and section.score is not None:
        with found.stage("alignment"):
            tap = RoutingTap(model, section.layers, score=section.score)
            check_routing(tap, gradient=section.weight > 0 and recipe.peft is None)


def _is_resolved(recipe: Recipe) -> bool:
    """Whether the layers to align are known."""
    return recipe.alignment is None or (recipe.alignment.layers != "auto" and recipe.alignment.score is not None)


def _without_trainer(recipe: Recipe) -> Recipe:
    """`recipe` when its section trainer is refused, with only those options of it that say how rows are tokenised."""
    kept = {
        key: value
        for key, value in recipe.trainer.items()
        if key in ("assistant_only_loss", "completion_only_loss") and isinstance(value, bool)
    }
    return recipe.model_copy(update={"trainer": {"output_dir": recipe.trainer["output_dir"], **kept}})


def _explain_gaps(report: Report) -> None:
    """Say of every section that is missing why it is."""
    for section in ("data", "pair", "model", "parameters", "sharding", "prior", "losses", "schedule", "memory", "time"):
        if getattr(report, section) is None:
            report.skipped.setdefault(section, "not looked at, because of what is refused")


def _to_nobody(text: str) -> None:
    """The rows were spoken of already."""
