"""`innerlingua routing prior` that is cut short, and what the next start makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import Run

from innerlingua.routing import RoutingPrior, prior_files, prior_partial


def cut_short(monkeypatch: pytest.MonkeyPatch, innerlingua: Run, *words: str, renames: int) -> None:
    """Run `words` and let the process be stopped after so many files of a prior have got their names."""
    replace, renamed = os.replace, []

    def stops(source: Path, target: Path) -> None:
        if ".prior.partial" in Path(target).parts:
            renamed.append(target)
        if len(renamed) > renames:
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(prior_partial, "PIECE_BYTES", 1)
        patch.setattr(prior_files.os, "replace", stops)
        done = innerlingua(*words, code=2)
        assert "No space left on device" in done.err
    assert len(renamed) == renames + 1


def test_the_next_start_goes_on_where_it_was(innerlingua: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    innerlingua("routing", "prior")
    expected = RoutingPrior.open(out / "prior")
    rows = expected.rows(expected.ids)
    assert len(expected) == 40
    for name in ("prior.json", "prior.safetensors"):
        (out / "prior" / name).unlink()
    (out / "prior").rmdir()
    words = ("routing", "prior", "--trainer.per-device-eval-batch-size", "2")
    cut_short(monkeypatch, innerlingua, *words, renames=3)
    assert [path.name for path in out.iterdir()] == [".prior.partial"]
    done = innerlingua(*words)
    assert "routing prior: an earlier pass was cut short" in done.out
    assert [path.name for path in out.iterdir()] == ["prior"]
    assert sorted(path.name for path in (out / "prior").iterdir()) == ["prior.json", "prior.safetensors"]
    found = RoutingPrior.open(out / "prior")
    assert (found.rows(expected.ids) - rows).abs().max() < 1e-6


def test_a_training_takes_up_what_the_prior_s_command_left_and_nothing_stays(
    innerlingua: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(monkeypatch, innerlingua, "routing", "prior", renames=1)
    done = innerlingua("train", "--trainer.max-steps", "1")
    assert "routing prior: an earlier pass was cut short" in done.out
    assert not (tmp_path / "out" / ".prior.partial").exists()


def test_a_stale_prior_stays_until_the_new_one_is_whole(
    innerlingua: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    innerlingua("routing", "prior")
    before = (out / "prior" / "prior.json").read_bytes()
    other = ("routing", "prior", "--alignment.pooling", "completion", "--overwrite")
    cut_short(monkeypatch, innerlingua, *other, renames=1)
    assert (out / "prior" / "prior.json").read_bytes() == before
    assert "is up to date" in innerlingua("routing", "prior").out
    assert "replaced, because" in innerlingua(*other).out
    assert RoutingPrior.open(out / "prior").pooling == "completion"
