"""A stored prior whose numbers were damaged, in the hands of the commands that meet it first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from innerlingua.routing import RoutingPrior


@pytest.mark.parametrize("factor", [5.0, -1.0])
def test_a_first_training_refuses_it_and_overwrite_computes_it_anew(
    factor: float, innerlingua: Run, tmp_path: Path
) -> None:
    innerlingua("routing", "prior")
    path = tmp_path / "out" / "prior" / "prior.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    rows = load_file(path)["prior"]
    save_file({"prior": rows * factor}, path, metadata=metadata)
    damaged = path.read_bytes()
    for words in (("train", "--trainer.max-steps", "1"), ("routing", "prior")):
        done = innerlingua(*words, code=2)
        assert "is damaged: what it holds for the anchor 'p000' is no distribution over experts" in done.err
        assert path.read_bytes() == damaged
        assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["prior"]
    assert "replaced, because" in innerlingua("routing", "prior", "--overwrite").out
    prior = RoutingPrior.open(path.parent)
    assert torch.allclose(prior.rows(prior.ids), rows, atol=1e-6)
