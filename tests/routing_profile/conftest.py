"""A small parallel corpus in three languages, and a tiny model for the shared tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from parallel_rows import sentences
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tiny import tiny_model


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    return sentences(12)


@pytest.fixture(scope="session")
def parallel(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows)


@pytest.fixture(scope="session")
def reader(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return tokenizer


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_model(vocab_size=len(tokenizer), max_position_embeddings=256)
