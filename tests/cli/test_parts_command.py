from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig

from tiny import EXPERTS, tiny_model


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "innerlingua.cli", "parts", *arguments], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("deepseek_v3").config.save_pretrained(folder)  # no weights: they are not needed
    return folder


def test_json_counts_what_the_model_has(configuration: Path) -> None:
    done = run(str(configuration), "--train", "router", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    model = tiny_model("deepseek_v3")
    assert sum(part["parameters"] for part in found["parts"]) == sum(p.numel() for p in model.parameters())
    parts = {part["part"]: part for part in found["parts"]}
    assert parts["shared_experts"]["parameters"] > 0
    assert parts["router"]["trainable"] == parts["router"]["parameters"] == 3 * EXPERTS * 32
    assert [layer["index"] for layer in found["moe_layers"]] == [1, 2, 3]


def test_bad_input_is_one_message_and_exit_code_2(configuration: Path, tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    for arguments, words in (
        ((str(configuration), "--train", "rooter"), "did you mean 'router'"),
        ((str(tmp_path),), "has no MoE layer"),
        ((str(tmp_path / "absent"),), "there is no folder"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
