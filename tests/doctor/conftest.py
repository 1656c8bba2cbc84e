"""Tiny models of several families on disk, rows in two languages, and the doctor and a training on recipes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from doctor_files import TINY, write
from transformers import PreTrainedTokenizerFast

from innerlingua.recipe import Recipe, load_recipe
from innerlingua.recipe.doctor.examine import examine
from innerlingua.recipe.doctor.report import Report
from tiny import tiny_model

VOCAB = 320  # room for the tests' tokenizer


class Silent:
    """Watches nothing."""

    def stage(self, title: str, total: int = 0) -> None:
        """A part begins."""

    def advance(self) -> None:
        """Work is done."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No hub, no GPU, and the switches of a full determinism set back."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Path]:
    """The folder of a tiny model of a family, with its tokenizer; made when first asked for."""
    root = tmp_path_factory.mktemp("models")

    def folder(family: str = "qwen3_moe") -> Path:
        if not (root / family).exists():
            tiny_model(family, vocab_size=VOCAB).save_pretrained(root / family)
            tokenizer.save_pretrained(root / family)
        return root / family

    return folder


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory, pairs: Dataset) -> Path:
    """Twenty-four rows: the eight pairs of all tests, three times over with other ids; Hindi and Swahili."""
    rows = [{**row, "id": f"{row['id']}-{copy}"} for copy in range(3) for row in pairs.to_list()]
    return write(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows)


@pytest.fixture
def recipe_of(home: Callable[[str], Path], rows_file: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """`recipes/tiny.yaml` on a family, into `tmp_path / "out"`, with these further options."""

    def make(*options: str, family: str = "qwen3_moe") -> Recipe:
        needed = [
            *("--model.path", str(home(family))),
            *("--data.train", str(rows_file)),
            *("--trainer.output-dir", str(tmp_path / "out")),
            "--trainer.disable-tqdm",
        ]
        return load_recipe(TINY, [*needed, *options])

    return make


@pytest.fixture
def examined(recipe_of: Callable[..., Recipe]) -> Callable[..., Report]:
    """The doctor's report on such a recipe."""

    def run(*options: str, family: str = "qwen3_moe", processes: int = 1) -> Report:
        return examine(recipe_of(*options, family=family), str(TINY), Silent(), processes=processes)

    return run


@pytest.fixture
def trained(recipe_of: Callable[..., Recipe], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a training of such a recipe leaves in `train_result.json`."""
    from innerlingua.recipe.build import run_training

    def run(*options: str, family: str = "qwen3_moe", say: Callable[[str], None] | None = None) -> dict[str, Any]:
        heard: list[str] = []
        folder = run_training(recipe_of(*options, family=family), say=heard.append)
        result: dict[str, Any] = json.loads((folder / "train_result.json").read_text())
        return result | {"said": heard}

    return run
