"""What the doctor refuses a training refuses, in the same words; what it lets pass trains. And it leaves no trace."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from doctor_files import files_under, write
from transformers import AutoTokenizer

from innerlingua.errors import InnerlinguaError
from innerlingua.recipe import Recipe
from innerlingua.recipe.build import run_prior, run_training
from innerlingua.recipe.doctor.report import Report

SHORT = ("--trainer.max-steps", "1")


def refusals(report: Report) -> list[str]:
    return [finding.what for finding in report.findings if finding.level == "refused"]


def bad_row(folder: Path, rows: Dataset, **change: str) -> tuple[str, ...]:
    changed = rows.to_list()
    changed[2] |= change
    return ("--data.train", str(write(folder / "bad.jsonl", changed)))


@pytest.mark.parametrize(
    "options",
    [
        ("--trainer.learning-rat", "1"),
        ("--trainer.optim", "adamw_bnb_8bit"),
        ("--trainer.label-smoothing-factor", "0.1"),
        ("--trainer.per-device-train-batch-size", "64", "--trainer.dataloader-drop-last"),
        ("--model.path", "./absent"),
        ("--model.experts-implementation", "fastest"),
        ("--model.train", "[shared_experts]"),
        ("--peft.parts", "[shared_experts]"),
        ("--alignment.layers", "9"),
        ("--alignment.anchor", "live", "--alignment.pooling", "spans"),
        ("--data.train", "absent.jsonl"),
        ("--data.max-length", "10"),
        ("--evaluation.tasks", "[belebelle]"),
    ],
    ids=lambda options: options[0],
)
def test_the_words_are_those_of_a_training(
    options: tuple[str, ...],
    examined: Callable[..., Report],
    recipe_of: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    found = refusals(examined(*SHORT, *options))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InnerlinguaError) as refused:
        run_training(recipe_of(*SHORT, *options), say=lambda text: None)
    assert found[0] == str(refused.value)


def test_a_bad_row_and_a_model_without_the_layers_and_a_full_folder_at_once(
    examined: Callable[..., Report], recipe_of: Callable[..., Recipe], pairs: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    held_out = pairs.to_list()
    held_out[1]["id"] = held_out[0]["id"]
    options = (
        *bad_row(tmp_path, pairs, language="swahili"),
        *("--data.eval", str(write(tmp_path / "eval.jsonl", held_out))),
        *("--alignment.layers", "9", "--peft.parts", "[shared_experts]", "--trainer.seed", "-1"),
    )
    before = files_under(tmp_path)
    report = examined(*options)
    assert files_under(tmp_path) == before
    expected = ("trainer.seed is -1", "thesis.tex", "swahili", "occurs twice", "no MoE layer at", "shared_experts")
    found = refusals(report)
    assert len(found) == len(expected)
    for words, text in zip(expected, found, strict=True):
        assert words in text
    assert report.model is not None
    assert report.parameters is not None
    assert report.data is report.losses is None
    with pytest.raises(InnerlinguaError) as refused:
        run_training(recipe_of(*options), say=lambda text: None)
    assert str(refused.value) == found[0]


def test_a_stale_prior_is_refused_left_alone_and_replaced_in_memory(
    examined: Callable[..., Report], recipe_of: Callable[..., Recipe], pairs: Dataset, tmp_path: Path
) -> None:
    run_prior(recipe_of("--data.train", str(write(tmp_path / "rows.jsonl", pairs.to_list()))), say=lambda text: None)
    before = files_under(tmp_path / "out")
    rows = [row | {"anchor_prompt": f"{row['anchor_prompt']} now"} for row in pairs.to_list()]
    options = (*SHORT, "--data.train", str(write(tmp_path / "rows.jsonl", rows)))
    report = examined(*options)
    with pytest.raises(InnerlinguaError) as refused:
        run_training(recipe_of(*options), say=lambda text: None)
    assert refusals(report) == [str(refused.value)]
    assert "is stale" in str(refused.value)
    assert files_under(tmp_path / "out") == before
    assert report.prior is not None
    assert report.prior.state == "stale"
    assert report.prior.sampled > 0
    assert report.losses is not None


def test_tokens_that_the_model_does_not_know(
    examined: Callable[..., Report],
    recipe_of: Callable[..., Recipe],
    home: Callable[..., Path],
    pairs: Dataset,
    tmp_path: Path,
) -> None:
    """In a row that the first step does not see."""
    shutil.copytree(home(), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_tokens([f"<{number}>" for number in range(40)])
    tokenizer.save_pretrained(tmp_path / "model")
    options = (*SHORT, *bad_row(tmp_path, pairs, completion="<39>"), "--model.path", str(tmp_path / "model"))
    found = refusals(examined(*options))
    with pytest.raises(InnerlinguaError) as refused:
        run_training(recipe_of(*options), say=lambda text: None)
    assert found == [str(refused.value)]
    assert "the token 339 ('<39>')" in found[0]


def test_weights_of_another_model_are_a_finding_and_not_a_crash(
    examined: Callable[..., Report], home: Callable[..., Path], tmp_path: Path
) -> None:
    import json

    shutil.copytree(home(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 6}))
    assert "22 weights" in refusals(examined("--model.path", str(tmp_path / "model")))[0]


@pytest.mark.parametrize(
    ("options", "level", "says"),
    [
        (("--trainer.neftune-noise-alpha", "5.0"), "warning", "a part of the divergence is noise"),
        (("--trainer.auto-find-batch-size",), "warning", "the rows of a step change"),
        (("--trainer.warmup-steps", "6"), "warning", "the learning rate never gets to 0.001"),
        (("--trainer.save-steps", "100"), "note", "no checkpoint is written before the end"),
        (("--trainer.max-steps", "2"), "note", "2 steps see 67% of the rows"),
        (("--trainer.save-only-model",), "warning", "a run that is killed cannot be resumed"),
        (("--trainer.dataloader-drop-last", "--trainer.per-device-train-batch-size", "9"), "note", "6 of 24 rows"),
        (("--alignment.weight", "5000"), "note", "on the routers the weighted gradient of routing_alignment"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_worth_a_word(options: tuple[str, ...], level: str, says: str, examined: Callable[..., Report]) -> None:
    report = examined(*options)
    assert not report.refused
    assert [finding.level for finding in report.findings if says in finding.what] == [level], report.findings


def test_it_passes_and_trains(examined: Callable[..., Report], trained: Callable[..., dict[str, Any]]) -> None:
    options = ("--alignment.pooling", "completion", "--peft.r", "2", "--peft.router", "train")
    report = examined(*SHORT, *options)
    assert not [finding for finding in report.findings if finding.level in ("refused", "warning")]
    assert sum(finding.level == "ok" for finding in report.findings) >= 5
    assert trained(*SHORT, *options)["steps"] == 1
