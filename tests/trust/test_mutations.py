"""A test of the tests: each mistake of `mutations.py`, made in a copy of the source, makes the named tests fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation
from soak_record import record

import innerlingua

SOURCE = Path(innerlingua.__file__).parent
TESTS = Path(__file__).parents[1]
Driver = Callable[[Path, Mutation], int]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_mutation_replaces_is_there_once(mutation: Mutation) -> None:
    text = (SOURCE / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, f"{mutation.file} has changed: mend the list in tests/trust/mutations.py"
    assert mutation.old != mutation.new
    assert (TESTS / mutation.tests).is_file()


def test_no_name_is_given_twice() -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names)


def copied(folder: Path) -> Path:
    """A copy of the package, `folder/innerlingua`."""
    shutil.copytree(SOURCE, folder / "innerlingua", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@contextmanager
def driver(folder: Path) -> Iterator[Driver]:
    """A function that runs a mutation's tests on the package in a folder; pytest's exit code."""
    environment = {key: value for key, value in os.environ.items() if key != "INNERLINGUA_SOAK"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("mutation_driver.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=TESTS.parent,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def run(place: Path, mutation: Mutation) -> int:
        words = [str(TESTS / mutation.tests), "-k", mutation.chosen]
        job = {"folder": str(place), "words": words, "log": str(folder / "log.txt")}
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        return next(int(line.split()[1]) for line in stdout if line.startswith("CODE "))

    try:
        yield run
    finally:
        stdin.close()
        process.wait()
        stdout.close()


@pytest.mark.slow
def test_every_mutation_is_seen(tmp_path: Path) -> None:
    plain = copied(tmp_path / "plain")
    faults, passed = [], set()
    with driver(tmp_path) as run:
        for number, mutation in enumerate(MUTATIONS):
            if (mutation.tests, mutation.chosen) not in passed:
                code = run(plain, mutation)
                if code != 0:
                    faults.append(f"{mutation.name}: without it, pytest ends with {code}\n{told(tmp_path)}")
                passed.add((mutation.tests, mutation.chosen))
            mutated = copied(tmp_path / str(number))
            path = mutated / "innerlingua" / mutation.file
            path.write_text(path.read_text(encoding="utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
            code = run(mutated, mutation)
            if code != 1:  # 1: tests ran and some failed
                faults.append(f"{mutation.name}: with it, pytest ends with {code}\n{told(tmp_path)}")
            shutil.rmtree(mutated)
    assert not faults, "\n".join(faults)
    record(
        "Mutations of the source",
        "one mistake at a time in a copy of the source; the tests named for it pass without it and fail with it",
        len(MUTATIONS),
        "mutations",
        "every one is seen",
    )


def told(folder: Path) -> str:
    return (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-600:]
