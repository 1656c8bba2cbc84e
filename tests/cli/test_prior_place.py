"""Something that is no folder in the place of the prior is refused before anything is computed, and left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run


@pytest.mark.parametrize("kind", ["file", "link to nowhere"])
def test_a_file_in_the_place_of_the_prior(kind: str, innerlingua: Run, tmp_path: Path) -> None:
    place = tmp_path / "out" / "prior"
    place.parent.mkdir()
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    absent = ("--model.path", "./absent")  # would be the next thing to be refused
    for verb in (("routing", "prior"), ("routing", "prior", "--overwrite"), ("train",), ("train", "--overwrite")):
        done = innerlingua(*verb, *absent, code=2)
        assert f"{place} is a file where the routing prior has its folder: move it away" in done.err
        assert done.err.count("error:") == 1
    assert [path.name for path in place.parent.iterdir()] == ["prior"]
    assert kind != "file" or place.read_text() == "mine"
