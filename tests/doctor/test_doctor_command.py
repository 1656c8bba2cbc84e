"""The command: exit codes, its file of JSON, 80 columns, and no trace in the folder of the run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doctor_files import TINY, files_under

from innerlingua.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def doctor(
    home: Callable[..., Path],
    rows_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., Done]:
    """`innerlingua doctor recipes/tiny.yaml` into `tmp_path / "out"`, through the command's own entry point."""

    def run(*words: str, recipe: str = str(TINY)) -> Done:
        needed = [
            *("--model.path", str(home())),
            *("--data.train", str(rows_file)),
            *("--trainer.output-dir", str(tmp_path / "out")),
        ]
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["innerlingua", "doctor", recipe, *needed, *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        streams = capfd.readouterr()
        assert "Traceback" not in streams.err, streams.err
        return Done(int(left.value.code or 0), streams.out, streams.err)

    return run


def digests(folder: Path) -> dict[str, str]:
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files_under(folder)}


def test_a_recipe_that_would_train(doctor: Callable[..., Done], home: Callable[..., Path], tmp_path: Path) -> None:
    weights = digests(home())
    done = doctor()
    assert done.code == 0
    for heading in ("Model", "Parameters", "Rows", "Routing prior", "Loss before training", "Steps", "Findings"):
        assert f"\n{heading}\n" in done.out
    assert "Memory (estimate)" in done.out
    assert "rangi ya anga ni ipi⟦anga ni buluu</s>⟧" in done.out
    assert done.out.endswith("innerlingua train would start.\n")
    assert "doctor: measuring" in done.err  # progress, apart from the report
    # A path that is longer than a line is not broken.
    wide = [line for line in done.out.splitlines() if len(line) > 80 and str(tmp_path.parent.parent) not in line]
    assert wide == []
    assert not (tmp_path / "out").exists()
    assert digests(home()) == weights


def test_a_recipe_that_would_be_refused(doctor: Callable[..., Done], tmp_path: Path) -> None:
    done = doctor("--alignment.layers", "7-34", "--data.max-length", "10", "--trainer.learning-rat", "1")
    assert done.code == 2
    out = " ".join(done.out.split())
    assert "did you mean 'learning_rate'?" in out
    assert "max_length is 10" in out
    assert "no MoE layer at decoder layer 7-34" in out
    assert "Refused: innerlingua train would stop at the first of 3." in out
    assert "Not shown (not looked at, because of what is refused)" in done.out
    assert not (tmp_path / "out").exists()


def test_json_alone_on_standard_output(doctor: Callable[..., Done]) -> None:
    found = json.loads(doctor("--json", "-").out)
    assert (found["schema"], found["command"], found["refused"]) == (1, "doctor", False)
    assert {finding["level"] for finding in found["findings"]} <= {"ok", "note", "warning", "refused"}
    assert all(finding["what"] and "where" in finding and "remedy" in finding for finding in found["findings"])
    assert found["data"][0]["everything"]["supervised_share"] > 0
    assert found["memory"]["total"] > found["memory"]["weights"]
    assert found["recipe"]["alignment"]["layers"] == [0, 1, 2]
    assert found["losses"]["pieces"][0]["name"] == "cross_entropy"


def test_json_beside_the_text(doctor: Callable[..., Done], tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    for layers, code in (("99", 2), ("1", 0)):  # an older report is replaced
        done = doctor("--json", str(target), "--alignment.layers", layers)
        assert done.code == code
        assert "Findings" in done.out
        assert json.loads(target.read_text())["refused"] is bool(code)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json"]


def test_a_recipe_that_cannot_be_read_is_a_report_too(doctor: Callable[..., Done], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(TINY.read_text().replace("weight: 1.5", "wieght: 1.5"))
    done = doctor("--json", "-", recipe=str(recipe))
    assert done.code == 2
    found = json.loads(done.out)
    assert "unknown key alignment.wieght; did you mean 'weight'?" in found["findings"][0]["what"]
    assert found["model"] is None


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("absent/report.json", "there is no folder"),
        (".", "is a folder; name a file"),
        ("out/report.json", "in the folder of the run"),
        ("mine.json", "is no report of innerlingua doctor"),
    ],
)
def test_a_file_that_is_in_the_way(target: str, says: str, doctor: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "mine.json").write_text('{"precious": 1}')
    before = files_under(tmp_path)
    done = doctor("--json", str(tmp_path / target))
    assert done.code == 2
    assert says in " ".join(done.err.split())
    assert done.out == ""
    assert files_under(tmp_path) == before


def test_under_a_launcher_it_says_what_to_do(doctor: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = doctor()
    assert done.code == 2
    assert "start it without the launcher" in done.err


def test_several_processes_are_estimated(doctor: Callable[..., Done]) -> None:
    found: dict[str, Any] = json.loads(doctor("--processes", "3", "--json", "-").out)
    assert (found["schedule"]["processes"], found["schedule"]["rows_of_a_step"]) == (3, 4 * 2 * 3)
    assert [share["way"] for share in found["memory"]["shares"]] == ["DDP", "DeepSpeed ZeRO-2", "FSDP, all sharded"]


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom innerlingua.cli import main\nsys.argv = ['innerlingua', 'doctor', '--help']\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "import innerlingua.recipe.doctor.report, innerlingua.recipe.doctor.render\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--processes" in done.stdout


def test_the_page_names_every_key_of_the_json(doctor: Callable[..., Done]) -> None:
    page = (TINY.parents[1] / "docs" / "doctor.md").read_text(encoding="utf-8")
    table = page[page.index("## JSON") :]
    keys = set(json.loads(doctor("--json", "-", "--alignment.layers", "99").out))
    assert [key for key in sorted(keys) if f"`{key}`" not in table] == []
