"""Scores of answers, intervals, and the store: closed forms first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from innerlingua.errors import DataError
from innerlingua.evaluation.local import exact_number
from innerlingua.evaluation.scoring import normalised, sample_hash, token_f1
from innerlingua.evaluation.store import (
    benchmark_version,
    content_hash,
    read_results,
    read_sample_rows,
    samples_path,
    summarise,
    wilson_interval,
    write_results,
    write_run,
    write_samples,
)
from innerlingua.evaluation.translation import corpus_scores, sentence_chrf


@pytest.mark.parametrize(
    ("prediction", "answer", "score"),
    [
        ("blue", "blue", 1.0),
        ("The Blue!", "blue", 1.0),  # article, case, punctuation
        ("blue sky", "blue", 2 * 1 / 3),
        ("blue blue", "blue", 2 * 1 / 3),  # once is once
        ("red", "blue", 0.0),
        ("", "blue", 0.0),
        ("1,000", "1000", 1.0),
        ("ＡＢＣ", "abc", 1.0),  # full width
        ("蓝色", "蓝", 2 * 1 / 3),  # by characters
        ("สีฟ้า", "สีฟ้า", 1.0),
        ("anga la buluu", "buluu", 2 * 1 / 4),
        ("नीला।", "नीला", 1.0),  # danda
    ],
)
def test_f1(prediction: str, answer: str, score: float) -> None:
    assert token_f1(prediction, answer) == pytest.approx(score)
    assert token_f1(answer, prediction) == pytest.approx(score)


def test_english_articles_are_left_out_and_no_part_of_a_word() -> None:
    assert normalised("A cat, an owl and the theatre") == "cat owl and theatre"


@pytest.mark.parametrize(
    ("text", "value"),
    [("18", 18), ("1,234", 1234), ("३६", 36), ("٤٢", 42), ("2.50", 2.5), ("3/4", 0.75), ("18.", 18), ("-7", -7)],
)
def test_numbers(text: str, value: float) -> None:
    assert exact_number(text) == value


@pytest.mark.parametrize("text", ["", "eighteen", "1e9", "1/0", "1.2.3", "9" * 60])
def test_what_is_no_number(text: str) -> None:
    assert exact_number(text) is None


def test_a_hash_is_of_the_content_and_not_of_the_name() -> None:
    question = {"id": "1", "group": "g", "question": "why", "choices": ["a", "b"], "answer": 0}
    assert sample_hash(question) == sample_hash({**question, "id": "2", "group": "h"})
    assert sample_hash(question) != sample_hash({**question, "answer": 1})
    assert sample_hash(question) != sample_hash({**question, "choices": ["b", "a"]})
    assert content_hash("a", "b") != content_hash("ab", "")


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 12), (250, 1000), (1, 1)])
def test_wilson_is_scipy_s(successes: int, n: int) -> None:
    theirs = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def _rows(scores: list[float]) -> list[dict[str, object]]:
    return [
        {"id": str(n), "score": score, "status": "answered", "prediction": n % 2, "target": 0, "hash": f"h{n}"}
        for n, score in enumerate(scores)
    ]


def test_a_summary_counts_what_was_not_answered_as_wrong_and_says_so() -> None:
    rows = _rows([1.0, 1.0, 0.0, 0.0])
    rows[3]["status"] = "cut"
    options = {"metric": "accuracy", "chance": 0.5, "task_version": "t", "anchor": False, "seconds": 1.0}
    summary = summarise("b", "x", rows, **options)  # type: ignore[arg-type]
    assert (summary["score"], summary["score_answered"]) == (0.5, pytest.approx(2 / 3))
    assert summary["statuses"] == {"answered": 3, "cut": 1, "unparsed": 0, "overlong": 0}
    assert summary["standard_error"] == pytest.approx(np.std([1, 1, 0, 0], ddof=1) / 2)
    assert summary["answers"] == {"prediction": {"0": 2, "1": 2}, "target": {"0": 4}}
    assert summary["benchmark_version"] == benchmark_version("t", ["h0", "h1", "h2", "h3"])


@pytest.mark.parametrize(
    ("right", "answered", "word"),
    [(50, 100, "no different"), (80, 100, "above"), (20, 100, "below"), (50, 50, "above"), (0, 0, None)],
)
def test_chance_is_held_against_the_answered(right: int, answered: int, word: str | None) -> None:
    """Of a hundred questions with two choices; those without room in the context are nobody's wrong guesses."""
    rows = _rows([1.0] * right + [0.0] * (100 - right))
    for row in rows[answered:]:
        row["status"] = "overlong"
    options = {"metric": "accuracy", "chance": 0.5, "task_version": "t", "anchor": False, "seconds": 1.0}
    assert summarise("b", "x", rows, **options)["against_chance"] == word  # type: ignore[arg-type]


def test_an_interval_of_equal_f1_scores_is_not_made_up() -> None:
    options = {"metric": "f1", "chance": None, "task_version": "t", "anchor": False, "seconds": 1.0}
    assert summarise("b", "x", _rows([0.0, 0.0]), **options)["interval"] is None  # type: ignore[arg-type]
    low, high = summarise("b", "x", _rows([0.0, 0.5, 1.0]), **options)["interval"]  # type: ignore[arg-type]
    assert (low + high) / 2 == pytest.approx(0.5)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A run with one finished benchmark."""
    folder = tmp_path / "runs" / "mine"
    rows = _rows([1.0, 0.0])
    rows[0]["response"] = "a line\u2028that is none"
    write_run(folder, {"label": "mine", "model": {"path": "x"}})
    write_samples(folder, "b", "swh_Latn", rows)
    options = {"metric": "accuracy", "chance": 0.5, "task_version": "t", "anchor": False, "seconds": None}
    write_results(folder, [summarise("b", "swh_Latn", rows, **options)])  # type: ignore[arg-type]
    return folder


def test_what_is_written_is_read(stored: Path) -> None:
    results = read_results(stored)
    table = results.tables["b", "swh_Latn"]
    assert (results.label, table.ids, table.scores.tolist()) == ("mine", ["0", "1"], [1.0, 0.0])
    assert (table.hashes, table.groups, table.metric, table.chance) == (["h0", "h1"], ["0", "1"], "accuracy", 0.5)
    assert table.texts is None


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("run.json", None, "no results of a run in it"),
        ("run.json", "{", "run.json is damaged"),
        ("run.json", '{"schema": 99}', "has schema 99, and this version reads 1"),
        ("results.json", None, "nothing in this run is finished"),
        ("results.json", "[]", "results.json is damaged"),
        ("results.json", '{"schema": 1, "results": [{"benchmark": "b"}]}', "results.json is damaged"),
        ("samples/b.swh_Latn.jsonl", None, "is missing"),
        ("samples/b.swh_Latn.jsonl", "", "is empty"),
        ("samples/b.swh_Latn.jsonl", "{}\n", "1: no sample of this version"),
        ("samples/b.swh_Latn.jsonl", "[]\n", "cannot be read"),
        ("samples/b.swh_Latn.jsonl", '{"id": "0", "sco', r"cannot be read \(line 1: Unterminated string"),
    ],
)
def test_damage_is_named(stored: Path, file: str, change: str | None, words: str) -> None:
    path = stored / file
    path.unlink()
    if change is not None:
        path.write_text(change, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_results(stored)


def test_samples_of_another_run_are_noticed(stored: Path) -> None:
    path = samples_path(stored, "b", "swh_Latn")
    rows = read_sample_rows(path)
    write_samples(stored, "b", "swh_Latn", rows[:1])
    with pytest.raises(DataError, match="do not belong together"):
        read_results(stored)


def test_the_folder_of_all_runs_names_those_in_it(stored: Path) -> None:
    with pytest.raises(DataError, match=f"the runs in it are {stored}"):
        read_results(stored.parent)


def test_numbers_that_are_none_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_samples(tmp_path, "b", "x", [{"id": "0", "score": float("nan"), "status": "answered", "hash": "h"}])
    assert not list(tmp_path.rglob("*.jsonl"))


def test_translation_is_scored_by_sacrebleu() -> None:
    import sacrebleu

    hypotheses, references = ["the sky is blue", "grass is red"], ["the sky is blue", "the grass is green"]
    found = corpus_scores(hypotheses, references, "swh_Latn")
    assert found["chrf++"] == sacrebleu.corpus_chrf(hypotheses, [references], word_order=2).score
    assert found["bleu"] == sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert "nw:2" in found["signatures"]["chrf++"]
    assert "tok:13a" in found["signatures"]["bleu"]
    assert sentence_chrf("the sky is blue", "the sky is blue") == pytest.approx(100)
    assert json.dumps(found)


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("zho_Hans", "zh"), ("tha_Thai", "char"), ("jpn_Jpan", "char"), ("khm_Khmr", "char"), ("hin_Deva", "13a")],
)
def test_bleu_of_scripts_without_spaces(language: str, tokenizer: str) -> None:
    assert f"tok:{tokenizer}" in corpus_scores(["天空"], ["天空"], language)["signatures"]["bleu"]
