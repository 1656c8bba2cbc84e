"""Our scores are the harness's: its own task files, its own model class and its own sums on the same questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate_rig import Done, belebele, read_jsonl, write_jsonl, xcopa
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from innerlingua.evaluation.harness import tasks_folder
from innerlingua.evaluation.store import read_results


def _hub_belebele(language: str) -> list[dict[str, Any]]:
    """The rows as facebook/belebele has them."""
    rows = []
    for row in belebele():
        item = row["items"][language]
        first, second, third, fourth = item["choices"]
        rows.append(
            {
                "flores_passage": item["passage"],
                "question": item["question"],
                "mc_answer1": first,
                "mc_answer2": second,
                "mc_answer3": third,
                "mc_answer4": fourth,
                "correct_answer_num": str(row["answer"] + 1),
            }
        )
    return rows


def _hub_xcopa(language: str, split: str) -> list[dict[str, Any]]:
    """The rows as cambridgeltl/xcopa has them."""
    return [
        {
            "premise": row["items"][language]["premise"],
            "choice1": row["items"][language]["choices"][0],
            "choice2": row["items"][language]["choices"][1],
            "question": row["question"],
            "label": row["answer"],
        }
        for row in xcopa()
        if row["official_split"] == split
    ]


def _of_the_harness(task: str, files: dict[str, Path], model: Path, *, num_fewshot: int) -> dict[str, Any]:
    """The harness's own task, its data set being these files, on its own model class, by its own entry point."""
    manager = TaskManager(include_defaults=False, include_path=str(tasks_folder() / task.split("_")[0]))
    data = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
    }
    found = simple_evaluate(
        model=HFLM(pretrained=str(model), device="cpu", batch_size=8),
        tasks=[{"group": "whole", "task": [{"task": task, **data}]}],
        num_fewshot=num_fewshot,
        bootstrap_iters=0,
        task_manager=manager,
    )
    assert found is not None
    return found


@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_belebele_is_scored_as_the_harness_scores_it(
    command: Callable[..., Done], benchmarks: Path, models: Path, tmp_path: Path, num_fewshot: int
) -> None:
    language, task = "swh_Latn", "belebele_swh_Latn"
    file = write_jsonl(tmp_path / "test.jsonl", _hub_belebele(language))
    theirs = _of_the_harness(task, {"test": file}, models / "base", num_fewshot=num_fewshot)
    options = ("--languages", language, "--data", benchmarks, "--num-fewshot", num_fewshot, "-o", tmp_path / "out")
    command("evaluate", models / "base", "--tasks", "belebele", *options)
    _same(theirs, task, tmp_path / "out" / "base", "belebele", language)


def test_xcopa_is_scored_as_the_harness_scores_it(
    command: Callable[..., Done], benchmarks: Path, models: Path, tmp_path: Path
) -> None:
    language, task = "swh_Latn", "xcopa_sw"
    files = {
        split: write_jsonl(tmp_path / f"{split}.jsonl", _hub_xcopa(language, name))
        for split, name in (("test", "test"), ("validation", "val"))
    }
    theirs = _of_the_harness(task, files, models / "tuned", num_fewshot=0)
    options = ("--languages", language, "--data", benchmarks, "-o", tmp_path / "out")
    command("evaluate", models / "tuned", "--tasks", "xcopa", *options)
    _same(theirs, task, tmp_path / "out" / "tuned", "xcopa", language)


def _same(theirs: dict[str, Any], task: str, folder: Path, benchmark: str, language: str) -> None:
    ours = read_results(folder).tables[benchmark, language]
    samples = theirs["samples"][task]
    assert len(ours.scores) == len(samples) == theirs["n-samples"][task]["effective"]
    assert ours.scores.mean() == theirs["results"][task]["acc,none"]
    assert 0 < ours.scores.mean() < 1  # a score that cannot differ would prove nothing
    assert ours.scores.tolist() == [sample["acc"] for sample in samples]
    rows = read_jsonl(folder / "samples" / f"{benchmark}.{language}.jsonl")
    for row, sample in zip(rows, samples, strict=True):
        assert row["loglikelihoods"] == [response[0][0] for response in sample["resps"]]
        assert row["target"] == sample["target"]
