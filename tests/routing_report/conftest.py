"""Stored profiles for the report: a small family of three, and one of the size that the limits speak of."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_profiles import write_profile, write_results

from innerlingua.routing.report import write_report

LABELS = ("base", "sft", "sara")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """base, sft and sara of one small model in five languages."""
    root = tmp_path_factory.mktemp("family")
    return [write_profile(root / label, label=label) for label in LABELS]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results") / "result.json")


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two profiles of 31 languages x 48 layers x 128 experts with 24 long sentence pairs each."""
    root = tmp_path_factory.mktemp("large")
    return [
        write_profile(
            root / label, label=label, languages=31, layers=48, experts=128, top_k=8, samples=24, tokens=60, seed=seed
        )
        for seed, label in enumerate(LABELS[:2])
    ]


@pytest.fixture(scope="session")
def large_pages(large: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The page of the first large profile, and the page of both."""
    path = tmp_path_factory.mktemp("pages") / "report.html"
    return [write_report(large[:count], path).page.read_text() for count in (1, 2)]
