"""From facts to findings: what of a report deserves a word, how loud, and what to do about it.

Nothing here refuses: what `innerlingua train` refuses is found by running its own checks. A warning is something that
will go wrong, or most likely is not what was meant; a note is something to know.
"""

from __future__ import annotations

import math

from trl import SFTConfig

from innerlingua.recipe.doctor.findings import Findings
from innerlingua.recipe.doctor.losses import BALANCE, CROSS_ENTROPY
from innerlingua.recipe.doctor.report import DataSet, Losses, Memory, Model, Prior, Report, Schedule, Sharding
from innerlingua.recipe.schema import Recipe

__all__ = ["of_everything", "of_overlap"]

# A term whose weighted gradient on the routers is this many times the cross-entropy's, or the inverse, is worth a word.
_LOPSIDED = 20.0
_NAMED = 3


def of_everything(found: Findings, report: Report, recipe: Recipe, args: SFTConfig | None) -> None:
    """Add what the sections of `report` deserve; `args` is None when the section trainer is refused."""
    for data in report.data or []:
        of_rows(found, data, report.model, aligned=recipe.alignment is not None)
    if report.model is not None:
        of_model(found, report.model)
    if args is not None:
        of_options(found, recipe, args, report.model)
        if report.losses is not None:
            of_losses(found, report.losses, recipe, args)
        if report.schedule is not None:
            of_schedule(found, report.schedule, args)
    if report.memory is not None:
        of_memory(found, report.memory)
    if report.prior is not None:
        of_prior(found, report.prior)
    if report.sharding is not None:
        of_sharding(found, report.sharding)


def of_overlap(found: Findings, texts: int, names: int, *, of: int) -> None:
    """Rows of the evaluation whose tokens (`texts`), or whose id and language (`names`), are trained on."""
    if texts or names:
        found.add(
            "warning",
            "data.eval",
            f"of {of} rows of the evaluation {texts} have a target that is trained on, token by token, and {names} "
            "have the id and language of a row that is",
            "take them out of data.train, or the evaluation says little",
        )


def of_rows(found: Findings, data: DataSet, model: Model | None, *, aligned: bool) -> None:
    """Rows without an anchor, left out, alike on both sides, or longer than the model's context."""
    key = f"data.{data.name}"
    everything = data.everything
    dropped = {name.removeprefix("dropped_"): count for name, count in data.counts.items() if "dropped_" in name}
    if any(dropped.values()):
        words = ", ".join(f"{count} {name}" for name, count in dropped.items() if count)
        left_out = data.counts["read"] - everything.rows
        found.add("note", key, f"{left_out} of {data.counts['read']} rows are left out: {words}")
    if aligned and everything.without_anchor:
        found.add(
            "note",
            key,
            f"{everything.without_anchor} of {everything.rows} rows have no anchor: they are plain fine-tuning rows",
        )
    if aligned and data.identical_sides:
        found.add(
            "warning",
            key,
            f"in {data.identical_sides} rows the anchor is the target, token by token: there is nothing to align",
            "data.same_as_anchor: drop leaves them out",
        )
    longest = max(everything.target.most, everything.anchor.most if aligned and everything.anchor is not None else 0)
    if model is not None and model.context is not None and longest > model.context:
        found.add(
            "warning",
            key,
            f"the longest row has {longest} tokens, and the model was made for {model.context} positions",
            f"data.max_length: {model.context}, with data.overlong: drop to leave longer rows out",
        )


def of_model(found: Findings, model: Model) -> None:
    """Slow experts, and routers that no score decides."""
    if model.experts_backend == "eager" and model.device.startswith("cuda"):
        found.add(
            "warning",
            "model.experts_implementation",
            "experts run one after the other (eager), which is slow on a GPU",
            "model.experts_implementation: grouped_mm, where the family has it",
        )
    if model.fixed_routers:
        kinds = ", ".join(sorted(set(model.fixed_routers.values())))
        found.add(
            "note",
            "model.path",
            f"{len(model.fixed_routers)} routers follow a fixed table and are not aligned ({kinds})",
        )


def of_options(found: Findings, recipe: Recipe, args: SFTConfig, model: Model | None) -> None:
    """Options of the section `trainer` that a training takes and that do not mean what they seem to, beside these
    others."""
    aligned = recipe.alignment is not None
    if aligned and args.neftune_noise_alpha:
        found.add(
            "warning",
            "trainer.neftune_noise_alpha",
            "noise is added to the targets' embeddings and not to the anchors', so a part of the divergence is noise",
            "leave it out beside the section alignment",
        )
    if args.auto_find_batch_size:
        found.add(
            "warning",
            "trainer.auto_find_batch_size",
            "a micro-batch that does not fit is made smaller without more accumulation, so the rows of a step change",
            "set trainer.per_device_train_batch_size to what fits (the memory below is measured for it)",
        )
    if args.torch_compile:
        found.add("note", "trainer.torch_compile", "the capture of routing under a compiler is not tested")
    if args.save_only_model and args.save_strategy != "no":
        found.add(
            "warning",
            "trainer.save_only_model",
            "checkpoints hold no optimiser, so a run that is killed cannot be resumed",
            "leave it out, or set trainer.save_total_limit to save space",
        )
    if aligned and recipe.peft is not None and recipe.peft.dropout > 0:
        found.add("note", "peft.dropout", "targets are routed under dropout in training, anchors without")
    if model is not None and recipe.peft is None and recipe.model.train != "all":
        parts = set(recipe.model.train)
        if "embeddings" in parts and "head" not in parts and model.tied:
            found.add("note", "model.train", "the head is the same matrix as the embeddings, and is trained with them")


def of_losses(found: Findings, losses: Losses, recipe: Recipe, args: SFTConfig) -> None:
    """Gradients that are missing, lopsided or cut; values that are no numbers."""
    step = losses.step
    if not math.isfinite(step.loss) or not math.isfinite(step.gradients.total):
        found.add(
            "warning",
            "trainer",
            f"the loss of the first step is {step.loss} and its gradient norm {step.gradients.total}",
            "look at the checkpoint's weights, and at model.dtype and trainer.fp16",
        )
        return
    if step.without_gradient:
        names = ", ".join(step.without_gradient[:_NAMED])
        more = len(step.without_gradient) - _NAMED
        found.add(
            "note",
            "peft" if recipe.peft is not None else "model.train",
            f"{len(step.without_gradient)} trained tensors get no gradient in the first step: {names}"
            f"{f' and {more} more' if more > 0 else ''}",
            "under DDP, trainer.ddp_find_unused_parameters: true lets such tensors be",
        )
    limit = args.max_grad_norm
    if limit and step.gradients.total > limit:
        found.add(
            "note",
            "trainer.max_grad_norm",
            f"the first step's gradient has norm {step.gradients.total:.3g} and is cut to {limit:g}, all pieces alike",
        )
    plain = next(piece for piece in losses.pieces if piece.name == CROSS_ENTROPY).gradients.parts.get("router", 0.0)
    for piece in losses.pieces:
        mine = piece.weight * piece.gradients.parts.get("router", 0.0)
        if piece.name in (CROSS_ENTROPY, BALANCE) or not piece.weight:
            continue  # a balance loss is small by intent
        if piece.gradients.total == 0.0:
            found.add(
                "warning", "alignment", f"{piece.name} has no gradient in this batch, so nothing is trained by it"
            )
        elif min(mine, plain) > 0 and not 1 / _LOPSIDED < mine / plain < _LOPSIDED:
            found.add(
                "note",
                "alignment.weight",
                f"on the routers the weighted gradient of {piece.name} is {mine / plain:.2g} times the cross-entropy's",
            )


def of_schedule(found: Findings, plan: Schedule, args: SFTConfig) -> None:
    """Steps that leave rows out, never reach the learning rate, or never save."""
    if plan.rows_left_out:
        found.add(
            "note",
            "trainer.dataloader_drop_last",
            f"{plan.rows_left_out} of {plan.packed_rows or plan.rows} {'packed ' if plan.packed_rows else ''}rows are "
            "left out of every epoch: they fill no micro-batch",
        )
    if plan.epochs < 1:
        found.add(
            "note",
            "trainer.max_steps",
            f"{plan.steps} steps see {plan.epochs:.0%} of the rows; an epoch has {plan.steps_of_an_epoch}",
        )
    if plan.warmup_steps >= plan.steps > 1:
        found.add(
            "warning",
            "trainer.warmup_steps",
            f"the warm-up takes {plan.warmup_steps} of {plan.steps} steps: the learning rate never gets to "
            f"{args.learning_rate:g}",
            "fewer warm-up steps; below 1 they are a share of all",
        )
    if args.save_strategy == "no" or (args.save_strategy == "steps" and _every(args.save_steps, plan) > plan.steps):
        found.add("note", "trainer.save_steps", "no checkpoint is written before the end: a run that is killed is lost")


def of_prior(found: Findings, prior: Prior) -> None:
    """A prior that the training will compute first."""
    if prior.state == "missing":
        found.add(
            "note",
            "alignment.anchor",
            f"there is no routing prior yet: the training computes it first, from {prior.anchors} anchors",
        )


def of_memory(found: Findings, memory: Memory) -> None:
    """A device or a disk that is too small, by the estimate."""
    needed = min([memory.total, *(share.bytes for share in memory.shares)])
    if needed > memory.free:
        found.add(
            "warning",
            "trainer.per_device_train_batch_size",
            f"by the estimate the training needs {_gb(needed)} on {memory.device}, which has {_gb(memory.free)} free",
            "a smaller micro-batch with more accumulation, trainer.gradient_checkpointing: true, the section peft, or "
            "several processes (--processes N shows what each would hold)",
        )
    if memory.checkpoint * memory.checkpoints > memory.disk_free:
        found.add(
            "warning",
            "trainer.output_dir",
            f"the run writes up to {memory.checkpoints} checkpoints of {_gb(memory.checkpoint)}, and the disk has "
            f"{_gb(memory.disk_free)} free",
            "trainer.save_total_limit keeps the last ones",
        )


def of_sharding(found: Findings, names: Sharding) -> None:
    """A class that FSDP would not wrap by itself."""
    missing = sorted(set(names.wrap) - set(names.no_split))
    if missing:
        found.add(
            "note",
            "model.path",
            f"transformers does not name {', '.join(missing)} as a unit of this model, so accelerate will not wrap it",
            f"fsdp_transformer_layer_cls_to_wrap: {','.join(names.wrap)} in the launcher's configuration",
        )


def _every(steps: float, plan: Schedule) -> float:
    """A number of steps, which below 1 is a share of all."""
    return math.ceil(steps * plan.steps) if steps < 1 else steps


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
