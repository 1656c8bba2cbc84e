"""The package as a whole: what importing it costs, and that its rooms know each other in one direction only."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import innerlingua

SOURCE = Path(innerlingua.__file__).parent

# room -> the rooms that it may import
ALLOWED = {
    "errors": set(),
    "progress": set(),
    "page": set(),
    "weights": {"errors"},
    "anatomy": {"errors"},
    "data": {"errors", "progress", "weights"},
    "routing": {"anatomy", "data", "errors", "page", "progress"},
    "training": {"anatomy", "data", "errors"},
    "evaluation": {"anatomy", "data", "errors", "page", "weights"},
    "recipe": {"anatomy", "data", "errors", "evaluation", "routing", "training", "weights"},
    "demo": {"anatomy", "data", "errors", "evaluation", "progress", "routing", "training"},
    "cli": {"data", "demo", "errors", "evaluation", "recipe", "routing"},
}


def _imports(path: Path) -> set[str]:
    """The rooms of this package that a file imports anywhere, also inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "innerlingua" else [f"innerlingua.{a.name}" for a in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("innerlingua.")}
    return rooms - {"__version__"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_in_one_direction(room: str) -> None:
    single = SOURCE / f"{room}.py"
    files = [single] if single.exists() else sorted((SOURCE / room).rglob("*.py"))
    assert files
    for file in files:
        assert _imports(file) <= ALLOWED[room] | {room}, file


def test_every_room_has_a_rule() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= ALLOWED.keys()


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_package_imports_no_torch() -> None:
    assert _run("import sys, innerlingua; print('torch' in sys.modules)").strip() == "False"


def test_help_answers_without_torch_and_at_once() -> None:
    code = (
        "import sys\nsys.argv = ['innerlingua', '--help']\nfrom innerlingua.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules, file=sys.stderr)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.strip() == "False"
    assert "train" in done.stdout
    assert time.perf_counter() - start < 5  # well under a second on a quiet machine


@pytest.mark.parametrize("name", [name for name in innerlingua.__all__ if not name.startswith("_")])
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(innerlingua, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = innerlingua.nothing
