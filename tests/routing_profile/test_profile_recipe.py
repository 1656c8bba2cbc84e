"""The suggested layers written into a recipe: one value changes, everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from innerlingua.errors import RecipeError
from innerlingua.recipe import load_recipe
from innerlingua.recipe.editing import write_layers

HEAD = "# a comment\nmodel: {path: 'm'}\ndata:\n    train: [a.jsonl,   b.jsonl]  # two\n"
TAIL = "trainer:\n  output_dir: out\n\n# the end\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("alignment:\n  layers: auto\n", "alignment:\n  layers: 2-5\n"),
        (
            "alignment:\n  layers: auto  # resolved\n  weight: 1.0\n",
            "alignment:\n  layers: 2-5  # resolved\n  weight: 1.0\n",
        ),
        ("alignment:\n  layers: [1, 2,\n    3]\n", "alignment:\n  layers: 2-5\n"),
        ("alignment:\n  layers:\n    - 1\n    - 2\n\n  weight: 2.0\n", "alignment:\n  layers: 2-5\n\n  weight: 2.0\n"),
        (
            "alignment:\n  layers:  # mine\n  - 1\n  # next\n  weight: 2.0\n",
            "alignment:\n  layers: 2-5  # mine\n  # next\n  weight: 2.0\n",
        ),
        ("alignment:\n  # strong\n  weight: 1.0\n", "alignment:\n  # strong\n  layers: 2-5\n  weight: 1.0\n"),
        ("alignment: {weight: 1.0}\n", "alignment: {layers: 2-5, weight: 1.0}\n"),
        ("alignment: {}\n", "alignment: {layers: 2-5}\n"),
        ('alignment: {"layers": "auto", weight: 1.0}\n', 'alignment: {"layers": 2-5, weight: 1.0}\n'),
    ],
)
def test_only_the_layers_change(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + before + TAIL, encoding="utf-8")
    write_layers(path, [2, 3, 4, 5], "2-5")
    assert path.read_text(encoding="utf-8") == HEAD + after + TAIL
    assert load_recipe(path).alignment.layers == [2, 3, 4, 5]  # type: ignore[union-attr]
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]


def test_several_runs_and_single_layers(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for layers, text in (([1, 2, 5], "1-2, 5"), ([3], "3")):
        path.write_text(HEAD + "alignment:\n  layers: auto\n" + TAIL, encoding="utf-8")
        write_layers(path, layers, text)
        assert load_recipe(path).alignment.layers == layers  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("", "no section alignment"),
        ("alignment:\n  layers: nonsense\n", "nonsense"),
        ("peft: &x {r: 4}\nalignment: *x\n", "alignment"),
    ],
)
def test_a_recipe_that_cannot_be_changed_stays(tmp_path: Path, section: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + section + TAIL, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        write_layers(path, [2], "2")
    assert path.read_text(encoding="utf-8") == HEAD + section + TAIL
