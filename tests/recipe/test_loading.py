"""A recipe from file and options: defaults, who wins, and one message per mistake."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerlingua.errors import RecipeError
from innerlingua.recipe import PARTS, AlignmentSection, PeftSection, Recipe, load_recipe, to_yaml
from innerlingua.recipe.schema import parse_layers

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))

MINIMAL = """\
model: {path: m}
data: {train: a.jsonl}
trainer:
  output_dir: runs/x
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(MINIMAL)
    return path


def problem(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, options=("--resume",))
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_is_valid(path: Path) -> None:
    assert load_recipe(path).alignment is not None


def test_there_are_recipes_to_check() -> None:
    assert {path.stem for path in RECIPES} >= {"qwen3-30b-a3b", "phi-3.5-moe", "qwen3-30b-a3b-lora", "tiny"}


def test_the_paper_settings() -> None:
    qwen = load_recipe(RECIPES[0].parent / "qwen3-30b-a3b.yaml")
    phi = load_recipe(RECIPES[0].parent / "phi-3.5-moe.yaml")
    assert qwen.alignment is not None
    assert phi.alignment is not None
    assert qwen.alignment.layers == list(range(7, 35))
    assert phi.alignment.layers == list(range(7, 17))
    assert qwen.alignment.weight == phi.alignment.weight == 1.5
    assert qwen.trainer["learning_rate"] == 2e-5


def test_without_sections_nothing_is_switched_on(minimal: Path) -> None:
    recipe = load_recipe(minimal)
    assert recipe.alignment is None
    assert recipe.peft is None
    assert recipe.terms == ()
    assert recipe.data.train == ["a.jsonl"]
    assert recipe.data.max_length == 2048


@pytest.mark.parametrize(
    ("written", "layers"),
    [
        ("7-9", [7, 8, 9]),
        (" 7 - 9 ", [7, 8, 9]),
        ("3", [3]),
        (3, [3]),
        ("0-1, 4", [0, 1, 4]),
        ([4, 0, 1], [0, 1, 4]),
        (["0-1", 4], [0, 1, 4]),
        ("auto", "auto"),
    ],
)
def test_layers(written: Any, layers: Any) -> None:
    assert parse_layers(written) == layers


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("34-7", "reversed range 34-7; write 7-34"),
        (-1, "names layer -1"),
        ("[1, 1]", "names layer 1 twice"),
        ("[]", "names no layer"),
        ("7..34", "'7..34', which is neither a layer nor a range"),
        ("[true]", "True, which is neither"),
        ("1.5", "is not a choice of layers"),
        ("null", "is not a choice of layers"),
        ("-3", "names layer -3"),
        ("0-99999999999", "neither a layer nor a range"),
    ],
)
def test_layers_that_mean_nothing_are_refused(minimal: Path, written: Any, says: str) -> None:
    assert says in problem(minimal, f"--alignment.layers={written}")


def test_the_command_line_wins_and_hyphen_is_underscore(minimal: Path) -> None:
    recipe = load_recipe(
        minimal,
        [
            *("--alignment.weight", "1.0", "--trainer.learning-rate", "1e-5", "--trainer.output_dir=runs/y"),
            *("--data.train", "[a.jsonl, b.jsonl]", "--trainer.bf16", "--trainer.max-steps", "-1"),
            *("--data.languages.no", "Norwegian", "--alignment.weight", "2"),
        ],
    )
    assert recipe.alignment is not None
    assert recipe.alignment.weight == 2.0
    assert recipe.data.train == ["a.jsonl", "b.jsonl"]
    assert recipe.data.languages == {"no": "Norwegian"}
    assert recipe.trainer == {"output_dir": "runs/y", "learning_rate": 1e-5, "bf16": True, "max_steps": -1}


@pytest.mark.parametrize("empty", ["", " null", " ~", " {}"])
def test_a_section_that_is_open_and_empty_has_its_defaults(minimal: Path, empty: str) -> None:
    minimal.write_text(f"{MINIMAL}alignment:{empty}\npeft:{empty}\n")
    recipe = load_recipe(minimal)
    assert recipe.alignment == AlignmentSection()
    assert recipe.peft == PeftSection()
    assert load_recipe(minimal, ["--alignment", "null"]).alignment is None


def test_the_scores_are_those_of_the_families() -> None:
    from innerlingua.anatomy.families import Score as FamilyScore
    from innerlingua.recipe.schema import Score

    assert get_args(Score) == get_args(FamilyScore)


def test_a_misspelt_choice_lists_what_is_known_once(minimal: Path) -> None:
    from innerlingua.recipe.trainer import resolve_trainer

    with pytest.raises(RecipeError) as caught:
        resolve_trainer(load_recipe(minimal, ["--trainer.loss-type", "zzz"]))
    assert str(caught.value).count("known:") == 1


def test_a_section_can_be_switched_off(minimal: Path) -> None:
    minimal.write_text(MINIMAL + "alignment: {weight: 1}\n")
    assert load_recipe(minimal, ["--alignment", "null"]).alignment is None


def test_a_number_on_the_command_line_is_text_where_text_is_meant(minimal: Path) -> None:
    assert load_recipe(minimal, ["--model.revision", "0123"]).model.revision == "0123"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["--alignment.wieght", "1"], "--alignment.wieght: unknown key alignment.wieght; did you mean 'weight'?"),
        (["--algnment.weight", "1"], "unknown option --algnment.weight; did you mean '--alignment'?"),
        (["--resum"], "unknown option --resum; did you mean '--resume'?"),
        (["--model.path"], "--model.path needs a value"),
        (["--alignment.weight"], "--alignment.weight needs a value"),
        (["--model.path", "--trainer.bf16"], "--model.path needs a value"),
        (["--alignment.weight", "-1"], "alignment.weight is -1; it must be at least 0"),
        (["--alignment.weight", "nan"], "it must be a number"),
        (["--alignment.weight", ".nan"], "it must be a finite number"),
        (["--alignment.weight", "1,0"], "alignment.weight is '1,0'; it must be a number"),
        (["--alignment.anchor", "prio"], "did you mean 'prior'?"),
        (["--model.train", "[expert]"], "unknown part 'expert'; did you mean 'experts'?"),
        (["--model.train", "[head, head]"], "names head twice"),
        (["--model.dtype", "fp32"], "model.dtype is 'fp32'"),
        (["--data.max-length", "2k"], "it must be a whole number"),
        (["--data.max-length", "0"], "it must be at least 1"),
        (["--data", "null"], "data is null; it must be a mapping"),
        (["--data.train", "[]"], "data.train"),
        (["--alignment.weight", "[1"], "--alignment.weight, line 1: is not valid YAML"),
        (["b.jsonl"], "'b.jsonl' belongs to no option"),
        (["--model.path.x", "1"], "reaches into model.path"),
        (["--model..path", "1"], "has an empty part"),
        (["--peft.parts", "[router]"], "peft.parts.0 is 'router'"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(minimal: Path, overrides: list[str], says: str) -> None:
    message = problem(minimal, *overrides)
    assert says in message
    assert "command line" in message


@pytest.mark.parametrize(
    ("overrides", "both"),
    [
        (["--alignment.anchor-gradient"], ["alignment.anchor_gradient", "alignment.anchor: live"]),
        (["--peft.r", "4", "--model.train", "[head]"], ["model.train", "peft.parts"]),
        (["--peft.dropout", "0.1"], ["peft.dropout", "peft.parts", "peft.dropout: 0"]),
        (
            ["--peft.dropout", "0.1", "--peft.parts", "[attention]", "--peft.router", "lora"],
            ["peft.dropout", "peft.router: lora"],
        ),
        (["--alignment.weight", "1", "--trainer.packing"], ["trainer.packing", "data.packing: true"]),
        (["--trainer.padding_free"], ["trainer.padding_free", "data.packing: true, which does without padding"]),
        (["--data.packing", "--data.max-length", "null"], ["data.packing: true", "data.max_length: null"]),
        (["--trainer.max-length", "9"], ["trainer.max_length", "data.max_length"]),
        (["--trainer.resume-from-checkpoint", "x"], ["trainer.resume_from_checkpoint", "--resume"]),
        (["--trainer.hub-token", "hf_x"], ["trainer.hub_token", "hf auth login"]),
        (["--trainer.remove-unused-columns"], ["trainer.remove_unused_columns"]),
        (["--trainer.eval-strategy", "steps"], ["trainer.eval_strategy", "data.eval"]),
        (["--trainer.load-best-model-at-end"], ["trainer.load_best_model_at_end", "peft"]),
        (["--alignment.pooling", "spans"], ["alignment.pooling: spans", "alignment.anchor: prior"]),
        (["--trainer.output-dir", "null"], ["trainer.output_dir is missing"]),
    ],
)
def test_contradictions_name_both_keys_and_the_fix(minimal: Path, overrides: list[str], both: list[str]) -> None:
    message = problem(minimal, *overrides)
    for name in both:
        assert name in message


def test_dropout_is_allowed_where_no_adapter_sits_on_a_parameter(minimal: Path) -> None:
    peft = load_recipe(minimal, ["--peft.dropout", "0.1", "--peft.parts", "[attention]"]).peft
    assert peft is not None
    assert peft.dropout == 0.1


def test_all_problems_of_a_file_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("model:\n  path: 7\n  trian: all\ndata: {train: a}\nalignmnt: {}\ntrainer: {output_dir: x}\n")
    lines = problem(path).splitlines()
    assert f"{path}, line 2: model.path is 7; it must be text; put it in quotes." in lines
    assert f"{path}, line 3: unknown key model.trian; did you mean 'train'?" in lines
    assert f"{path}, line 5: unknown key alignmnt; did you mean 'alignment'?" in lines
    assert len(lines) == 3


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("model: {path: x}\n")
    assert f"{path}: the section data is missing." in problem(path)
    assert f"{path}: the section trainer is missing." in problem(path)


def test_parts_of_the_schema_are_those_of_the_models() -> None:
    from innerlingua.anatomy.parts import PARTS as MODEL_PARTS

    assert set(PARTS) == set(MODEL_PARTS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_written_recipe_reads_back_the_same(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(recipe.values()))
    assert load_recipe(again) == recipe


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f\x85"), max_size=12)
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), PLAIN | st.lists(PLAIN, max_size=3), max_size=4))
def test_any_plain_mapping_survives_yaml(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    from innerlingua.recipe.reading import read_document

    path = tmp_path_factory.mktemp("yaml") / "v.yaml"
    path.write_text(to_yaml({"values": values}), encoding="utf-8")
    assert read_document(path).values == {"values": values}


def test_checking_a_recipe_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from innerlingua.recipe import load_recipe\n"
        f"load_recipe({str(RECIPES[0])!r})\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'peft', 'accelerate', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_schema_documents_every_key() -> None:
    """Each key of our sections is followed by its description in the source: the docs are written from it."""
    import inspect

    for section in ("alignment", "peft", "evaluation", "data", "model"):
        annotation = Recipe.model_fields[section].annotation
        classes = [c for c in (annotation, *getattr(annotation, "__args__", ())) if hasattr(c, "model_fields")]
        source = inspect.getsource(classes[0])
        for key in classes[0].model_fields:
            after = source.split(f"\n    {key}:", 1)[1]
            assert '"""' in after.split("\n    ", 3)[1] or key == "method", f"{section}.{key}"
