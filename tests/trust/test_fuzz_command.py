"""The command itself on inputs from outside: exit code 0 with whole outputs, or 2 with one message and no file touched.

Its entry point runs in this process, so that thousands of inputs are possible; `test_fuzz_reading.py` tries more of
them on the readers alone.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_rig import changed, dumped, ends_well, explore, keep, lines_changed, mutated
from hostile_rig import TINY, census, invoke, pairs, save_replicates, save_tiny, write_rows

from evaluation.stored_runs import three_models
from innerlingua.data import read_pairs
from innerlingua.recipe.reading import read_document
from routing_report.stored_profiles import write_profile

Check = Callable[[random.Random], bool]


def fresh(folder: Path) -> Path:
    """Where the files of the next input go; those of the last one are removed."""
    room = folder / "room"
    if room.exists():
        shutil.rmtree(room)
    return room


def pair_files(folder: Path) -> Check:
    """`data pair`, into each format, and `data check`."""
    rows = pairs(6)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()

    def check(rng: random.Random) -> bool:
        room = fresh(folder)
        room.mkdir()
        content = mutated(rng, lines) if rng.random() < 0.5 else lines_changed(rng, rows)
        source = room / "rows.jsonl"
        source.write_bytes(content)
        before = census(room)
        checked = invoke("data", "check", str(source), *(["--json"] if rng.random() < 0.5 else []))
        ends_well(checked, room, before)
        assert census(room) == before
        out = room / rng.choice(("out.jsonl", "out.jsonl.gz", "out.parquet"))
        options = [] if rng.random() < 0.5 else ["--missing-anchor", "keep"]
        done = invoke("data", "pair", str(source), "-o", str(out), *options)
        if ends_well(done, room, before):
            assert set(census(room)) == {"rows.jsonl", out.name, "out.card.md"}
            assert len(read_pairs(out, missing_anchor="keep").dataset) > 0
        return done.code == 0

    return check


def recipes(folder: Path) -> Check:
    """`train`, up to the model, which is not there: it refuses every input, one by one."""
    text = TINY.read_bytes()
    (folder / "plain.yaml").write_bytes(text)
    values = read_document(folder / "plain.yaml").values
    values["model"]["path"] = "./nowhere"
    write_rows(folder / "rows.jsonl", pairs())

    def check(rng: random.Random) -> bool:
        room = fresh(folder)
        room.mkdir()
        path = room / "recipe.yaml"
        path.write_bytes(mutated(rng, text) if rng.random() < 0.4 else dumped(changed(rng, values)))
        before = census(room)
        fixed = ["--model.path", "./nowhere", "--data.train", "../rows.jsonl", "--trainer.output-dir", "out"]
        done = invoke("train", str(path), *(fixed if rng.random() < 0.5 else fixed[:4]))
        return ends_well(done, room, before)

    return check


def profiles(folder: Path) -> Check:
    """`routing report` with its tables and figures, `routing compare` and `routing layers`."""
    base = write_profile(folder / "base", languages=3, layers=3, experts=4, samples=2, tokens=3)
    save_replicates(base)
    files = {path.name: path.read_bytes() for path in base.iterdir()}

    def check(rng: random.Random) -> bool:
        room = fresh(folder)
        shutil.copytree(base, room / "profile")
        name = rng.choice(list(files))
        both = name.endswith(".json") and rng.random() < 0.7
        content = dumped(changed(rng, json.loads(files[name]))) if both else mutated(rng, files[name])
        (room / "profile" / name).write_bytes(content)
        before = census(room)
        place = str(room / "profile")
        for words in (["compare", place, str(base)], ["layers", place]):
            ends_well(invoke("routing", *words), room, before)
        page, tables, figures = room / "page.html", room / "tables", room / "figures"
        done = invoke("routing", "report", place, "-o", str(page), "--export", str(tables), "--svg", str(figures))
        if ends_well(done, room, before):
            assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
            json.loads((tables / "report.json").read_text())
            assert not list(room.rglob(".*"))
        return done.code == 0

    return check


def results(folder: Path) -> Check:
    """`compare` with its page."""
    runs = three_models(folder / "runs", n=8)[:2]
    samples = sorted((runs[0] / "samples").iterdir())
    names = [path.relative_to(runs[0]) for path in (runs[0] / "run.json", runs[0] / "results.json", *samples[:2])]

    def check(rng: random.Random) -> bool:
        room = fresh(folder)
        shutil.copytree(runs[0], room / "base")
        path = room / "base" / rng.choice(names)
        whole = path.read_bytes()
        if rng.random() < 0.4:
            content = mutated(rng, whole)
        elif path.suffix == ".json":
            content = dumped(changed(rng, json.loads(whole)))
        else:
            content = lines_changed(rng, [json.loads(line) for line in whole.splitlines()])
        path.write_bytes(content)
        before = census(room)
        page = room / "page.html"
        words = ["compare", str(room / "base"), str(runs[1]), "--replicates", "1000", "--permutations", "1000"]
        done = invoke(*words, "--html", str(page), *rng.choice(([], ["--json"], ["--markdown"])))
        if ends_well(done, room, before):
            assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
        return done.code == 0

    return check


def priors(folder: Path) -> Check:
    """`routing prior` where one is stored already: up to date, or refused and left as it is."""
    tiny = save_tiny(folder / "tiny")
    words = [
        *("routing", "prior", str(TINY), "--model.path", str(tiny / "model")),
        *("--data.train", str(tiny / "pairs.jsonl"), "--trainer.disable-tqdm"),
    ]
    made = invoke(*words, "--trainer.output-dir", str(folder / "made"))
    assert made.code == 0, made.err
    names = sorted(path.name for path in (folder / "made" / "prior").iterdir() if path.is_file())

    def check(rng: random.Random) -> bool:
        room = fresh(folder)
        shutil.copytree(folder / "made", room)
        path = room / "prior" / rng.choice(names)
        if rng.random() < 0.2:
            path = room / "beside.txt"
            path.write_bytes(b"")
        elif path.suffix == ".json" and rng.random() < 0.5:
            path.write_bytes(dumped(changed(rng, json.loads(path.read_bytes()))))
        else:
            path.write_bytes(mutated(rng, path.read_bytes()))
        before = census(room)
        done = invoke(*words, "--trainer.output-dir", str(room))
        taken = ends_well(done, room, before)
        assert census(room) == before
        return taken

    return check


# target -> (the check, what it goes through, inputs in `make test`, inputs in `make soak`)
TARGETS: dict[str, tuple[Callable[[Path], Check], str, int, int]] = {
    "the command on pair files": (pair_files, "`data pair` and `data check`", 15, 300),
    "the command on recipes": (recipes, "`train`", 6, 100),
    "the command on profiles": (profiles, "`routing report`, `compare` and `layers`", 10, 200),
    "the command on results": (results, "`compare`", 10, 400),
    "the command on priors": (priors, "`routing prior`", 5, 80),
}


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_inputs(target: str, tmp_path: Path) -> None:
    check, _, few, _ = TARGETS[target]
    found = explore(check(tmp_path), few)
    assert found["refused"] > 0
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_many_inputs(target: str, tmp_path: Path) -> None:
    check, through, _, many = TARGETS[target]
    takes = target != "the command on recipes"
    keep(target, [explore(check(tmp_path), many)], through=through, takes=takes, writes=True)
    assert not list((tmp_path / "here").iterdir())
