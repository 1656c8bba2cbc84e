"""Adapters belong to the base that they were trained on: a resume looks whether `model.path` is still that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import Run
from safetensors.torch import load_file, save_file

SHORT = ("--trainer.max-steps", "2", "--trainer.save-steps", "1", "--peft.r", "2")


@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_adapters_do_not_go_on_upon_another_base(anchor: str, innerlingua: Run, tiny: Path, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny / "model", base)
    words = ("train", *SHORT, "--model.path", str(base), "--alignment.anchor", anchor)
    innerlingua(*words)
    (out / "train_result.json").unlink()
    shutil.rmtree(out / "checkpoint-2")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.gate.weight"))
    save_file(weights | {name: weights[name] * 2}, base / "model.safetensors", metadata={"format": "pt"})
    done = innerlingua(*words, "--resume", code=2)
    assert f"the weights of the base, model.path: {base}, have changed" in done.err
    assert done.err.count("error:") == 1

    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"num_experts_per_tok": 1}))
    done = innerlingua(*words, "--resume", code=2)
    assert "num_experts_per_tok: 2 -> 1" in done.err
    assert "the weights of the base" not in done.err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before

    if anchor == "prior":  # the base as it was, computed in another way
        (base / "config.json").write_text(json.dumps(settings))
        words = (*words, "--model.attn-implementation", "eager")
    else:  # a run of a version that recorded no base
        record = json.loads((out / "run.json").read_text())
        del record["base"]
        (out / "run.json").write_text(json.dumps(record))
    assert "resuming from" in innerlingua(*words, "--resume").out
    assert (out / "train_result.json").exists()


def test_a_checkpoint_of_all_weights_needs_no_base(innerlingua: Run, tiny: Path, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny / "model", base)
    words = ("train", *SHORT[:4], "--model.path", str(base))
    innerlingua(*words)
    assert json.loads((out / "run.json").read_text())["base"] is None
    (out / "train_result.json").unlink()
    shutil.rmtree(out / "checkpoint-2")
    weights = load_file(base / "model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"})
    assert "resuming from" in innerlingua(*words, "--resume").out
