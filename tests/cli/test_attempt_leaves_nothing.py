"""A disk that is full before the first checkpoint is whole: what the message says of the folder is so."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from command_line import Run

from commands import files_up_to
from innerlingua.errors import RecipeError
from innerlingua.recipe import run


def test_the_next_start_finds_an_empty_place(innerlingua: Run, tiny: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out", ("train", "--trainer.max-steps", "1", "--trainer.save-steps", "1")
    innerlingua("routing", "prior")
    with files_up_to(int((tiny / "model" / "model.safetensors").stat().st_size * 1.5)):  # Adam's state is twice that
        done = innerlingua(*words, code=2)
    assert "nothing more can be written to" in done.err
    assert "No checkpoint had been written, so nothing is left of this run" in done.err
    assert [path.name for path in out.iterdir()] == ["prior"]
    innerlingua(*words)
    assert (out / "README.md").exists()  # which TRL wrote beside the checkpoint, in the attempt that failed, too


@pytest.mark.parametrize(
    ("beside", "others", "kept", "says"),
    [
        ([], [], [], "so nothing is left of this run"),
        (["README.md"], [], ["README.md", "recipe.resolved.yaml", "run.json"], "start again with --overwrite"),
        ([], ["runs"], ["README.md", "recipe.resolved.yaml", "run.json", "runs"], "start again with --overwrite"),
    ],
)
def test_only_what_the_attempt_wrote_is_taken_away(
    beside: list[str], others: list[str], kept: list[str], says: str, tmp_path: Path
) -> None:
    from trl import SFTConfig

    from innerlingua.recipe.attempt import attempt

    run.write_json(tmp_path / run.RECORD, {"files": [], "beside": beside})
    for name in ("README.md", "recipe.resolved.yaml"):
        (tmp_path / name).write_text("x")
    for name in others:
        (tmp_path / name).mkdir()

    def fail() -> None:
        with attempt(tmp_path, SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RecipeError, match=f"No checkpoint had been written.*{says}"):
        fail()
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
