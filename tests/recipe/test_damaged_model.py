"""Checkpoints and tokenizers that do not belong together are refused before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from innerlingua.errors import DataError, ModelError
from innerlingua.recipe.model import load_model, load_tokenizer
from innerlingua.recipe.rows import Rows, refuse_unknown_tokens
from innerlingua.recipe.schema import ModelSection
from tiny import tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    tiny_model().save_pretrained(folder)
    return folder


def configured(**changes: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (configured(num_hidden_layers=6), r"22 weights of .* are not in its files \(the first is model\.layers\.4\."),
        (configured(vocab_size=100), "the sizes in its config.json are not those of its weights"),
        (cut, "cannot be loaded: .*incomplete"),
    ],
)
def test_weights_that_are_not_the_models(
    damage: Callable[[Path], None], says: str, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelError, match=f"model.path: .*{says}"):
        load_model(ModelSection(path=str(tmp_path / "model"), dtype="float32"))


@pytest.mark.parametrize("side", ["", "anchor_"])
def test_tokens_beyond_the_embeddings(side: str, tokenizer: PreTrainedTokenizerFast) -> None:
    known = len(tokenizer) - 4
    row = {"id": "a", "language": "swh_Latn", "input_ids": [3, known - 1], "anchor_input_ids": [3]}
    fine = Dataset.from_list([row, {**row, "anchor_input_ids": None}])
    bad = Dataset.from_list([row, {**row, "id": "b", f"{side}input_ids": [3, known, 4]}])
    model = tiny_model(vocab_size=known)
    refuse_unknown_tokens(Rows(fine, None, {}), tokenizer, model)
    for rows in (Rows(bad, None, {}), Rows(fine, bad, {})):
        with pytest.raises(DataError, match=rf"row 'b' .* has the token {known} .* has embeddings for {known}:"):
            refuse_unknown_tokens(rows, tokenizer, model)


def test_a_model_without_a_tokenizer(whole: Path) -> None:
    with pytest.raises(ModelError, match=r"has no vocabulary: where the files of a tokenizer are missing"):
        load_tokenizer(ModelSection(path=str(whole)))
