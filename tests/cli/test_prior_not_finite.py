"""A checkpoint with a weight that is not finite: the pass ends with its first batch, and no prior is made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import Run
from safetensors.torch import load_file, save_file

from innerlingua.routing import pooling


@pytest.mark.parametrize(
    ("part", "value"), [("1.mlp.gate.weight", float("nan")), ("0.self_attn.q_proj.weight", float("inf"))]
)
def test_the_first_batch_ends_the_pass(
    part: str, value: float, innerlingua: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny / "model", base)
    weights = load_file(base / "model.safetensors")
    next(tensor for name, tensor in weights.items() if name.endswith(part))[0, 0] = value
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})

    passes: list[int] = []
    batch_texts = pooling.batch_texts
    monkeypatch.setattr(pooling, "batch_texts", lambda rows, pad: passes.append(len(rows)) or batch_texts(rows, pad))
    words = ("--model.path", str(base), "--alignment.layers", "0-2", "--trainer.per-device-eval-batch-size", "2")
    for verb in (("routing", "prior"), ("train",)):
        passes.clear()
        done = innerlingua(*verb, *words, code=2)
        assert "gives values that are not finite for the anchor" in done.err
        assert "a weight of it or below it is not finite, so the checkpoint is damaged" in done.err
        assert done.err.count("error:") == 1
        assert len(passes) <= 2  # the first is read while the second is computed
        assert not out.exists() or not list(out.iterdir())
