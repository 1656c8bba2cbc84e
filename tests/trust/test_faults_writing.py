"""Writes that the file system refuses, for real: a limit on the size of files, a full disk, a full standard output."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_runs import (
    ENVIRONMENT,
    GROSS,
    NINE_STEPS,
    Invoke,
    as_killed,
    command,
    unequal,
)
from soak_record import record

from commands import files_up_to
from innerlingua.recipe.checkpoints import flaw_of


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def sizes(checkpoint: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in checkpoint.iterdir()}


@pytest.mark.parametrize("fails", [pytest.param("model.safetensors", marks=pytest.mark.slow), "optimizer.pt"])
def test_a_checkpoint_that_cannot_be_written(fails: str, run: Invoke, whole: Path, tmp_path: Path) -> None:
    output = as_killed(whole, tmp_path / "out")
    before = content(output / "checkpoint-3")
    size = sizes(output / "checkpoint-3")
    assert size["model.safetensors"] < size["optimizer.pt"] * 0.75
    with files_up_to(int(size[fails] * 0.75)):
        done = run(output, *NINE_STEPS, "--resume", code=2)
    assert "nothing more can be written to" in done.err
    assert "checkpoint-3 is whole: go on from it with --resume" in done.err
    assert done.err.count("error:") == 1
    assert content(output / "checkpoint-3") == before
    assert not (output / "checkpoint-6").exists()
    run(output, *NINE_STEPS, "--resume")
    assert list(unequal(output, whole)) == []


@pytest.mark.slow
def test_a_model_that_cannot_be_saved(run: Invoke, whole: Path, tmp_path: Path) -> None:
    output = as_killed(whole, tmp_path / "out")
    limit = sizes(output / "checkpoint-3")["model.safetensors"] // 2
    with files_up_to(limit):
        done = run(output, *NINE_STEPS, "--resume", "--trainer.save-strategy", "no", code=2)
    assert "checkpoint-3 is whole: go on from it with --resume" in done.err
    assert not (output / ".saving").exists()
    assert not (output / "model.safetensors").exists()
    run(output, *NINE_STEPS, "--resume")
    assert list(unequal(output, whole)) == []


def test_a_prior_that_cannot_be_written(run: Invoke, whole: Path, tmp_path: Path) -> None:
    limit = sizes(whole / "prior")["prior.json"] // 2
    with files_up_to(limit):
        done = run(tmp_path / "out", *NINE_STEPS, code=2)
    assert "nothing more can be written" in done.err
    assert "File too large" in done.err
    assert not (tmp_path / "out" / "prior").exists()
    run(tmp_path / "out", *NINE_STEPS)
    assert list(unequal(tmp_path / "out", whole)) == []


def test_no_room_for_temporary_files(run: Invoke, tmp_path: Path) -> None:
    with files_up_to(256):
        done = run(tmp_path / "out", *NINE_STEPS, code=2)
    assert "TMPDIR" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_standard_output_that_takes_nothing(world: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(world, tmp_path / "out", *NINE_STEPS),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            check=False,
            timeout=GROSS,
        )
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path, whole: Path) -> Iterator[Path]:
    """A file system of its own with room for two checkpoints and a third of one, which a model does not fit into."""
    size = sum(sizes(whole / "checkpoint-3").values())
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(2.3 * size)}", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here (it takes root)")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full(run: Invoke, small_disk: Path, whole: Path) -> None:
    output = small_disk / "out"
    done = run(output, *NINE_STEPS, code=2)
    assert "nothing more can be written to" in done.err
    assert "checkpoint-6 is whole: go on from it with --resume" in done.err
    assert [flaw_of(output / f"checkpoint-{step}", step) for step in (3, 6)] == [None, None]
    assert not (output / "checkpoint-9").exists()
    # Still full: the same again, and nothing is lost by trying.
    assert "checkpoint-6 is whole" in run(output, *NINE_STEPS, "--resume", code=2).err
    shutil.rmtree(output / "checkpoint-3")
    # Room for the last checkpoint, and none for the model beside it.
    done = run(output, *NINE_STEPS, "--resume", code=2)
    assert "checkpoint-9 is whole: go on from it with --resume" in done.err
    shutil.rmtree(output / "checkpoint-6")
    run(output, *NINE_STEPS, "--resume")
    assert list(unequal(output, whole, checkpoints=["checkpoint-9"])) == []
    record(
        "a disk that is full keeps the run, and with room it ends where it would have ended",
        "a file system of its own (tmpfs) with room for two checkpoints and a third; three starts fail, each with one "
        "message, the fourth ends; last checkpoint, prior and model compared with an undisturbed run",
        3,
        "inputs",
        "equal to the last bit",
    )
