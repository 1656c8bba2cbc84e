"""Benchmarks on models: what is finished is passed over, what is not is run and stored, one language at a time.

Everything that can be wrong is looked at before the first model is loaded: names, languages, files, folders, templates,
and whether the results that are there already were made with the same model, settings and questions. A run that is
killed loses at most the language that it was in. Torch and the harness are imported when a model is loaded.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from innerlingua.errors import DataError, ModelError
from innerlingua.evaluation.benchmarks import Benchmark, Chosen
from innerlingua.evaluation.harness import HarnessBenchmark
from innerlingua.evaluation.models import ModelSpec, lora_rank
from innerlingua.evaluation.parallel_files import ParallelBenchmark
from innerlingua.evaluation.planning import Plan, make_plan
from innerlingua.evaluation.scoring import METRICS, rows_of
from innerlingua.evaluation.settings import Settings, check_settings
from innerlingua.evaluation.store import (
    read_sample_rows,
    read_summaries,
    samples_path,
    summarise,
    write_results,
    write_run,
    write_samples,
)
from innerlingua.evaluation.translation import corpus_scores, require_sacrebleu

__all__ = ["evaluate_models", "load_backend", "run_unit", "silent", "summary_of"]

# What loading raises for files that are missing, damaged, of another model, or too large for the memory.
_NOT_LOADED: Final = (
    OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError, AssertionError, SafetensorError,
)  # fmt: skip


def evaluate_models(
    specs: Sequence[ModelSpec],
    chosen: Chosen,
    out: Path,
    settings: Settings,
    *,
    command: str,
    say: Callable[[str], None] = lambda text: None,
    quiet: bool = True,
) -> list[Path]:
    """Run the chosen benchmarks on every model, and store the results under `out/<label>`.

    Args:
        specs: the models (`read_models`).
        chosen: benchmarks and languages (`choose`).
        out: the folder of all results.
        settings: the same for all models.
        command: what the user typed, for `run.json`.
        say: takes a line about what is going on.
        quiet: no progress bars of the harness.

    Returns:
        The folders of the runs, in the order of `specs`.

    Raises:
        DataError: results of another model, setting, or version of a benchmark are in the way; see also `build_unit`.
        ModelError: a model that cannot be loaded or asked as wanted.
    """
    check_settings(settings)
    _one_process()
    if any(isinstance(benchmark, ParallelBenchmark) for benchmark, _ in chosen.benchmarks):
        require_sacrebleu()
    with contextlib.ExitStack() as locks:
        for spec in specs:
            locks.enter_context(_alone(out / spec.label))
        plans = [make_plan(spec, chosen, out / spec.label, settings, command) for spec in specs]
        units = _units(plans, settings)
        for plan in plans:
            _run(plan, units, chosen, settings, say=say, quiet=quiet)
    return [plan.folder for plan in plans]


def run_unit(model: Any, unit: Any, settings: Settings) -> list[dict[str, Any]]:
    """The samples of one benchmark in one language.

    Args:
        model: a watched backend (`backend_hf.WatchedHF`).
        unit: what `tasks.build_unit` made.
        settings: of the call.

    Raises:
        ModelError: a prompt has no room, the model gives no numbers, or memory is short.
    """
    import torch
    from lm_eval.evaluator import evaluate

    from innerlingua.evaluation.tasks import FEWSHOT_SEED

    # Copies, so that the requests of a run are gone with it; and the same examples each time that a unit is run.
    tasks = {name: copy.copy(task) for name, task in unit.tasks.items()}
    for task in tasks.values():
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    model.watch.begin(f"{unit.benchmark} in {unit.language}", settings.overlong)
    try:
        with silent():
            results = evaluate(
                lm=model,
                task_dict={"tasks": tasks},
                limit=unit.limit,
                bootstrap_iters=0,
                log_samples=True,
                apply_chat_template=settings.chat_template,
                fewshot_as_multiturn=True,
            )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{unit.benchmark} in {unit.language}: the memory of the device is full; give a smaller --batch-size "
            f"({settings.batch_size} now), or auto"
        ) from error
    rows: list[dict[str, Any]] = []
    for name, examples in results["samples"].items():
        prefix = f"{name}:" if len(unit.tasks) > 1 else ""
        rows += rows_of(examples, unit.scoring, model.watch, questions=unit.questions, prefix=prefix)
    return rows


def load_backend(spec: ModelSpec, settings: Settings, *, quiet: bool) -> Any:
    """The harness's model for `spec`. Raises `ModelError` when it cannot be loaded."""
    common: dict[str, Any] = {
        "pretrained": spec.path,
        "tokenizer": spec.tokenizer,
        "dtype": settings.dtype,
        "batch_size": settings.batch_size,
        "max_length": settings.max_length,
        "trust_remote_code": settings.trust_remote_code,
        "quiet": quiet,
        **settings.model_args,
    }
    if spec.revision is not None:
        common["revision"] = spec.revision
    try:
        if settings.backend == "vllm":
            from innerlingua.evaluation.backend_vllm import WatchedVLLM

            if spec.adapter is not None:
                common |= {"lora_local_path": spec.adapter, "max_lora_rank": lora_rank(spec)}
            return WatchedVLLM(**common)
        from innerlingua.evaluation.backend_hf import WatchedHF

        common = {"use_safetensors": True, **common}
        return WatchedHF(**common, peft=spec.adapter, device=_device(settings.device))
    except _NOT_LOADED as error:
        words = " ".join(str(error).split())
        raise ModelError(f"{spec.given}: the model cannot be loaded: {words}") from error


def _units(plans: Sequence[Plan], settings: Settings) -> dict[tuple[str, str], Any]:
    """What is left to be asked of any model, built once for all: data that cannot be had is known before a model is."""
    from innerlingua.evaluation.tasks import build_unit

    units: dict[tuple[str, str], Any] = {}
    for benchmark, language in (left for plan in plans for left in plan.left):
        if (benchmark.name, language) not in units:
            with silent():
                units[benchmark.name, language] = build_unit(
                    benchmark,
                    language,
                    num_fewshot=settings.num_fewshot,
                    max_new_tokens=settings.max_new_tokens,
                    limit=settings.limit,
                )
    return units


def _run(
    plan: Plan,
    units: Mapping[tuple[str, str], Any],
    chosen: Chosen,
    settings: Settings,
    *,
    say: Callable[[str], None],
    quiet: bool,
) -> None:
    """Run what is left of one model."""
    label = plan.spec.label
    for benchmark, language in plan.finished:
        say(f"{label}: {benchmark.name} {language}: finished before, not computed again")
    plan.folder.mkdir(parents=True, exist_ok=True)
    if not plan.begun:
        write_run(plan.folder, plan.run)
    summaries = {(entry["benchmark"], entry["language"]): entry for entry in read_summaries(plan.folder)}
    for benchmark, language in plan.finished:
        # A run that was killed after the samples and before their summary.
        if (benchmark.name, language) not in summaries:
            rows = read_sample_rows(samples_path(plan.folder, benchmark.name, language))
            summaries[benchmark.name, language] = summary_of(benchmark, language, rows, chosen.anchor, None)
            write_results(plan.folder, summaries.values())
    if not plan.left:
        return
    say(f"{label}: loading {plan.spec.given}")
    model = load_backend(plan.spec, settings, quiet=quiet)
    try:
        for benchmark, language in plan.left:
            started = time.perf_counter()
            rows = run_unit(model, units[benchmark.name, language], settings)
            seconds = time.perf_counter() - started
            write_samples(plan.folder, benchmark.name, language, rows)
            summary = summary_of(benchmark, language, rows, chosen.anchor, round(seconds, 3))
            summaries[benchmark.name, language] = summary
            write_results(plan.folder, summaries.values())
            say(f"{label}: {benchmark.name} {language}: {summary['n']} samples in {seconds:.1f} s")
    finally:
        del model
        _release()


def summary_of(
    benchmark: Benchmark, language: str, rows: Sequence[Mapping[str, Any]], anchor: str, seconds: float | None
) -> dict[str, Any]:
    """The entry of `results.json` for the samples of `benchmark` in `language`."""
    from innerlingua.evaluation.tasks import SCORING, task_version

    scoring = "translation" if isinstance(benchmark, ParallelBenchmark) else SCORING[benchmark.kind]
    if isinstance(benchmark, HarnessBenchmark):
        chance = benchmark.chance
    elif isinstance(benchmark, ParallelBenchmark):
        chance = None
    else:
        chance = benchmark.chance(language)
    summary = summarise(
        benchmark.name,
        language,
        rows,
        metric=METRICS[scoring],
        chance=chance,
        task_version=task_version(benchmark, language),
        anchor=language == anchor,
        seconds=seconds,
    )
    if isinstance(benchmark, ParallelBenchmark):
        pairs = [(row["hypothesis"], row["reference"]) for row in rows]
        target = benchmark.sides(language)[1]
        summary["corpus"] = corpus_scores([pair[0] for pair in pairs], [pair[1] for pair in pairs], target)
    return summary


def _device(asked: str | None) -> str:
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(asked).type
    except RuntimeError as error:
        raise ModelError(f"--device {asked}: no such device; cpu, cuda, cuda:1, mps, ...") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"--device {asked}: there is no CUDA device here")
    return asked


def _one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DataError(
            "evaluate runs in one process; for several GPUs give --model-args parallelize=True, or --backend vllm with "
            "--model-args tensor_parallel_size=N"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of a run: two processes would write over each other. A killed one holds nothing."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; results need a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder}: another process writes results here; wait for it, or use another -o") from error
        for place in (folder, folder / "samples"):
            for part in place.glob(".*.part"):  # of a process that was killed while it wrote; none writes now
                part.unlink()
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [".lock"]:  # refused before anything was done
                (folder / ".lock").unlink()
                folder.rmdir()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the harness's remarks: what matters of them is an error or a count here."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _release() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
