"""YAML text to values: what is a number, where a problem stands, and what a hostile text meets."""

from pathlib import Path

import pytest

from innerlingua.errors import RecipeError
from innerlingua.recipe.reading import MAX_BYTES, parse_value, read_document


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "r.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("2E4", 2e4),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("7-34", "7-34"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("012", 12),
        ("-1", -1),
        ("'12'", "12"),
        ("[a, 1]", ["a", 1]),
        ("", ""),
    ],
)
def test_a_value_means_what_yaml_1_2_says(text: str, value: object) -> None:
    assert parse_value(text, "here") == value
    assert type(parse_value(text, "here")) is type(value)


def test_lines_are_known_by_path(tmp_path: Path) -> None:
    document = read_document(write(tmp_path, "model:\n  path: x\n\ndata: {train: a,\n  eval: b}\n"))
    assert document.lines[("model", "path")] == 2
    assert document.lines[("data", "eval")] == 5


BILLION_LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: b.c is written twice (first on line 3)"),
        ("a: [1\nb: 2\n", "line 2: is not valid YAML"),
        ("a: 1\n\tb: 2\n", "line 2: is not valid YAML"),
        ("a: *x\n", "line 1: is not valid YAML"),
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n", "holds a list"),
        ("text\n", "holds plain text"),
        ("a: 1\n---\nb: 2\n", "line 2: a second YAML document"),
        ("%YAML 1.1\n---\na: no\n", "another YAML version"),
        ("a: !!python/object/apply:os.system [ls]\n", "the YAML tag"),
        ("a: !custom x\n", "the YAML tag '!custom'"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "line 3: merge keys"),
        ("1: a\n", "line 1: the key 1 is not a string"),
        ("? [a]\n: b\n", "the key a list or mapping is not a string"),
        ("a: &x [*x]\n", "refers to itself"),
        ("a: " + "[" * 5000 + "]" * 5000, "levels deep"),
        ("a: " + "{b: " * 200 + "1" + "}" * 200, "levels deep"),
        ("a: [" + "1, " * 30_000 + "1]", "more than 20,000 values"),
        (BILLION_LAUGHS, "aliases expand"),
        (b"a: 1\nb: \xff\n", "line 2: is not UTF-8"),
        (b"a: \x00\n", "is not valid YAML"),
        ("#" * (MAX_BYTES + 1), "is larger than"),
    ],
)
def test_an_unusable_text_is_one_message_with_its_place(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_document(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml: no such recipe file"):
        read_document(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="is a folder"):
        read_document(tmp_path)
