"""Whether a place can be written to, before the work for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from innerlingua.errors import InnerlinguaError
from innerlingua.recipe.writable import check_writable


@pytest.mark.parametrize("name", [".", "new", "new/deeper", "file", "new.html"])
def test_a_place_that_can_be_written_stays_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept")
    check_writable(tmp_path / name, "--output")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["file/x", "file/x/y", "n" * 300, f"new/{'n' * 300}", "loop/x"])
def test_a_place_that_cannot_is_one_message(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InnerlinguaError, match=r"^--output: nothing can be written to .*; name another place$"):
        check_writable(tmp_path / name, "--output")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_permissions_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(InnerlinguaError, match="Permission denied"):
        check_writable(tmp_path / "closed" / "x", "--output")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_file_system_that_takes_no_files_is_found() -> None:
    with pytest.raises(InnerlinguaError, match="nothing can be written"):
        check_writable(Path("/proc/x"), "--output")
