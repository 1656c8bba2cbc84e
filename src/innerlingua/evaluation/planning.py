"""What is to be done for a model, and whether it may be: all that can be looked at before the model is loaded.

Finished results count only when they were made with the same model, settings and questions; anything else is refused by
name, so that the numbers of one folder always belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from innerlingua.errors import DataError, ModelError
from innerlingua.evaluation.benchmarks import Benchmark, Chosen
from innerlingua.evaluation.harness import HarnessBenchmark
from innerlingua.evaluation.local import drawn
from innerlingua.evaluation.models import ModelSpec, identity
from innerlingua.evaluation.scoring import sample_hash
from innerlingua.evaluation.settings import Settings, recorded
from innerlingua.evaluation.store import (
    RESULTS,
    RUN,
    benchmark_version,
    read_run,
    read_sample_rows,
    read_summaries,
    samples_path,
)

__all__ = ["Plan", "make_plan", "versions"]

_VERSIONS: Final = ("innerlingua", "lm_eval", "transformers", "torch", "peft", "vllm", "sacrebleu")


@dataclass(frozen=True)
class Plan:
    """One model's run: where its results go, what `run.json` says, what is left to do and what is finished.

    `begun` says whether there are samples already, so that `run.json` stands.
    """

    spec: ModelSpec
    folder: Path
    run: dict[str, Any]
    begun: bool
    left: list[tuple[Benchmark, str]]
    finished: list[tuple[Benchmark, str]]


def make_plan(spec: ModelSpec, chosen: Chosen, folder: Path, settings: Settings, command: str) -> Plan:
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
            there = [str(row["hash"]) for row in read_sample_rows(path)]
            if (entry is not None and entry["task_version"] != task) or (hashes is not None and hashes != there):
                raise DataError(
                    f"{path}: results of another version of {benchmark.name} in {language} (the questions or the way "
                    "they are asked have changed since). Evaluate into another folder, or delete this file"
                )
            if entry is not None and benchmark_version(task, there) != entry["benchmark_version"]:
                raise DataError(
                    f"{path} and {RESULTS} beside it do not belong together; delete the file of samples, and the same "
                    "command computes it anew"
                )
            finished.append((benchmark, language))
    return Plan(spec, folder, run, begun, left, finished)


def _hashes(benchmark: Benchmark, language: str, limit: int | None) -> list[str] | None:
    """The digests of the questions that would be asked; None where only the harness has them."""
    if isinstance(benchmark, HarnessBenchmark):
        return None
    return [sample_hash(question) for question in drawn(benchmark.asked[language], limit)]


def _same(stored: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise `DataError` when a folder holds the results of another model or other settings."""
    remedy = "evaluate into another folder (-o), or under another --label"
    for key in ("model", "settings"):
        if key not in stored:
            raise DataError(f"{folder / RUN} is damaged: it names no {key}; {remedy}")
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
        words = " ".join(str(error).split()).rstrip(".")
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


def versions() -> dict[str, str | None]:
    """The versions of what results depend on; None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
