"""Fixtures of the trainer's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from datasets import Dataset
from runs import partly_anchored, prior_of
from transformers import PreTrainedTokenizerFast

from innerlingua.routing import RoutingPrior


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def tokenised(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """Eight tokenised pairs, of which rows 1, 4 and 5 have no anchor."""
    return partly_anchored(pairs, tokenizer)


@pytest.fixture(scope="session")
def prior(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> RoutingPrior:
    """A prior of all anchors, from another random model."""
    return prior_of(pairs, tokenizer)
