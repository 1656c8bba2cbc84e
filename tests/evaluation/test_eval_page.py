"""A comparison as text, Markdown, JSON and HTML, by the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_runs import LANGUAGES, SETTINGS, answers, rows_of, three_models, write_folder, write_scores
from typer.testing import CliRunner

from innerlingua.cli.app import app
from innerlingua.evaluation import compare_runs
from innerlingua.evaluation.outcome import Comparison
from innerlingua.evaluation.page import markdown, write_page
from innerlingua.evaluation.wording import p_text, points

FAST = ["--replicates", "500", "--permutations", "499"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def compared(models: list[Path]) -> Comparison:
    return compare_runs(models, replicates=500, permutations=499)


def run(*words: object, columns: int = 80) -> str:
    done = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["compare", *map(str, words), *FAST])
    assert done.exception is None, done.output
    return done.stdout


# ---- numbers in words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0.0"), (0.04, "0.0"), (-1.26, "−1.3"), (2, "2.0")])
def test_points_have_a_true_minus_and_no_negative_zero(value: float, text: str) -> None:
    assert points(value, 1) == text


@pytest.mark.parametrize(("p", "text"), [(0.0002, "<.001"), (0.0314, ".031"), (0.9996, "1.000"), (1, "1")])
def test_p_values_have_three_decimals(p: float, text: str) -> None:
    assert p_text(p) == text


# ---- the terminal ----------------------------------------------------------------------------------------------------


def test_the_terminal_shows_every_row_within_eighty_columns(models: list[Path]) -> None:
    text = run(*models)
    assert max(map(len, text.splitlines())) <= 80
    for method in ("sft", "sara"):
        assert f"mmlu, accuracy: {method} against base" in text
    for code in LANGUAGES:
        assert len(re.findall(rf"^ {code}\b", text, re.M)) == 2
    assert re.search(r"^ swh_Latn .* better *$", text, re.M)
    assert re.search(r"^ eng_Latn \(anchor\) .* worse *$", text, re.M)
    assert "noise: no difference that these samples could show" in text


def test_a_wide_terminal_adds_names_and_p_alone(models: list[Path]) -> None:
    text = run(*models, columns=140)
    assert "swh_Latn Swahili" in text
    assert "p alone" in text


def test_answers_that_were_cut_or_could_not_be_read_are_counted_beside(tmp_path: Path) -> None:
    rows = rows_of("mgsm", "swh_Latn", answers(np.random.default_rng(0), 50, 0.5))
    lost = [
        {**one, "status": status, "score": 0.0}
        for one, status in zip(rows[:8], ["cut"] * 5 + ["unparsed"] * 3, strict=True)
    ]
    folders = [
        write_folder(tmp_path / name, {("mgsm", "swh_Latn"): table})
        for name, table in (("a", rows), ("b", [*lost, *rows[8:]]))
    ]
    assert "without an answer, scored 0: swh_Latn: b 5 cut, 3 unparsed" in run(*folders)
    assert "Without an answer, scored 0: b 5 cut, 3 unparsed." in run(*folders, "--markdown")
    statuses = json.loads(run(*folders, "--json"))["scores"][1]["statuses"]
    assert statuses == [{"answered": 42, "cut": 5, "unparsed": 3, "overlong": 0}]


def test_translations_that_were_cut_are_not_called_zero(tmp_path: Path) -> None:
    rows = [
        {**row, "hypothesis": "moja mbili", "reference": "moja mbili tatu", "status": "cut", "score": 50.0}
        for row in rows_of("news_into", "swh_Latn", np.zeros(4))
    ]
    folders = [
        write_folder(tmp_path / name, {("news_into", "swh_Latn"): rows}, metric="chrf++", chance=None) for name in "ab"
    ]
    for words in ((), ("--markdown",)):
        text = run(*folders, *words)
        assert "ot whole translations, scored as far as they go: " in text
        assert "scored 0" not in text


def test_a_mark_stands_where_settings_differ(tmp_path: Path) -> None:
    scores = {("mmlu", "hin_Deva"): answers(np.random.default_rng(1), 50, 0.5)}
    a = write_scores(tmp_path / "a", scores)
    b = write_scores(tmp_path / "b", scores, settings={**SETTINGS, "num_fewshot": 5})
    assert "SETTINGS DIFFER" in run(a, b, "--allow-settings", "--html", tmp_path / "page.html")
    assert "SETTINGS DIFFER" in (tmp_path / "page.html").read_text()
    assert "SETTINGS DIFFER" in run(a, b, "--allow-settings", "--markdown")


# ---- JSON and Markdown -----------------------------------------------------------------------------------------------


def test_json_holds_all_and_nothing_else_is_printed(models: list[Path]) -> None:
    found = json.loads(run(*models, "--json"))
    assert found["schema"] == 1
    assert len(found["differences"]) == 2 * (1 + len(LANGUAGES))
    assert found["settings"]["replicates"] == 500
    assert found["methods"]["sara"]["folders"] == [str(models[2])]


def test_markdown_has_a_row_per_language_and_a_whole_table(compared: Comparison) -> None:
    text = markdown(compared)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 1 + len(LANGUAGES)
    assert len({line.count("|") for line in table}) == 1
    assert re.search(r"^\| Swahili \| 400 \| .* \*\*\+\d+\.\d\*\* \|", text, re.M)
    assert re.search(r"^\| English \(anchor\) .*\*\*−\d+\.\d\*\*", text, re.M)
    assert "McNemar's exact test" in text
    assert "Holm's method" in text


def test_labels_cannot_break_tables(tmp_path: Path) -> None:
    scores = {("mmlu", "hin_Deva"): answers(np.random.default_rng(2), 50, 0.5)}
    folders = [
        write_scores(tmp_path / name, scores, label=label) for name, label in (("a", "x|y"), ("b", "[bold]*z*_q_\n"))
    ]
    text = markdown(compare_runs(folders, replicates=200, permutations=199))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "x\\|y" in text
    assert "x|y" in run(*folders)
    assert "[bold]*z*_q_" in run(*folders)


# ---- HTML ------------------------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_asks_for_nothing(compared: Comparison, tmp_path: Path) -> None:
    size = write_page(compared, tmp_path / "new" / "results.html")
    page = (tmp_path / "new" / "results.html").read_text()
    assert size == len(page.encode()) < 200_000
    assert "%%" not in page
    assert not re.findall(r"(?:src|href)=[\"'](?!#)", page)
    assert "https://" not in page
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', page, re.S).group(1))  # type: ignore[union-attr]
    assert payload["differences"] == compared.to_json()["differences"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.html"]


# ---- the command as a program ----------------------------------------------------------------------------------------


def program(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "innerlingua.cli", "compare", *map(str, words), *FAST],
        capture_output=True,
        text=True,
        check=False,
    )


def test_bad_input_is_one_message_and_exit_code_two(models: list[Path], tmp_path: Path) -> None:
    done = program(models[0], tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere: no such folder" in done.stderr


def test_comparing_imports_no_torch(models: list[Path]) -> None:
    code = (
        "import sys\nfrom innerlingua.cli import main\n"
        f"sys.argv = ['innerlingua', 'compare', {str(models[0])!r}, {str(models[1])!r}, '--replicates', '200']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules, 'lm_eval' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "--markdown"], "choose one"),
        (["--html", "."], "a folder; give the name of a file"),
        (["--html", "run.json"], "a page ends with .html"),
        (["--correction", "bonferroni"], "none of holm, bh, none"),
        (["--languages", "xxx_Latn"], "no run has results for language 'xxx_Latn'"),
        (["--all-pairs", "--baseline", "base"], "choose one"),
    ],
)
def test_options_that_cannot_be_are_refused(models: list[Path], words: list[Any], message: str) -> None:
    done = CliRunner().invoke(app, ["compare", *map(str, models), *words, *FAST])
    assert message in str(done.exception)


def test_a_page_that_cannot_be_written_is_refused_before_any_work(models: list[Path]) -> None:
    done = CliRunner().invoke(
        app, ["compare", *map(str, models), "--html", str(models[0] / "run.json" / "x.html"), *FAST]
    )
    assert "is no folder" in str(done.exception)
