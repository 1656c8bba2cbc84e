"""With packing, a model that lets joined rows see each other is refused before the pass that is the costliest part."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run
from transformers import AutoTokenizer

from innerlingua.routing import prior as priors
from tiny import tiny_model

PACKED = ("--data.packing", "true", "--data.max-length", "64", "--alignment.layers", "0-2")


def test_it_is_refused_before_an_anchor_goes_through(
    innerlingua: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, out = tmp_path / "gpt_oss", tmp_path / "out"
    tokenizer = AutoTokenizer.from_pretrained(tiny / "model")
    tiny_model("gpt_oss", vocab_size=len(tokenizer)).save_pretrained(base)
    tokenizer.save_pretrained(base)
    with monkeypatch.context() as patch:
        patch.setattr(priors, "prior_pass", None)  # would be a traceback
        for verb in (("routing", "prior"), ("train",)):
            done = innerlingua(*verb, *PACKED, "--model.path", str(base), code=2)
            assert "does not keep rows apart that lie end to end" in done.err
            assert done.err.count("error:") == 1
    assert not out.exists() or not list(out.iterdir())
    innerlingua("routing", "prior", *PACKED)  # a model that keeps them apart
    assert (out / "prior" / "prior.json").exists()
