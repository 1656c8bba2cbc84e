"""The world of runs that are disturbed, one such run that nothing disturbed, and the command in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_runs import NINE_STEPS, Invoke, invoke, make_world, whole_here
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), tokenizer)


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of nine steps that nothing disturbed."""
    return whole_here(world, tmp_path_factory.mktemp("whole") / "whole", *NINE_STEPS)


@pytest.fixture
def run(world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Invoke]:
    with invoke(world, monkeypatch, capfd) as started:
        yield started
