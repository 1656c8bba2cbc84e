"""Results folders made up for the tests of comparing: known accuracies and discordance, several languages and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerlingua.evaluation.store import content_hash, summarise, write_results, write_run, write_samples

SETTINGS = {"num_fewshot": 0, "chat_template": False, "max_new_tokens": None, "limit": None}
LANGUAGES = ("eng_Latn", "hin_Deva", "swh_Latn", "npi_Deva")

Scores = Mapping[tuple[str, str], Sequence[float] | NDArray[np.float64]]


def rows_of(
    benchmark: str, language: str, scores: Sequence[float] | NDArray[np.float64], *, passages: int = 1
) -> list[dict[str, Any]]:
    """One row per score; `passages` questions share a group."""
    return [
        {
            "id": f"q{number:05}",
            "group": f"p{number // passages:05}" if passages > 1 else f"q{number:05}",
            "score": float(score),
            "status": "answered",
            "prediction": "A",
            "target": "A",
            "hash": content_hash(benchmark, language, number),
        }
        for number, score in enumerate(scores)
    ]


def write_folder(
    folder: Path,
    tables: Mapping[tuple[str, str], Sequence[dict[str, Any]]],
    *,
    label: str | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] = SETTINGS,
    metric: str = "accuracy",
    chance: float | None = 0.25,
    anchor: str = "eng_Latn",
    task_version: str = "1",
    model: Mapping[str, Any] | None = None,
) -> Path:
    """A results folder with these rows per (benchmark, language)."""
    write_run(
        folder,
        {
            "label": label or folder.name,
            "model": dict(model) if model is not None else {"path": f"models/{folder.name}", "digest": folder.name},
            "backend": "hf",
            "seed": seed,
            "settings": dict(settings),
            "versions": {"lm_eval": "0.4.13"},
            "command": "innerlingua evaluate",
        },
    )
    summaries = []
    for (benchmark, language), rows in tables.items():
        write_samples(folder, benchmark, language, rows)
        summaries.append(
            summarise(
                benchmark,
                language,
                rows,
                metric=metric,
                chance=chance,
                task_version=task_version,
                anchor=language == anchor,
                seconds=1.0,
            )
        )
    write_results(folder, summaries)
    return folder


def write_scores(folder: Path, scores: Scores, *, passages: int = 1, **options: Any) -> Path:
    """A results folder with these scores per (benchmark, language)."""
    tables = {key: rows_of(*key, values, passages=passages) for key, values in scores.items()}
    return write_folder(folder, tables, **options)


def answers(rng: np.random.Generator, n: int, accuracy: float) -> NDArray[np.float64]:
    """Right (1) or wrong (0) answers, each right with probability `accuracy`."""
    return (rng.random(n) < accuracy).astype(np.float64)


def changed(rng: np.random.Generator, scores: NDArray[np.float64], *, lost: float, won: float) -> NDArray[np.float64]:
    """`scores` with each right answer lost, and each wrong one won, with these probabilities."""
    flip = rng.random(len(scores)) < np.where(scores > 0, lost, won)
    return np.where(flip, 1 - scores, scores)


def three_models(root: Path, *, n: int = 400, seed: int = 0) -> list[Path]:
    """base, sft (no different) and sara (better in Swahili, worse in English) on one benchmark in four languages."""
    rng = np.random.default_rng(seed)
    base = {("mmlu", language): answers(rng, n, 0.45) for language in LANGUAGES}
    sft = {key: changed(rng, scores, lost=0.08, won=0.07) for key, scores in base.items()}
    moved = {"swh_Latn": (0.02, 0.25), "eng_Latn": (0.25, 0.02)}
    sara = {
        key: changed(rng, scores, lost=moved.get(key[1], (0.08, 0.07))[0], won=moved.get(key[1], (0.08, 0.07))[1])
        for key, scores in base.items()
    }
    return [write_scores(root / name, scores) for name, scores in (("base", base), ("sft", sft), ("sara", sara))]
