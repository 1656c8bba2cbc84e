"""A stale prior that `train --overwrite` replaces: what a kill or a refusal right after that leaves, and keeps."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, TINY, Run, options

from innerlingua.errors import ModelError
from innerlingua.recipe import build
from innerlingua.routing import RoutingPrior
from innerlingua.routing import prior as priors

OTHER = ("train", "--trainer.max-steps", "1", "--alignment.pooling", "completion")

KILLED = """
import os, signal, sys
from innerlingua.recipe import build
build.make_trainer = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
from innerlingua.cli import main
main()
"""


def refuse(*given: object) -> None:
    raise ModelError("refused by the test")


def test_a_whole_new_prior_is_not_thrown_away_for_the_old_one(
    innerlingua: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    innerlingua("routing", "prior")
    words = [*OTHER[:1], str(TINY), *options(tiny, out), *OTHER[1:], "--overwrite"]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert sorted(path.name for path in out.iterdir()) == [".prior.old", "prior"]
    new = (out / "prior" / "prior.json").read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(build, "make_trainer", refuse)
        assert "refused by the test" in innerlingua(*OTHER, code=2).err
    assert [path.name for path in out.iterdir()] == ["prior"]
    assert (out / "prior" / "prior.json").read_bytes() == new
    assert RoutingPrior.open(out / "prior").pooling == "completion"
    assert "is up to date" in innerlingua(*OTHER).out


def test_an_old_prior_whose_place_is_empty_comes_back(innerlingua: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    innerlingua("routing", "prior")
    (out / "prior").rename(out / ".prior.old")  # as a kill between the two renames leaves it
    assert "is up to date" in innerlingua("routing", "prior").out
    assert [path.name for path in out.iterdir()] == ["prior"]


def test_what_a_refused_start_computed_is_taken_up_by_the_next(
    innerlingua: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    innerlingua("routing", "prior")
    before = (out / "prior" / "prior.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(build, "make_trainer", refuse)
        innerlingua(*OTHER, "--overwrite", code=2)
    assert (out / "prior" / "prior.json").read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(priors, "prior_pass", None)  # nothing is computed again
        innerlingua(*OTHER, "--overwrite")
    assert RoutingPrior.open(out / "prior").pooling == "completion"
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
