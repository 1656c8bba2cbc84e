"""Which checkpoint a run goes on from: whole files by their own format, and the reason where one is passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from innerlingua.errors import RecipeError
from innerlingua.recipe.checkpoints import flaw_of, last_checkpoint, newest_whole, unfinished, unseal_later
from innerlingua.recipe.run import RECORD, read_record, write_json

STATE = {"epoch": 0.5, "max_steps": 12, "log_history": []}


def write(folder: Path, step: int, *, weights: str = "model.safetensors") -> Path:
    """A checkpoint with the files that the trainer writes, by the libraries that it uses."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"a": torch.ones(50), "b": torch.ones(2, 3)}, checkpoint / weights, metadata={"format": "pt"})
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"x": torch.ones(40)}, checkpoint / name)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "trainer_state.json").write_text(json.dumps(STATE | {"global_step": step}))
    return checkpoint


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 1])


@pytest.mark.parametrize("weights", ["model.safetensors", "adapter_model.safetensors"])
def test_a_whole_checkpoint_has_no_flaw(tmp_path: Path, weights: str) -> None:
    assert flaw_of(write(tmp_path, 4, weights=weights), 4) is None


def test_an_empty_model_is_whole(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 4)
    save_file({}, checkpoint / "model.safetensors")
    assert flaw_of(checkpoint, 4) is None


NAMES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]


@pytest.mark.parametrize("name", [*NAMES, "config.json"])
@pytest.mark.parametrize("length", ["one byte less", "empty", "half", "zeros"])
def test_a_file_that_is_cut_short_is_a_flaw(tmp_path: Path, name: str, length: str) -> None:
    path = write(tmp_path, 4) / name
    content = path.read_bytes()
    new = {
        "one byte less": content[:-1],
        "empty": b"",
        "half": content[: len(content) // 2],
        "zeros": b"\0" * len(content),
    }
    path.write_bytes(new[length])
    assert f"{name} is cut short" in str(flaw_of(path.parent, 4))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_byte_that_changed_is_a_flaw(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, 4) / name
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(40).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert f"{name} is cut short or damaged" in str(flaw_of(path.parent, 4))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing_is_a_flaw(tmp_path: Path, name: str) -> None:
    checkpoint = write(tmp_path, 4)
    (checkpoint / name).unlink()
    assert str(flaw_of(checkpoint, 4)).endswith("missing")


def test_what_a_resume_does_not_read_may_be_cut_short(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 4)
    cut(checkpoint / "training_args.bin")
    assert flaw_of(checkpoint, 4) is None


def test_a_state_of_another_step_is_a_flaw(tmp_path: Path) -> None:
    assert "says step 4" in str(flaw_of(write(tmp_path, 4), 8))


def test_every_shard_of_an_index_is_looked_for(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 4)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (checkpoint / "model.safetensors").rename(checkpoint / shards[0])
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"{shards[1]} is missing" in str(flaw_of(checkpoint, 4))
    save_file({"b": torch.ones(3)}, checkpoint / shards[1])
    assert flaw_of(checkpoint, 4) is None
    cut(checkpoint / shards[1])
    assert f"{shards[1]} is cut short" in str(flaw_of(checkpoint, 4))


def test_sharded_states_are_whole_with_their_table(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 4)
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "optimizer.pt").unlink()
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        (checkpoint / name).mkdir()
        (checkpoint / name / "__0_0.distcp").write_bytes(b"x")
    (checkpoint / "optimizer_0" / ".metadata").write_bytes(b"x")
    assert "pytorch_model_fsdp_0/.metadata" in str(flaw_of(checkpoint, 4))
    (checkpoint / "pytorch_model_fsdp_0" / ".metadata").write_bytes(b"x")
    assert flaw_of(checkpoint, 4) is None


def test_deepspeed_names_its_folder(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 4)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (checkpoint / name).unlink()
    (checkpoint / "latest").write_text("global_step4\n")
    assert "global_step4 is missing" in str(flaw_of(checkpoint, 4))
    (checkpoint / "global_step4").mkdir()
    shard = checkpoint / "global_step4" / "mp_rank_00_model_states.pt"
    torch.save({"x": torch.ones(3)}, shard)
    assert flaw_of(checkpoint, 4) is None
    cut(shard)
    assert "mp_rank_00_model_states.pt is cut short" in str(flaw_of(checkpoint, 4))


def test_the_last_whole_one_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    for step in (2, 10, 9, 11):
        write(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    cut(tmp_path / "checkpoint-11" / "model.safetensors")
    cut(tmp_path / "checkpoint-10" / "optimizer.pt")
    said: list[str] = []
    assert last_checkpoint(tmp_path, said.append) == tmp_path / "checkpoint-9"
    assert said == [
        "passed over: checkpoint-11, where model.safetensors is cut short or damaged",
        "passed over: checkpoint-10, where optimizer.pt is cut short or damaged",
    ]


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder: None, "holds no whole checkpoint, so"),
        (lambda folder: cut(write(folder, 4) / "scheduler.pt"), "checkpoint-4, where scheduler.pt is cut short"),
    ],
)
def test_none_is_one_message(tmp_path: Path, prepare: Callable[[Path], None], says: str) -> None:
    prepare(tmp_path)
    with pytest.raises(RecipeError, match=r"--resume.*--overwrite") as caught:
        last_checkpoint(tmp_path)
    assert says in str(caught.value)


def test_weights_need_their_configuration(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 4)
    (checkpoint / "config.json").unlink()
    assert flaw_of(checkpoint, 4) == "config.json is missing"
    adapter = write(tmp_path, 8, weights="adapter_model.safetensors")
    (adapter / "config.json").unlink()
    assert flaw_of(adapter, 8) is None


@pytest.mark.parametrize("key", STATE)
def test_a_state_that_the_trainer_did_not_write_is_a_flaw(tmp_path: Path, key: str) -> None:
    checkpoint = write(tmp_path, 4)
    state = {name: value for name, value in STATE.items() if name != key}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state | {"global_step": 4}))
    assert f"lacks {key}" in str(flaw_of(checkpoint, 4))


def test_a_file_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 4)
    (tmp_path / "checkpoint-8").write_text("x")
    with pytest.raises(RecipeError, match="checkpoint-8 is a file where the run keeps a folder"):
        last_checkpoint(tmp_path)


def test_checkpoints_of_weights_alone_are_finished_once_their_state_is_there(tmp_path: Path) -> None:
    checkpoints = [write(tmp_path, step) for step in (4, 8, 12)]
    for checkpoint in checkpoints:  # as trainer.save_only_model leaves them
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (checkpoint / name).unlink()
    (checkpoints[2] / "trainer_state.json").unlink()
    assert newest_whole(tmp_path) is None
    assert unfinished(tmp_path, weights_only=True) == checkpoints[2:]


def test_checkpoints_after_the_one_that_is_gone_on_from_lose_their_state(tmp_path: Path) -> None:
    checkpoints = [write(tmp_path, step) for step in (4, 8, 12)]
    cut(checkpoints[1] / "optimizer.pt")
    cut(checkpoints[2] / "model.safetensors")
    assert newest_whole(tmp_path) == checkpoints[0]
    assert set(unfinished(tmp_path)) == set(checkpoints[1:])
    unseal_later(checkpoints[0])
    # Mended by the next attempt but for its last file, each would otherwise count as whole.
    assert [(path / "trainer_state.json").exists() for path in checkpoints] == [True, False, False]


@pytest.mark.parametrize(
    "sources",
    [[], 3, {"data.train": 1}, {"data.train": {"rows": 2}}, {"data.train": {"rows": 2, "files": [{"file": "x"}]}}],
)
def test_a_record_with_odd_sources_is_damaged(tmp_path: Path, sources: object) -> None:
    write_json(tmp_path / RECORD, {"sources": sources})
    with pytest.raises(RecipeError, match=r"run\.json: its entry sources is not what a run writes"):
        read_record(tmp_path)
    whole = {"data.train": {"rows": 2, "files": [{"file": "x", "bytes": 1, "sha256": "0"}]}}
    write_json(tmp_path / RECORD, {"sources": whole})
    assert read_record(tmp_path)["sources"] == whole
