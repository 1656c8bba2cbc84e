"""The command line: profile, compare, layers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from parallel_rows import sentences

from innerlingua.cli import main

PLAIN = """# the first run
model:
  path: somewhere   # a folder
data: {train: rows.jsonl}
alignment:
  weight: 1.0
  %s
trainer:
  output_dir: runs/x
"""


@pytest.fixture(scope="module")
def folder(model: Any, reader: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    model.save_pretrained(folder / "model")
    reader.save_pretrained(folder / "model")
    for name, part in (("a", slice(0, 6)), ("b", slice(6, 12))):
        lines = [json.dumps(row) + "\n" for row in sentences(12)[part]]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["innerlingua", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def _profile(monkeypatch: pytest.MonkeyPatch, folder: Path, out: str, *more: str) -> int:
    files = [folder / "a.jsonl", folder / "b.jsonl"]
    return _run(
        monkeypatch,
        "routing",
        "profile",
        folder / "model",
        "--pairs",
        *files,
        "-o",
        folder / out,
        "--device",
        "cpu",
        *more,
    )


def test_profile_compare_and_layers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        _profile(monkeypatch, folder, "one", "--seen", "eng_Latn", "swh_Latn", "--languages", "swh_Latn,hin_Deva") == 0
    )
    assert "24 pairs of 24" in capfd.readouterr().out
    assert _profile(monkeypatch, folder, "two", "--label", "second", "--samples", "0", "--layers", "0-3") == 0
    record = json.loads((folder / "one" / "profile.json").read_text(encoding="utf-8"))
    assert record["label"] == "one"
    assert record["data"]["seen_in_training"] == ["eng_Latn", "swh_Latn"]
    assert [Path(name).name for name in record["data"]["files"]] == ["a.jsonl", "b.jsonl"]
    assert json.loads((folder / "two" / "samples.json").read_text(encoding="utf-8")) == {"pairs": []}
    capfd.readouterr()
    assert _run(monkeypatch, "routing", "compare", folder / "one", folder / "two") == 0
    table = capfd.readouterr().out
    assert "swh_Latn" in table
    assert "Both profiles are of the same weights." in table
    assert _run(monkeypatch, "routing", "compare", folder / "one", folder / "two", "--json", "--layers", "1-2") == 0
    result = json.loads(capfd.readouterr().out)
    assert result["b"]["label"] == "second"
    assert result["aligned"] == [1, 2]
    recipe = folder / "recipe.yaml"
    recipe.write_text(PLAIN % "layers: auto", encoding="utf-8")
    assert _run(monkeypatch, "routing", "layers", folder / "one", "--write", recipe) == 0
    first = capfd.readouterr().out.splitlines()[0]
    assert recipe.read_text(encoding="utf-8") == PLAIN % f"layers: {first}"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--languages", "swa_Latn"], "unknown language 'swa_Latn'"),
        (["--anchor", "yor_Latn"], "no text in the anchor language yor_Latn"),
        (["--layers", "9"], "no MoE layer at decoder layer 9"),
        (["--layers", "x"], "--layers has 'x'"),
        (["--dtype", "int8"], "--dtype: 'int8'"),
        (["--name", "hlt"], "--name: 'hlt' is not CODE=NAME"),
        (["--exclude-groups", "nowhere.txt"], "there is no file nowhere.txt"),
        (["--score", "softmx"], "did you mean 'softmax'"),
    ],
)
def test_what_cannot_be_profiled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert _profile(monkeypatch, folder, "refused", *more) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (folder / "refused").exists()


def test_missing_models_files_and_profiles(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", folder / "refused"]
    assert _run(monkeypatch, "routing", "profile", "./nowhere", "--pairs", folder / "a.jsonl", *out) == 2
    assert "there is no folder ./nowhere" in capfd.readouterr().err
    assert _run(monkeypatch, "routing", "profile", folder / "model", "--pairs", folder / "c.jsonl", *out) == 2
    assert "no such file" in capfd.readouterr().err
    assert _run(monkeypatch, "routing", "compare", folder / "a", folder / "b") == 2
    assert "innerlingua routing profile MODEL" in capfd.readouterr().err
