"""Processes: a run that is killed, and a run of two. Each starts the command as a user does."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, STEPS, TINY, Run, command, options, pairs, write_rows

from commands import killed_at, write_launch


@pytest.fixture(scope="module")
def killed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that got SIGKILL after its first checkpoint, with a second one half written."""
    folder = tmp_path_factory.mktemp("killed")
    out = folder / "out"
    words = command("train", str(TINY), *options(tiny, out), *STEPS)
    environment = ENVIRONMENT | killed_at(folder / "hook", "open", "out/checkpoint-8/trainer_state.json")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (out / "checkpoint-4" / "trainer_state.json").exists()
    assert not (out / "train_result.json").exists()
    half = out / "checkpoint-8"
    half.mkdir(exist_ok=True)
    (half / "optimizer.pt").write_bytes(b"")
    (half / "trainer_state.json").write_text('{"global_step": 8, "ep')
    return out


def test_a_changed_run_is_not_resumed(innerlingua: Run, tmp_path: Path, killed: Path) -> None:
    here = (*STEPS, "--trainer.output-dir", str(killed), "--resume")
    done = innerlingua("train", *here, "--alignment.weight", "2", "--trainer.learning-rate", "1e-4", code=2)
    assert "alignment.weight: 1.5 -> 2" in done.err
    assert "trainer.learning_rate: 0.001 -> 0.0001" in done.err
    assert "output_dir" not in done.err.splitlines()[2]
    rows = pairs()
    rows[0]["completion"] = " siku"
    other = write_rows(tmp_path / "pairs.jsonl", rows)
    done = innerlingua("train", *here, "--data.train", str(other), code=2)
    assert "the rows of data.train" in done.err
    assert "run.rows" not in done.err


def test_an_unfinished_run_is_not_replaced_unasked(innerlingua: Run, killed: Path) -> None:
    assert "holds an unfinished run" in innerlingua("train", "--trainer.output-dir", str(killed), code=2).err


def test_a_killed_run_ends_where_an_uninterrupted_one_ends(tiny: Path, killed: Path, finished: Path) -> None:
    from safetensors.torch import load_file

    # How often is logged changes nothing that is learned, so it may change between the two halves.
    words = [*options(tiny, killed), *STEPS, "--trainer.logging-steps", "2", "--resume"]
    done = subprocess.run(
        command("train", str(TINY), *words), capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert "checkpoint-4" in done.stdout
    assert "passed over: checkpoint-8" in done.stdout
    # What transformers says about names of its own, and no user can change.
    assert "unexpected keys" not in done.stderr
    assert "FutureWarning" not in done.stderr
    resumed, whole = (load_file(folder / "model.safetensors") for folder in (killed, finished))
    assert [name for name in whole if not whole[name].equal(resumed[name])] == []
    assert json.loads((killed / "train_result.json").read_text())["steps"] == 12


def launch_two(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    config = write_launch(folder / "two.yaml")
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(config), "-m"]
    python, _, *rest = command(*words)
    return subprocess.run(
        [python, *launch, *rest], capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=240
    )


def test_two_processes_train_one_model(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = launch_two(tmp_path, "train", str(TINY), *options(tiny, out), "--trainer.max-steps", "2")
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    assert json.loads((out / "train_result.json").read_text())["steps"] == 2
    assert (out / "model.safetensors").exists()
    assert done.stdout.count("done: 2 steps") == 1
    assert done.stdout.count("routing prior: 40 anchors") == 1


def test_what_the_main_process_refuses_ends_all_processes(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    done = launch_two(tmp_path, "train", str(TINY), *options(tiny, out))
    assert done.returncode != 0
    assert "] error: command line, --trainer.output-dir: trainer.output_dir" in done.stderr
    assert done.stderr.count("holds files of something else (thesis.tex)") == 2
