"""The examination of what a training is made of: prior, terms, trainer; and of what running it once shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from innerlingua.recipe import run
from innerlingua.recipe.assembly import make_trainer
from innerlingua.recipe.attempt import too_large
from innerlingua.recipe.doctor.anchors import AnchorsInMemory, PriorState, prior_facts
from innerlingua.recipe.doctor.findings import Findings
from innerlingua.recipe.doctor.losses import WatchedTerm
from innerlingua.recipe.doctor.measure import Measures, Watch, measure
from innerlingua.recipe.doctor.memory import memory_facts, missing_bytes, optimizer_trial
from innerlingua.recipe.doctor.model import parts_table
from innerlingua.recipe.doctor.prepared import Prepared, prepare
from innerlingua.recipe.doctor.report import Report
from innerlingua.recipe.doctor.schedule import estimated_time, schedule
from innerlingua.recipe.model import mark_parts
from innerlingua.recipe.prior import Ingredients, stale_prior
from innerlingua.recipe.rows import Rows
from innerlingua.recipe.schema import Recipe
from innerlingua.recipe.terms import TERMS
from innerlingua.routing import RoutingPrior
from innerlingua.training import Trainer

__all__ = ["examine_training", "parts_key"]


def examine_training(
    given: Ingredients, rows: Rows, found: Findings, report: Report, watch: Watch, processes: int
) -> None:
    """Fill in the sections of `report` from the prior on; `given` is what a training would make its terms from."""
    watch.stage("the prior")
    prior, state = _prior(given, found)
    if prior is None and state in ("stale", "missing"):
        return  # without one at hand a term would have it computed and stored
    given = replace(given, prior=prior)
    if not _parts_are_there(given, found) or _too_large(given, found, report, processes):
        return
    watch.stage("the trainer")
    terms: Sequence[WatchedTerm] = ()
    trainer: Trainer | None = None
    prepared: Prepared | None = None
    with found.stage("trainer", "what is trained is what was asked for, and the routers route as they are read"):
        terms = [WatchedTerm(TERMS[name](getattr(given.recipe, name), given)) for name in given.recipe.terms]
        trainer = make_trainer(given, rows.train, rows.evaluation, list(terms))
        report.parameters = parts_table(trainer.model)
        prepared = prepare(trainer)
    if trainer is None or prepared is None:
        return
    if isinstance(prior, AnchorsInMemory):
        prior.open_for(trainer.model)
    measures = Measures()
    with found.stage("trainer", "a first step runs"):
        measures = measure(prepared, terms, watch)
        if measures.out_of_memory is not None:
            raise too_large(given.args, measures.out_of_memory)
    _report_measures(given, prepared, measures, found, report, processes)
    if state is not None:
        assert report.model is not None
        folder = given.folder / run.PRIOR
        report.prior = prior_facts(state, folder, prior, report.model.experts)


def _prior(given: Ingredients, found: Findings) -> tuple[RoutingPrior | None, PriorState | None]:
    """What the terms are given for a prior, and the state of the stored one; None for a recipe without one."""
    section = given.recipe.alignment
    if section is None:
        return None, None
    if section.anchor == "live":
        return None, "live"
    folder = given.folder / run.PRIOR
    state: PriorState = "missing"
    prior: RoutingPrior | None = None
    with found.stage("alignment"):
        if folder.exists():
            state = "stale"
            stale = stale_prior(folder, section, given)
            if stale is not None:
                raise stale
            prior, state = RoutingPrior.open(folder), "fresh"
    if prior is None:
        with found.stage("alignment"):
            prior = AnchorsInMemory(section, given)
    return prior, state


def _parts_are_there(given: Ingredients, found: Findings) -> bool:
    """Whether the model has what is to be trained, or to get adapters; marks what is trained whole."""
    with found.stage(parts_key(given.recipe)):
        mark_parts(given.recipe, given.model)
        return True
    return False


def parts_key(recipe: Recipe) -> str:
    """The key that says what is trained."""
    return "model.train" if recipe.peft is None else "peft.parts"


def _too_large(given: Ingredients, found: Findings, report: Report, processes: int) -> bool:
    """Whether the device cannot even hold weights and gradients; then what needs no pass is reported."""
    missing = missing_bytes(given.args, given.model)
    if not missing:
        return False
    found.add(
        "warning",
        "model.path",
        f"weights and gradients are {missing / 1e9:.1f} GB more than {given.args.device} has free, so nothing was run",
        "examine it on a larger device, or with --trainer.use-cpu on a machine that has the memory",
    )
    trial = optimizer_trial(given.args, given.model) if given.recipe.peft is None else None
    report.memory = memory_facts(
        given.args, given.model, trial, given.folder, least=None, most=None, processes=processes, steps=None
    )
    for section in ("prior", "losses", "schedule", "time"):
        report.skipped[section] = "the model does not fit on the device"
    return True


def _report_measures(
    given: Ingredients, prepared: Prepared, measures: Measures, found: Findings, report: Report, processes: int
) -> None:
    trainer = prepared.trainer
    assert report.data is not None
    live = given.recipe.alignment is not None and given.recipe.alignment.anchor == "live"
    if prepared.plan.steps:
        report.schedule = schedule(prepared, report.data[0], processes, live=live)
    trial = optimizer_trial(trainer.args, trainer.model)
    report.memory = memory_facts(
        trainer.args,
        trainer.model,
        trial,
        given.folder,
        least=measures.least,
        most=measures.most,
        processes=processes,
        steps=report.schedule.steps if report.schedule is not None else None,
    )
    report.losses = measures.losses
    if measures.least is None or measures.most is None or not measures.seconds or report.schedule is None:
        return
    report.time = estimated_time(
        report.schedule,
        measures.seconds,
        optimizer=trial.seconds if trial is not None else None,
        least=measures.least,
        most=measures.most,
    )
