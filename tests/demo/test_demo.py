"""The demo from end to end, in its quick version, and its page."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from innerlingua.demo import run_demo
from innerlingua.demo.languages import TARGETS
from innerlingua.demo.model import BaseSettings, base_fingerprint
from innerlingua.demo.report import render_report

RUNS = ["base", "sft", "sara", "sara_shuffled"]
VOID = {"meta", "br"}  # `<rect ... />` and the like come to handle_startendtag


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run_demo(folder, quick=True)
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return content


class Outline(HTMLParser):
    """Fails on tags that do not close, and keeps what the tests ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.figures = 0
        self.curves = 0
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.figures += tag == "figure"
        self.curves += tag == "polyline" and "figure" in self.open
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.curves += tag == "polyline" and "figure" in self.open

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def test_the_result_has_the_contracts_keys(result: dict[str, Any]) -> None:
    assert {"schema", "command", "versions", "seed", "runs"} <= set(result)
    assert list(result["runs"]) == RUNS
    for run in result["runs"].values():
        assert set(run["js"]) == set(run["accuracy"]) == set(TARGETS)
        for code in TARGETS:
            assert list(run["js"][code]) == [str(layer) for layer in result["layers"]]
            assert all(0 <= value <= math.log(2) for value in run["js"][code].values())
            assert 0 <= run["accuracy"][code]["correct"] <= run["accuracy"][code]["n"]
        assert run["seconds_per_step"] > 0
        assert run["summary"]["held_out"]["n"] >= 500
        assert run["summary"]["held_out"]["n"] == sum(run["accuracy"][code]["n"] for code in TARGETS)


def test_every_run_saw_the_alignment_it_was_given(result: dict[str, Any]) -> None:
    logged = {name: [row for row in result["runs"][name]["log"] if "routing_alignment" in row] for name in RUNS}
    assert not logged["base"]
    assert not logged["sft"]
    assert logged["sara"]
    assert logged["sara"][0]["routing_alignment"] != logged["sara_shuffled"][0]["routing_alignment"]
    assert all(result["runs"][name]["js"] != result["runs"]["base"]["js"] for name in RUNS[1:])


def test_plain_and_aligned_runs_start_from_the_same_batch(result: dict[str, Any]) -> None:
    """Same base, rows, order and seed: the first cross-entropy is one number, whatever the anchors."""
    first = {name: result["runs"][name]["log"][0] for name in RUNS[1:]}
    weight = result["settings"]["weight"]
    for name in ("sara", "sara_shuffled"):
        share = first[name]["loss"] - weight * first[name]["routing_alignment"]
        assert share == pytest.approx(first["sft"]["loss"], abs=1e-4)


def test_a_base_that_did_not_learn_is_said_plainly(folder: Path, result: dict[str, Any]) -> None:
    assert result["base"]["learned"] is False
    assert "did not learn its world" in (folder / "report.html").read_text(encoding="utf-8")
    learned = {**result, "base": {**result["base"], "learned": True}}
    assert "did not learn" not in render_report(learned)


def test_a_second_run_reuses_the_base_and_says_so(
    folder: Path, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert result["base"]["reused"] is False
    weights = folder / "base-quick" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    run_demo(folder, quick=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert "base: reused from" in printed
    assert weights.stat().st_mtime_ns == before
    again = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert again["base"]["reused"] is True
    assert again["runs"]["base"]["accuracy"] == result["runs"]["base"]["accuracy"]


def test_nothing_half_written_is_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["base-quick", "report.html", "result.json"]


def test_the_page_is_whole_and_needs_nothing_from_outside(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Outline()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.figures == len(TARGETS)
    assert page.curves == len(TARGETS) * len(RUNS)
    assert not re.search(r"(https?:)?//|url\(|@import|<script|<link|<iframe|<img", text)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "xlink:href")]
    for needed in ("prefers-color-scheme: dark", 'name="viewport"', 'lang="en"', "aria-label"):
        assert needed in text


def test_the_page_shows_the_numbers_of_the_result(folder: Path, result: dict[str, Any]) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    for run in result["runs"].values():
        assert f"<td>{run['summary']['js']:.4f}</td>" in text
        assert f"<td>{run['summary']['held_out']['accuracy']:.3f}</td>" in text
        for code in TARGETS:
            assert f"<td>{run['js'][code][str(result['layers'][0])]:.4f}</td>" in text


@pytest.mark.parametrize("changed", [{"steps": 61}, {"hidden": 48}, {"people": 70}])
def test_the_fingerprint_changes_with_every_setting_and_the_seed(changed: dict[str, int]) -> None:
    assert base_fingerprint(BaseSettings(), seed=0) == base_fingerprint(BaseSettings(), seed=0)
    assert base_fingerprint(BaseSettings(**changed), seed=0) != base_fingerprint(BaseSettings(), seed=0)
    assert base_fingerprint(BaseSettings(), seed=1) != base_fingerprint(BaseSettings(), seed=0)
