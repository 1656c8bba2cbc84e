"""Benchmarks on models: what is finished is passed over, what is not is run and stored, one language at a time.

Everything that can be wrong is looked at before the first model is loaded: names, languages, files, folders, templates,
and whether the results that are there already were made with the same model, settings and questions. A run that is
killed loses at most the language that it was in. Torch and the harness are imported when a model is loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from innerlingua.errors import DataError, ModelError
from innerlingua.evaluation.benchmarks import Benchmark, Chosen
from innerlingua.evaluation.harness import HarnessBenchmark
from innerlingua.evaluation.local import drawn
from innerlingua.evaluation.models import ModelSpec, identity, lora_rank
from innerlingua.evaluation.parallel_files import ParallelBenchmark
from innerlingua.evaluation.scoring import METRICS, rows_of, sample_hash
from innerlingua.evaluation.settings import Settings, check_settings, recorded
from innerlingua.evaluation.store import (
    read_run,
    read_sample_rows,
    read_summaries,
    samples_path,
    summarise,
    write_results,
    write_run,
    write_samples,
)
from innerlingua.evaluation.translation import corpus_scores, require_sacrebleu

__all__ = ["evaluate_models", "load_backend", "run_unit", "silent", "summary_of", "versions"]

# What loading raises for files that are missing, damaged, of another model, or too large for the memory.
_NOT_LOADED: Final = (
    OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError, AssertionError, SafetensorError,
)  # fmt: skip
_VERSIONS: Final = ("innerlingua", "lm_eval", "transformers", "torch", "peft", "vllm", "sacrebleu")


@dataclass(frozen=True)
class _Plan:
    """One model's run: where its results go, what `run.json` says, what is left to do and what is finished.

    `begun` says whether there are samples already, so that `run.json` stands.
    """

    spec: ModelSpec
    folder: Path
    run: dict[str, Any]
    begun: bool
    left: list[tuple[Benchmark, str]]
    finished: list[tuple[Benchmark, str]]


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
        plans = [_plan(spec, chosen, out / spec.label, settings, command) for spec in specs]
        for plan in plans:
            _run(plan, chosen, settings, say=say, quiet=quiet)
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

    for task in unit.tasks.values():
        task.set_fewshot_seed(seed=FEWSHOT_SEED)  # the same examples each time that a unit is run
    model.watch.begin(f"{unit.benchmark} in {unit.language}", settings.overlong)
    try:
        with silent():
            results = evaluate(
                lm=model,
                task_dict={"tasks": unit.tasks},
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

        return WatchedHF(**common, peft=spec.adapter, device=_device(settings.device))
    except _NOT_LOADED as error:
        words = " ".join(str(error).split())
        raise ModelError(f"{spec.given}: the model cannot be loaded: {words}") from error


def _plan(spec: ModelSpec, chosen: Chosen, folder: Path, settings: Settings, command: str) -> _Plan:
    """Look at everything that can be looked at without the model."""
    from innerlingua.evaluation.tasks import task_version

    run = {
        "label": spec.label,
        "model": identity(spec, commit=_checked(spec, settings)),
        "backend": settings.backend,
        "seed": spec.seed,
        "anchor": chosen.anchor,
        "settings": recorded(settings),
        "versions": versions(),
        "command": command,
    }
    begun = any((folder / "samples").glob("*.jsonl"))
    if begun:
        _same(read_run(folder), run, folder)
    stored = {(entry["benchmark"], entry["language"]): entry for entry in read_summaries(folder)}
    left, finished = [], []
    for benchmark, languages in chosen.benchmarks:
        for language in languages:
            path = samples_path(folder, benchmark.name, language)
            if not path.is_file():
                left.append((benchmark, language))
                continue
            task = task_version(benchmark, language)
            entry = stored.get((benchmark.name, language))
            hashes = _hashes(benchmark, language, settings.limit)
            there = [row["hash"] for row in read_sample_rows(path)] if hashes is not None else None
            if (entry is not None and entry["task_version"] != task) or hashes != there:
                raise DataError(
                    f"{path}: results of another version of {benchmark.name} in {language} (the questions or the way "
                    "they are asked have changed since). Evaluate into another folder, or delete this file"
                )
            finished.append((benchmark, language))
    return _Plan(spec, folder, run, begun, left, finished)


def _run(plan: _Plan, chosen: Chosen, settings: Settings, *, say: Callable[[str], None], quiet: bool) -> None:
    """Run what is left of one model."""
    from innerlingua.evaluation.tasks import build_unit

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
            with silent():
                unit = build_unit(
                    benchmark,
                    language,
                    num_fewshot=settings.num_fewshot,
                    max_new_tokens=settings.max_new_tokens,
                    limit=settings.limit,
                )
            started = time.perf_counter()
            rows = run_unit(model, unit, settings)
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


def _hashes(benchmark: Benchmark, language: str, limit: int | None) -> list[str] | None:
    """The digests of the questions that would be asked; None where only the harness has them."""
    if isinstance(benchmark, HarnessBenchmark):
        return None
    return [sample_hash(question) for question in drawn(benchmark.asked[language], limit)]


def _same(stored: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise `DataError` when a folder holds the results of another model or other settings."""
    remedy = "evaluate into another folder (-o), or under another --label"
    for key in ("path", "revision", "commit", "adapter"):
        if stored["model"].get(key) != now["model"][key] and not _moved(stored["model"], now["model"], key):
            before, after = stored["model"].get(key), now["model"][key]
            raise DataError(f"{folder} holds the results of another model ({key}: {before}, now {after}): {remedy}")
    for key in ("digest", "adapter_digest"):
        if stored["model"].get(key) != now["model"][key]:
            what = "model" if key == "digest" else "adapter"
            raise DataError(f"{folder} holds results of this {what} as it was; its files have changed since: {remedy}")
    for key in ("backend", "seed", "anchor"):
        if stored.get(key) != now[key]:
            raise DataError(f"{folder} holds results with {key} {stored.get(key)}, now it is {now[key]}: {remedy}")
    differing = [key for key, value in now["settings"].items() if stored["settings"].get(key) != value]
    if differing:
        words = ", ".join(f"{key} {stored['settings'].get(key)}, now {now['settings'][key]}" for key in differing)
        raise DataError(f"{folder} holds results of other settings ({words}): {remedy}")


def _moved(stored: Mapping[str, Any], now: Mapping[str, Any], key: str) -> bool:
    """Whether a path differs and what is there is the same."""
    digests = {"path": "digest", "adapter": "adapter_digest"}
    return key in digests and now[digests[key]] is not None and stored.get(digests[key]) == now[digests[key]]


def _checked(spec: ModelSpec, settings: Settings) -> str | None:
    """Refuse a model without what was asked for, by its configuration and tokenizer. The commit of a hub model."""
    from transformers import AutoConfig, AutoTokenizer

    options: dict[str, Any] = {"revision": spec.revision, "trust_remote_code": settings.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(spec.path, **options)
        tokenizer = AutoTokenizer.from_pretrained(spec.tokenizer, **options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        words = " ".join(str(error).split())
        if "trust_remote_code" in words:
            words = (
                "it comes with Python code of its own, which runs on this machine: read it, then --trust-remote-code"
            )
        here = "" if spec.local else ". There is no folder of this name here either"
        raise ModelError(f"{spec.given}: the model cannot be loaded: {words}{here}") from error
    if not tokenizer("innerlingua")["input_ids"]:
        raise ModelError(f"{spec.given}: its tokenizer makes no tokens of a text; are the tokenizer's files there?")
    embedded = config.get_text_config().vocab_size
    if tokenizer.vocab_size > embedded:
        raise ModelError(
            f"{spec.given}: its tokenizer knows {tokenizer.vocab_size} tokens, more than the {embedded} of its "
            "embedding; it belongs to another model"
        )
    if settings.chat_template and tokenizer.chat_template is None:
        raise ModelError(
            f"{spec.given}: --chat-template, but its tokenizer has no chat template; leave the option out, or store a "
            "template with the model"
        )
    commit = vars(config).get("_commit_hash")
    return None if commit is None else str(commit)


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
        yield


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


def versions() -> dict[str, str | None]:
    """The versions of what results depend on; None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _release() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
