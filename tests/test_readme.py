"""The Python of the README, run as it is written: on tiny weights under the name that it loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets.config
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from innerlingua import RoutingPrior
from tiny import tiny_model

README = Path(__file__).parents[1] / "README.md"
NAME = "Qwen/Qwen3-30B-A3B"
CPU = re.compile(r"(SFTConfig\(.*)\)(  # without a GPU also: )(.+)")


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def as_told(block: str, model: Path) -> str:
    """`block` with a model that is here, and without a GPU what its comment says for that case."""
    block = block.replace(NAME, str(model))
    return block if torch.cuda.is_available() else CPU.sub(r"\1, \3)", block)


@pytest.fixture
def space(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """A folder with the files that the README names, entered; and the names that it takes as given."""
    model = tiny_model(vocab_size=len(tokenizer), num_hidden_layers=36, hidden_size=16, num_attention_heads=2)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    pairs.to_json(tmp_path / "train.jsonl", force_ascii=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    row = pairs[0]
    return {
        "swahili_batch": dict(tokenizer(row["prompt"], return_tensors="pt", return_token_type_ids=False)),
        "english_batch": dict(tokenizer(row["anchor_prompt"], return_tensors="pt", return_token_type_ids=False)),
    }


def test_it_runs_as_written(space: dict[str, Any], tmp_path: Path) -> None:
    training, looking = python_blocks()
    assert CPU.search(training)
    exec(compile(as_told(training, tmp_path / "model"), "README.md", "exec"), space)
    trainer = space["trainer"]
    assert trainer.state.global_step == 3
    assert trainer.state.log_history[-1]["routing_alignment"] > 0
    stored = RoutingPrior.open(tmp_path / "prior")
    assert stored.layers == list(range(7, 35))
    assert torch.equal(stored.rows(stored.ids), space["prior"].rows(stored.ids))

    device = space["model"].device
    for name in ("swahili_batch", "english_batch"):
        space[name] = {key: value.to(device) for key, value in space[name].items()}
    *statements, last = as_told(looking, tmp_path / "model").strip().splitlines()
    exec(compile("\n".join(statements), "README.md", "exec"), space)
    divergence = eval(last, space).detach()
    assert divergence.shape == (1, 3)
    assert float(divergence.min()) > 0


def test_the_names_that_it_shows_are_there(space: dict[str, Any]) -> None:
    from innerlingua import find_moe_layers

    _, looking = python_blocks()
    shown = re.search(r"find_moe_layers\(model\)\[0\]  # (.*)", looking)
    assert shown
    layer = find_moe_layers(tiny_model())[0]
    assert all(hasattr(layer, name.removeprefix(".")) for name in shown[1].split())
