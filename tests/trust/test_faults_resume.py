"""What has changed or gone between a run and its resume is named before anything is loaded, and nothing is touched."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from killed_runs import (
    NINE_STEPS,
    After,
    Invoke,
    as_killed,
    command,
    run_and_signal,
    run_to_end,
    unequal,
    write_pairs,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    """The folder of the same run, ended when checkpoint-3 was whole and checkpoint-6 was not."""
    return as_killed(whole, tmp_path / "out")


def refused(run: Invoke, output: Path, *words: str) -> str:
    """The message of a resume that is refused; it must leave everything as it was."""
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    done = run(output, *NINE_STEPS, "--resume", *words, code=2)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before
    assert done.err.count("error:") == 1
    return done.err


# -- the prior ---------------------------------------------------------------------------------------------------------


def test_a_prior_that_is_lost(run: Invoke, output: Path) -> None:
    shutil.rmtree(output / "prior")
    assert "the routing prior" in (words := refused(run, output))
    assert "is gone, and the weights have moved since it was computed. Put it back" in words


def test_numbers_of_a_prior_that_are_lost(run: Invoke, output: Path) -> None:
    (output / "prior" / "prior.safetensors").unlink()
    assert "no routing prior in" in refused(run, output)


@pytest.mark.parametrize("value", [-0.5, float("nan"), 3.0])
def test_numbers_of_a_prior_that_are_damaged(value: float, run: Invoke, output: Path) -> None:
    path = output / "prior" / "prior.safetensors"
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load_file(path)
    tensors["prior"][5, 0, 0] = value
    save_file(tensors, path, metadata=metadata)
    words = refused(run, output)
    assert "is damaged: what it holds for the anchor 'p005' is no distribution over experts" in words


def test_a_prior_cut_short(run: Invoke, output: Path) -> None:
    path = output / "prior" / "prior.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert "damaged" in refused(run, output)


def test_a_prior_of_something_else(run: Invoke, output: Path) -> None:
    record = output / "prior" / "prior.json"
    record.write_text(record.read_text() + " ")
    assert "is not the one that this run was started with" in refused(run, output)


@pytest.mark.slow
def test_a_lost_prior_is_computed_anew_from_the_untrained_model(run: Invoke, output: Path, world: Path) -> None:
    before = (output / "prior" / "prior.safetensors").read_bytes()
    shutil.rmtree(output / "prior")
    words = command(world, output)
    run_to_end([*words[:3], "routing", "prior", *words[4:]])
    assert (output / "prior" / "prior.safetensors").read_bytes() == before
    assert "resuming from" in run(output, *NINE_STEPS, "--resume").out


# -- data and recipe ---------------------------------------------------------------------------------------------------


def test_data_that_changed_is_named_with_its_file(run: Invoke, output: Path, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "other.jsonl", 46)
    words = refused(run, output, "--data.train", str(other))
    assert f"the rows of data.train have changed (47 -> 46): {other} has other content (" in words
    (tmp_path / "same.jsonl").write_text(write_pairs(other, 47).read_text().replace("jua", "jau"))
    assert "have changed (47 -> 47)" in refused(run, output, "--data.train", str(tmp_path / "same.jsonl"))


@pytest.mark.slow
def test_data_may_lie_elsewhere(run: Invoke, output: Path, world: Path, tmp_path: Path) -> None:
    shutil.copy(world / "pairs.jsonl", tmp_path / "moved.jsonl")
    assert "done: 9 steps" in run(output, *NINE_STEPS, "--resume", "--data.train", str(tmp_path / "moved.jsonl")).out


def test_a_tokenizer_that_changed_is_told_from_the_data(run: Invoke, output: Path, world: Path) -> None:
    path = world / "model" / "tokenizer_config.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"eos_token": "<s>"}))
    try:
        words = refused(run, output)
    finally:
        path.write_text(before)
    assert "the rows of data.train have changed (47 -> 47): the files are the same, and the tokenizer" in words


def test_a_recipe_that_changed_is_told_key_by_key(run: Invoke, output: Path) -> None:
    words = refused(run, output, "--trainer.learning-rate", "2e-3", "--alignment.weight", "2", "--trainer.seed", "1")
    for line in ("alignment.weight: 1.5 -> 2", "trainer.learning_rate: 0.001 -> 0.002", "trainer.seed: 42 -> 1"):
        assert line in words


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_without_its_configuration_is_passed_over(run: Invoke, output: Path) -> None:
    (output / "checkpoint-3" / "config.json").unlink()
    assert "checkpoint-3, where config.json is missing" in refused(run, output)


def test_a_state_that_no_trainer_wrote_is_passed_over(run: Invoke, output: Path) -> None:
    (output / "checkpoint-3" / "trainer_state.json").write_text('{"global_step": 3}')
    assert "checkpoint-3, where trainer_state.json lacks epoch" in refused(run, output)


def test_a_file_in_the_place_of_a_checkpoint_is_told(run: Invoke, output: Path) -> None:
    (output / "checkpoint-9").write_text("notes")
    assert "checkpoint-9 is a file where the run keeps a folder: move it away" in refused(run, output)


def test_parts_that_the_model_lacks_are_told_before_the_prior(run: Invoke, tmp_path: Path) -> None:
    done = run(tmp_path / "out", *NINE_STEPS, "--model.train", "[shared_experts]", code=2)
    assert "this model has no shared_experts" in done.err
    assert not (tmp_path / "out" / "prior").exists()


def test_the_launcher_says_in_which_type_the_anchors_are_computed(
    run: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    run(tmp_path / "out", "--trainer.max-steps", "1")
    record = json.loads((tmp_path / "out" / "prior" / "prior.json").read_text())
    assert record["fingerprint"]["compute"] == "bfloat16"


def test_a_run_whose_steps_are_all_made_makes_no_other(run: Invoke, whole: Path, tmp_path: Path) -> None:
    # Ended after its last checkpoint, in the middle of an epoch, whose other rows transformers would go on with.
    output = shutil.copytree(whole, tmp_path / "out")
    for name in ("model.safetensors", "train_result.json"):
        (output / name).unlink()
    run(output, *NINE_STEPS, "--resume")
    assert list(unequal(output, whole)) == []
    result = json.loads((output / "train_result.json").read_text())
    assert result["steps"] == 9
    assert "train_loss" not in result["metrics"]


# -- signals -----------------------------------------------------------------------------------------------------------


def ended(world: Path, output: Path, number: signal.Signals, *words: str) -> None:
    """A run that gets the signal at its fifth step says one line, and ends with the code that shells know it by."""
    code, out, err = run_and_signal(command(world, output, *NINE_STEPS, *words), After("'loss'", 5, 0.0), number)
    assert code == 128 + number, f"{out}\n{err}"
    assert "Traceback" not in err
    assert err.count("error:") == 1
    assert f"error: ended by {number.name}. {output / 'checkpoint-3'} is whole" in err


def test_sigterm_ends_a_run_in_one_line(run: Invoke, world: Path, tmp_path: Path) -> None:
    ended(world, tmp_path / "out", signal.SIGTERM)
    assert "checkpoint-3" in run(tmp_path / "out", *NINE_STEPS, "--resume").out


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_one_line(run: Invoke, world: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ended(world, output, signal.SIGINT)
    run(output, *NINE_STEPS, "--resume")
    assert list(unequal(output, whole)) == []


@pytest.mark.slow
def test_a_signal_before_the_first_step_leaves_nothing(world: Path, tmp_path: Path) -> None:
    words = command(world, tmp_path / "out", *NINE_STEPS)
    code, out, err = run_and_signal(words, After("47 of 47 rows", 1, 0.0), signal.SIGINT)
    assert code == 130, f"{out}\n{err}"
    assert "error: ended by SIGINT. No checkpoint had been written" in err
    assert not (tmp_path / "out" / "run.json").exists()
