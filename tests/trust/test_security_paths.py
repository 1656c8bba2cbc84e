"""docs/security.md, "Files": names that come from data never become places outside of the folder that was asked for."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hostile_rig import census, invoke, pairs, refused, save_tiny, train_words, write_rows

from evaluation.stored_runs import answers, write_scores
from innerlingua.data import sources
from innerlingua.data.sources import open_sources
from innerlingua.errors import DataError
from innerlingua.evaluation.store import samples_path
from innerlingua.recipe import run as run_folder

HOSTILE = ["../../victim", "/victim", "..", ".", "a/b", "a\\b", "x\0y", "", "victim\n", "~/victim", "-rf", "é" * 90]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def hostile_rows(code: str) -> list[dict[str, Any]]:
    return [{**row, "id": name, "language": code} for row, name in zip(pairs(), HOSTILE, strict=False) if name.strip()]


@pytest.mark.parametrize("code", ["../../victim", "/victim", "..", "a/b"])
def test_ids_and_languages_of_rows_are_no_paths(tmp_path: Path, code: str) -> None:
    """`data pair` writes its output and its card, and nothing else, whatever its rows are called."""
    room = tmp_path / "room" / "inner"
    room.mkdir(parents=True)
    rows = write_rows(room / "rows.jsonl", hostile_rows(code))
    done = invoke("data", "pair", str(rows), "-o", str(room / "out.jsonl"), "--language-name", f"{code}=Odd")
    assert done.code == 0, done.err
    assert set(census(tmp_path)) == {
        "room", "room/inner", "room/inner/rows.jsonl", "room/inner/out.jsonl", "room/inner/out.card.md"
    }  # fmt: skip
    kept = [json.loads(line)["id"] for line in (room / "out.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert set(kept) == {row["id"] for row in hostile_rows(code)}


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("-rf",)])
def test_benchmarks_and_languages_name_files_of_samples_only_when_plain(tmp_path: Path, name: str) -> None:
    for benchmark, language in ((name, "swh_Latn"), ("xcopa", name)):
        with pytest.raises(DataError, match="cannot name a benchmark or language"):
            samples_path(tmp_path, benchmark, language)


@pytest.mark.parametrize("key", ["benchmark", "language"])
def test_results_that_name_files_elsewhere_are_refused(tmp_path: Path, key: str) -> None:
    """A results folder from somebody else whose summary points at a file beside it."""
    import numpy as np

    folders = [
        write_scores(tmp_path / name, {("xcopa", "swh_Latn"): answers(np.random.default_rng(1), 20, 0.5)})
        for name in ("a", "b")
    ]
    secret = tmp_path / "secret.swh_Latn.jsonl"
    shutil.copy(next((folders[0] / "samples").iterdir()), secret)
    path = folders[1] / "results.json"
    stored = json.loads(path.read_text())
    stored["results"][0][key] = "../../secret" if key == "benchmark" else "../../../secret.swh_Latn"
    path.write_text(json.dumps(stored))
    refused(invoke("compare", *map(str, folders)), "name no benchmark and language")


@pytest.mark.parametrize("label", ["../victim", "/victim", "..", "a\\b", ".hidden"])
def test_a_label_names_a_folder_inside_the_output(tiny: Path, tmp_path: Path, label: str) -> None:
    words = ["evaluate", str(tiny / "model"), "--tasks", "xcopa", "--label", label, "-o", str(tmp_path / "results")]
    refused(invoke(*words), "--label")
    assert not list(tmp_path.iterdir())


def test_an_overwritten_run_loses_its_own_files_and_no_others(tiny: Path, tmp_path: Path) -> None:
    """The record of the run in the folder names files, and links stand where checkpoints would."""
    folder, victim = tmp_path / "out", tmp_path / "victim"
    folder.mkdir()
    victim.mkdir()
    (victim / "precious").write_text("x")
    (folder / "checkpoint-7").symlink_to(victim)
    (folder / "notes.txt").write_text("mine")
    listed = ["../victim/precious", str(victim / "precious"), "..", 5, "checkpoint-7", "old.bin"]
    run_folder.write_json(folder / run_folder.RECORD, {"schema": 1, "beside": [], "files": listed})
    (folder / "old.bin").write_text("of the run")
    for place in (victim, victim / "step-1"):  # as benchmarks along a training leave them
        place.mkdir(exist_ok=True)
        for name in ("history.json", "run.json"):
            (place / name).write_text("{}")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "history.json").write_text("{}")
    (folder / "evaluation" / "step-2").symlink_to(victim / "step-1")
    linked = folder.with_name("linked")
    linked.mkdir()
    run_folder.write_json(linked / run_folder.RECORD, {"schema": 1})
    (linked / "evaluation").symlink_to(victim)
    run_folder.clear_folder(folder)
    run_folder.clear_folder(linked)
    assert {path.name for path in victim.rglob("*")} == {"precious", "step-1", "history.json", "run.json"}
    assert (victim / "step-1" / "run.json").exists()
    assert not (folder / "evaluation" / "history.json").exists()
    assert (victim / "precious").read_text() == "x"
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "old.bin").exists()
    assert not (folder / run_folder.RECORD).exists()


def test_training_writes_into_its_folder_alone(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, languages and groups that look like paths, from the rows to the checkpoint, the prior and the card."""
    room = tmp_path / "room" / "inner"
    room.mkdir(parents=True)
    monkeypatch.chdir(room)
    rows = [{**row, "group": "/victim"} for row in hostile_rows("swh_Latn")]
    for row in rows:
        row["anchor_prompt"] += row["id"]  # one anchor an id
    write_rows(room / "rows.jsonl", rows)
    before = census(tmp_path)
    done = invoke(*train_words(tiny / "model", Path("rows.jsonl"), Path("out")))
    assert done.code == 0, done.err
    fresh = set(census(tmp_path)) - set(before)
    assert fresh
    assert all(name.startswith("room/inner/out") for name in fresh), fresh


def test_an_output_that_is_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out.jsonl").symlink_to(victim)
    rows = write_rows(tmp_path / "rows.jsonl", pairs())
    done = invoke("data", "pair", str(rows), "-o", str(tmp_path / "out.jsonl"), "--overwrite")
    assert done.code == 0, done.err
    assert victim.read_text() == "precious"
    assert not (tmp_path / "out.jsonl").is_symlink()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.csv.gz"])
def test_a_line_that_would_fill_the_memory_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LONGEST_LINE", 1 << 20)  # the bound itself would take seconds
    monkeypatch.setattr(sources, "_LONGEST_CELL", 1 << 30)
    head = b'{"id": "1", "text": "' if ".jsonl" in name else b'id,text\n1,"'
    content = head + b"x" * (3 << 20) + b'"'
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=r"line \d: is longer than 1 MiB"):
        list(open_sources(tmp_path / name)[0].rows())
