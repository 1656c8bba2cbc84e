"""The command line: profile, compare, layers."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from parallel_rows import sentences

from innerlingua.cli import main
from innerlingua.routing.profile import stream
from innerlingua.routing.profile.stream import measure_window
from innerlingua.routing.profile.windows import windows_of

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
        (["--language-name", "hlt"], "--language-name: 'hlt' is not CODE=NAME"),
        (["--exclude-groups", "nowhere.txt"], "there is no file nowhere.txt"),
        (["--exclude-groups", "EMPTY"], "--exclude-groups: no group in"),
        (["--exclude-groups", "BINARY"], "is no UTF-8 text"),
        (["--seen", ","], "--seen: no language code in it"),
        (["--bootstrap", "5"], "bootstrap is 5; it must be at least 20"),
        (["--score", "softmx"], "did you mean 'softmax'"),
    ],
)
def test_what_cannot_be_profiled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    for name, content in (("EMPTY", b"\n"), ("BINARY", b"\xff\xfe")):
        (folder / name).write_bytes(content)
    more = [str(folder / word) if word in ("EMPTY", "BINARY") else word for word in more]
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


def test_groups_that_occur_nowhere_and_lone_sentences_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "groups").write_text("other\nothers\n")
    arguments = ["--exclude-groups", str(folder / "groups"), "--limit", "1", "--samples", "0"]
    assert _profile(monkeypatch, folder, "lone", *arguments) == 0
    printed = capfd.readouterr().out
    assert "0 rows left out by group: none is of the 2 groups in" in printed
    assert "no intervals for eng_Latn, hin_Deva, swh_Latn: one sentence has no spread" in printed
    (folder / "groups").write_text("g0\nothers\n")
    assert _profile(monkeypatch, folder, "fewer", *arguments[:2]) == 0
    assert "3 rows left out by group\n" in capfd.readouterr().out


def test_an_interrupted_profile_leaves_nothing_and_can_be_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure_window(*arguments, **options)

    with monkeypatch.context() as during:
        during.setattr(stream, "measure_window", interrupted)
        during.setattr(stream, "windows_of", partial(windows_of, size=6))
        assert _profile(during, folder, "again") == 130
    assert len(calls) == 3
    assert not (folder / "again").exists()
    assert "Traceback" not in capfd.readouterr().err
    assert _profile(monkeypatch, folder, "again") == 0
    assert (folder / "again" / "profile.json").is_file()
