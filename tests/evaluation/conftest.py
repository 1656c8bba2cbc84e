"""Small benchmarks in local files, tiny models in folders, and the verb run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluate_rig import Done, save_model, write_benchmarks
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with `mcq/` and `parallel/`, in English, Swahili and Hindi."""
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with the models `base` and `tuned` (other weights), with tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "base", tokenizer, seed=0)
    save_model(folder / "tuned", tokenizer, seed=1)
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`innerlingua ...` by the command's own entry point, in this process: starting one takes seconds."""
    from innerlingua.cli import main

    monkeypatch.delenv("INNERLINGUA_DATA", raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")

    def run(*words: object, code: int = 0) -> Done:
        monkeypatch.setattr(sys, "argv", ["innerlingua", *map(str, words)])
        capfd.readouterr()
        left = 0
        try:
            main()
        except SystemExit as error:
            left = int(error.code or 0)
        streams = capfd.readouterr()
        done = Done(left, streams.out, streams.err)
        assert done.code == code, f"{done.out}\n{done.err}"
        assert "Traceback" not in done.err, done.err
        return done

    return run
