"""The recipe's section `evaluation`: benchmarks along a real training by `innerlingua train`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluate_rig import Done, write_jsonl
from safetensors.torch import load_file

from innerlingua.errors import RecipeError
from innerlingua.evaluation.store import read_results
from innerlingua.recipe import EvaluationSection, load_recipe


@pytest.fixture
def recipe(models: Path, tmp_path: Path) -> Path:
    """A recipe of four steps on eight pairs, with routing alignment."""
    rows = [
        {"id": f"p{n}", "language": "swh_Latn", "text": f"anga {n} ni buluu", "anchor_text": f"the sky {n} is blue"}
        for n in range(8)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {{path: {models / 'base'}}}\n"
        f"data: {{train: {tmp_path / 'pairs.jsonl'}}}\n"
        "alignment: {layers: [1], anchor: live}\n"
        "trainer:\n"
        f"  output_dir: {tmp_path / 'out'}\n"
        "  max_steps: 4\n  per_device_train_batch_size: 2\n  learning_rate: 1e-2\n  save_strategy: 'no'\n"
        "  logging_steps: 1\n  use_cpu: true\n  bf16: false\n  disable_tqdm: true\n"
    )
    return path


def _section(benchmarks: Path) -> list[str]:
    return [
        *("--evaluation.tasks", "[belebele, news_into]", "--evaluation.languages", "[swh_Latn, hin_Deva]"),
        *("--evaluation.data", str(benchmarks), "--evaluation.limit", "3", "--evaluation.max-new-tokens", "2"),
    ]


def test_benchmarks_are_asked_along_the_training_and_change_nothing_of_it(
    command: Callable[..., Done], recipe: Path, benchmarks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command("train", recipe, *_section(benchmarks), "--evaluation.steps", "3")
    history = json.loads((out / "evaluation" / "history.json").read_text())["evaluations"]
    assert [entry["step"] for entry in history] == [0, 3, 4]  # before the first, every third, after the last
    for entry in history:
        assert set(entry["scores"]["belebele"]) == {"eng_Latn", "swh_Latn", "hin_Deva"}
        table = read_results(out / "evaluation" / entry["folder"]).tables["belebele", "hin_Deva"]
        assert len(table.ids) == 3
        assert entry["scores"]["belebele"]["hin_Deva"] == table.scores.mean()
    result = json.loads((out / "train_result.json").read_text())["metrics"]
    for code, score in history[-1]["scores"]["belebele"].items():
        assert result[f"eval_belebele_{code}"] == score
    with_benchmarks = load_file(out / "model.safetensors")

    # Without them, the weights are the same to the last bit; and a new run does not stand among the old one's steps.
    shutil.rmtree(out)
    command("train", recipe)
    plain = load_file(out / "model.safetensors")
    assert all((plain[name] == weight).all() for name, weight in with_benchmarks.items())


def test_a_new_run_leaves_no_step_of_the_one_before(
    command: Callable[..., Done], recipe: Path, benchmarks: Path, tmp_path: Path
) -> None:
    evaluation = tmp_path / "out" / "evaluation"
    command("train", recipe, *_section(benchmarks), "--evaluation.steps", "1", "--trainer.max-steps", "1")
    assert {path.name for path in evaluation.iterdir()} == {"history.json", "step-000000", "step-000001"}
    (evaluation / "mine.txt").write_text("kept")
    command("train", recipe, *_section(benchmarks), "--trainer.max-steps", "2", "--overwrite")
    assert {path.name for path in evaluation.iterdir()} == {"history.json", "mine.txt", "step-000000", "step-000002"}
    command("train", recipe, "--trainer.max-steps", "1", "--overwrite")  # which asks nothing
    assert [path.name for path in evaluation.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--evaluation.tasks", "belebelle"], ["evaluation.tasks: belebelle", "did you mean 'belebele'?"]),
        (
            ["--evaluation.languages", "fra_Latn"],
            ["evaluation.languages: belebele has no fra_Latn", "out of evaluation.languages\n"],
        ),
        (
            ["--evaluation.languages", "swh_Latm"],
            ["evaluation.languages: unknown language 'swh_Latm'; did you mean swh_Latn"],
        ),
        (["--evaluation.num-fewshot", "99"], ["evaluation.num_fewshot: 99: ", " examples to draw from"]),
        (["--evaluation.data", "nowhere"], ["--evaluation.data: evaluation.data: nowhere: no such folder"]),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_model_is_loaded(
    command: Callable[..., Done], recipe: Path, benchmarks: Path, tmp_path: Path, words: list[str], messages: list[str]
) -> None:
    done = command("train", recipe, *_section(benchmarks), "--evaluation.tasks", "belebele", *words, code=2)
    for message in messages:
        assert message in done.err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_section_is_read_without_the_harness(recipe: Path) -> None:
    found = load_recipe(recipe, ["--evaluation.tasks", "belebele"]).evaluation
    assert found == EvaluationSection(tasks=["belebele"])
    assert load_recipe(recipe, []).evaluation is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--evaluation.task", "belebele"], "evaluation.task; did you mean 'tasks'?"),
        (["--evaluation.limit", "100"], "evaluation.tasks"),
        (["--evaluation.tasks", "[]"], "evaluation.tasks"),
        (["--evaluation.tasks", "b", "--evaluation.limit", "0"], "evaluation.limit"),
        (["--evaluation.tasks", "b", "--evaluation.strategy", "steps"], "evaluation.strategy: steps needs"),
        (
            ["--evaluation.tasks", "b", "--evaluation.strategy", "epoch", "--evaluation.steps", "5"],
            "contradict each other: leave one out",
        ),
        (["--evaluation.tasks", "b", "--evaluation.strategy", "never"], "evaluation.strategy"),
    ],
)
def test_a_section_that_says_what_cannot_be_is_refused(recipe: Path, words: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(recipe, words)
    assert message in str(refused.value)
