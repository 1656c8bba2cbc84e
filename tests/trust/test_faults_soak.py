"""The faults that `make test` tries, counted for the table of `docs/reliability.md`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from soak_record import record

HERE = Path(__file__).parent

FAULTS = {
    "test_faults_divergence.py": (
        "a training that diverges, or a term that does nothing, stops the run",
        "NaN and infinity put into weights, gradients and the optimiser at a step, constant and detached terms, rows "
        "without a label; the checkpoint from before is held to be whole and finite",
    ),
    "test_faults_writing.py": (
        "a write that is refused is one message, and the run goes on from its last checkpoint",
        "a limit on the size of files (RLIMIT_FSIZE) while a checkpoint, a prior or temporary files are written",
    ),
    "test_faults_resume.py": (
        "what changed or is gone between a run and its resume is named, and nothing is touched",
        "the prior lost, cut, damaged, exchanged; rows, tokenizer, recipe changed; checkpoints damaged; SIGTERM",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_met(name: str, tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", f"--junitxml={results}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [*words, f"--basetemp={tmp_path / 'work'}", str(HERE / name)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=HERE.parents[1],
    )
    suite = ElementTree.parse(results).getroot().find("testsuite")
    assert suite is not None, done.stdout
    tried, skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    about, how = FAULTS[name]
    record(about, how, tried - skipped, "inputs", "as promised" if not failed else f"{failed} not as promised")
    assert done.returncode == 0, done.stdout
    assert tried - skipped > 0
