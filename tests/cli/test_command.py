"""The command's edge: help without torch, messages, exit codes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from innerlingua import __version__

COMMAND = [sys.executable, "-m", "innerlingua.cli"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def _processor_time() -> float:
    """Seconds of all children so far: wall time would measure what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["routing", "--help"], ["routing", "prior", "--help"], ["demo", "--help"]],
)
def test_help_is_immediate_and_imports_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from innerlingua.cli import main\n"
        f"sys.argv = ['innerlingua', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code, left.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'peft', 'accelerate', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    seconds = []
    for _ in range(3):
        start = _processor_time()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        seconds.append(_processor_time() - start)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
    assert min(seconds) < 1.0


def test_version() -> None:
    assert run("--version").stdout == f"innerlingua {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "absent.yaml"], "error: absent.yaml: no such recipe file"),
        (["routing", "prior", "absent.yaml"], "error: absent.yaml: no such recipe file"),
        (["train", "--alignment.weight", "1", "r.yaml"], "the recipe comes before the options"),
        (["train"], "Missing argument"),
        (["trian"], "No such command"),
        (["--bogus"], "No such option"),
        (["demo", "--seed", "-1"], "Invalid value"),
        (["demo", "--output-dir", f"{__file__}/x"], "--output-dir: nothing can be written to"),
        (["demo", "--output-dir", __file__], "is a file; name a folder"),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_brackets_in_a_message_are_printed_as_they_are(tmp_path: Path) -> None:
    done = run("train", str(tmp_path / "[bold]r.yaml"))
    assert "[bold]r.yaml: no such recipe file" in done.stderr


def test_long_paths_are_not_broken(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / ("y" * 120)
    assert f"{path}: no such recipe file" in run("train", str(path), COLUMNS="40").stderr


def test_an_error_says_which_process_of_a_group_met_it() -> None:
    assert run("train", "absent.yaml", RANK="0").stderr.startswith("error: absent.yaml")
    done = run("train", "absent.yaml", RANK="3")
    assert done.returncode == 2
    assert done.stderr.startswith("[rank 3] error: absent.yaml")


def test_the_console_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("innerlingua")
    if not script.exists():
        pytest.skip("the package is not installed with its script")
    assert (
        subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
        .stdout.strip()
        .endswith(__version__)
    )
