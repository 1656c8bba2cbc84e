"""What a run reads of its checkpoints and its data: the main process alone, and at its end next to nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from innerlingua.recipe.checkpoints import last_checkpoint, left, newest_whole, unfinished
from training.processes import run_two

LARGE = 4_000_000  # numbers in the optimiser's state, 4 bytes each
COUNTED = Path("/proc/self/io")

counting = pytest.mark.skipif(not COUNTED.exists(), reason="the system does not count what a process reads")


def checkpoint_of(folder: Path, step: int) -> Path:
    """A checkpoint whose optimiser's state has 16 MB."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"a": torch.ones(50)}, checkpoint / "model.safetensors", metadata={"format": "pt"})
    torch.save({"x": torch.ones(LARGE)}, checkpoint / "optimizer.pt")
    for name in ("scheduler.pt", "rng_state.pth"):
        torch.save({"x": torch.ones(4)}, checkpoint / name)
    (checkpoint / "config.json").write_text("{}")
    state = {"epoch": 0.5, "max_steps": 12, "log_history": [], "global_step": step}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    return checkpoint


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def bytes_read(action: Callable[[], object]) -> int:
    """How many bytes this process asked the system for while `action` ran."""

    def count() -> int:
        return int(COUNTED.read_text().partition("rchar:")[2].split()[0])

    before = count()
    action()
    return count() - before


@counting
def test_only_a_resume_reads_the_optimiser(tmp_path: Path) -> None:
    checkpoint_of(tmp_path, 4)
    cut(checkpoint_of(tmp_path, 8) / "optimizer.pt")
    ways = {
        "resume": lambda: last_checkpoint(tmp_path, lambda text: None),
        "end": lambda: left(tmp_path, weights_only=False, whole="is whole", none="nothing"),
        "full disk": lambda: unfinished(tmp_path),
    }
    found = {name: bytes_read(way) for name, way in ways.items()}
    assert found["resume"] > 4 * LARGE
    assert max(found["end"], found["full disk"]) < LARGE


def test_what_a_run_leaves_is_told_in_one_sentence(tmp_path: Path) -> None:
    def told(*, weights_only: bool = False) -> str:
        return left(tmp_path, weights_only=weights_only, whole="is whole", none="nothing")

    assert told() == told(weights_only=True) == "nothing"
    checkpoint = checkpoint_of(tmp_path, 4)
    cut(checkpoint_of(tmp_path, 8) / "optimizer.pt")
    assert newest_whole(tmp_path) == checkpoint
    assert told() == f"{checkpoint} is whole"
    (checkpoint / "optimizer.pt").unlink()
    assert told() == "nothing"
    assert told(weights_only=True).endswith(f"the weights that were saved are in {tmp_path}")


TWO = """
from types import SimpleNamespace as Some
from test_checkpoints_read import LARGE, bytes_read
from innerlingua.errors import RecipeError
from innerlingua.recipe.drift import sources
from innerlingua.recipe.resume_state import checkpoint_to_resume

model = trainer = None
said, found, raised = [], [], []
read = bytes_read(lambda: found.append(checkpoint_to_resume(folder / "run", said.append)))
try:
    checkpoint_to_resume(folder / "empty", said.append)
except RecipeError as error:
    raised = [str(error)]
recipe = Some(data=Some(train=[str(folder / "rows.jsonl")], eval=None))
hashed = bytes_read(lambda: found.append(sources(recipe, Some(train=[1, 2], evaluation=None))))
record = {"read": read, "hashed": hashed, "found": [str(found[0].name), found[1]], "said": said, "raised": raised}
(folder / f"{rank}.json").write_text(json.dumps(record))
"""


@counting
def test_the_main_process_reads_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    checkpoint_of(tmp_path / "run", 4)
    cut(checkpoint_of(tmp_path / "run", 8) / "optimizer.pt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.jsonl").write_bytes(b" " * 4 * LARGE)
    run_two(TWO, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["found"] == second["found"]
    assert first["found"][0] == "checkpoint-4"
    assert first["found"][1]["data.train"]["files"][0]["bytes"] == 4 * LARGE
    assert "checkpoint-8, where optimizer.pt is cut short" in first["said"][0]
    assert second["said"] == []
    assert "holds no whole checkpoint" in first["raised"][0]
    assert first["raised"] == second["raised"]
    assert min(first["read"], first["hashed"]) >= 4 * LARGE
    assert max(second["read"], second["hashed"]) < LARGE
