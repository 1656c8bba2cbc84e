"""A recipe file after one value in it was changed: what else could have changed, and did not."""

from pathlib import Path

import pytest

from innerlingua.recipe import load_recipe
from innerlingua.recipe.editing import write_layers

HEAD = "model: {path: m}\ndata: {train: a.jsonl}\ntrainer: {output_dir: out}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("alignment:\n", "alignment:\n  layers: 2-3\n"),
        ("alignment:", "alignment:\n  layers: 2-3\n"),
        ("alignment:  # SARA\n\n# end\n", "alignment:  # SARA\n  layers: 2-3\n\n# end\n"),
        ("alignment: null  # SARA\n", "alignment:  # SARA\n  layers: 2-3\n"),
        ("alignment: ~\npeft:\n", "alignment:\n  layers: 2-3\npeft:\n"),
    ],
)
def test_an_empty_section_gets_the_layers(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(HEAD + before)
    write_layers(path, [2, 3], "2-3")
    assert path.read_text() == HEAD + after


@pytest.mark.parametrize("section", ["alignment:\n  layers: auto\n", "alignment:\n  weight: 1.0\n", "alignment:\n"])
def test_ends_of_lines_stay(tmp_path: Path, section: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes((HEAD + section).replace("\n", "\r\n").encode())
    write_layers(path, [2, 3], "2-3")
    written = path.read_bytes()
    assert written.count(b"\n") == written.count(b"\r\n")
    assert b"layers: 2-3\r\n" in written


def test_a_link_stays_a_link_and_the_mode_its_mode(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "r.yaml", tmp_path / "r.yaml"
    path.write_text(HEAD + "alignment: {}\n")
    path.chmod(0o640)
    link.symlink_to(path)
    write_layers(link, [2, 3], "2-3")
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert load_recipe(path).alignment.layers == [2, 3]  # type: ignore[union-attr]
