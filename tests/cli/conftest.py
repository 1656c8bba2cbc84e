"""A tiny Qwen3-MoE, its tokenizer and forty pairs on disk, and the command run on them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, STEPS, TINY, Done, Run, command, options, pairs, write_rows

from commands import save_byte_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model/` and `pairs.jsonl`. Random weights: what is tested is the command, not learning."""
    folder = tmp_path_factory.mktemp("tiny")
    save_byte_model(folder / "model", norm_topk_prob=True, tie_word_embeddings=True)
    write_rows(folder / "pairs.jsonl", pairs())
    return folder


@pytest.fixture
def innerlingua(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """`innerlingua("train", ...)`: the verb on the tiny recipe, into `tmp_path / "out"`, with these further options.

    The command's own entry point, in this process: starting one takes seconds. `test_resume.py` starts real ones.
    """
    import torch

    from innerlingua.cli import main

    def run(*words: str, code: int = 0) -> Done:
        verb = [word for word in words[:2] if word in ("train", "routing", "prior")]
        rest = words[len(verb) :]
        monkeypatch.setattr(sys, "argv", ["innerlingua", *verb, str(TINY), *options(tiny, tmp_path / "out"), *rest])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        streams = capfd.readouterr()
        done = Done(int(left.value.code or 0), streams.out, streams.err)
        assert done.code == code, f"{done.out}\n{done.err}"
        assert code == 1 or "Traceback" not in done.err, done.err
        return done

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    yield run
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of twelve steps that nothing interrupted."""
    output = tmp_path_factory.mktemp("finished") / "out"
    words = [*options(tiny, output), *STEPS]
    done = subprocess.run(
        command("train", str(TINY), *words), capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return output
