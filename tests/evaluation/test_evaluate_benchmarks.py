"""Local benchmarks as they are read, the harness's as they are named, and the prompts of both."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate_rig import Done, belebele, mgsm, read_jsonl, winogrande, write_jsonl, xcopa
from lm_eval.tasks import TaskManager

from innerlingua.data.languages import LANGUAGES
from innerlingua.errors import DataError
from innerlingua.evaluation.benchmarks import choose
from innerlingua.evaluation.harness import HARNESS, tasks_folder
from innerlingua.evaluation.local import drawn, read_benchmark
from innerlingua.evaluation.tasks import build_unit

PACK = os.environ.get("INNERLINGUA_DATA", "")


def _prompts(benchmark: Any, language: str, *, num_fewshot: int = 0) -> list[Any]:
    """What the model would be given, request by request."""
    unit = build_unit(benchmark, language, num_fewshot=num_fewshot, max_new_tokens=None, limit=None)
    (task,) = unit.tasks.values()
    task.build_all_requests()
    return [instance.args for instance in task.instances]


def _read(tmp_path: Path, name: str, rows: list[dict[str, Any]]) -> Any:
    return read_benchmark(name, write_jsonl(tmp_path / f"{name}.jsonl", rows))


def test_letters(tmp_path: Path) -> None:
    benchmark = _read(tmp_path, "own", belebele())
    prompts = _prompts(benchmark, "eng_Latn")
    assert prompts[0] == ("the sky blue 0\n\nthe sky ?\nA. blue\nB. green\nC. white\nD. yellow\nAnswer:", " A")
    assert [continuation for _, continuation in prompts[:4]] == [" A", " B", " C", " D"]


def test_what_follows_the_blank(tmp_path: Path) -> None:
    prompts = _prompts(_read(tmp_path, "own", winogrande()), "eng_Latn")
    assert prompts[0:2] == [("the sky blue", " is 0"), ("the sky green", " is 0")]
    assert prompts[2] == ("blue grass and blue", " 1")  # every blank is filled
    assert prompts[4] == ("snow 2 blue", " .")  # something must be left to score


def test_cause_and_effect_in_english_are_ours_and_in_swahili_the_harness_s(tmp_path: Path) -> None:
    benchmark = _read(tmp_path, "xcopa", xcopa())
    assert _prompts(benchmark, "eng_Latn")[0] == ("the sky 0 therefore", " the blue.")
    assert _prompts(benchmark, "swh_Latn")[0] == ("anga 0 kwa hiyo", " the buluu.")


def test_examples_come_from_the_other_splits_or_the_other_questions(tmp_path: Path) -> None:
    shown = _prompts(_read(tmp_path, "xcopa", xcopa()), "swh_Latn", num_fewshot=1)
    assert all(any(f" {number} " in prompt.split("\n\n")[0] for number in range(10, 16)) for prompt, _ in shown)
    asked = _prompts(_read(tmp_path, "mgsm", mgsm()), "swh_Latn", num_fewshot=5)
    for number, (prompt, _) in enumerate(asked):
        *examples, question = prompt.split("\n\n")
        assert f" {number} + 0" in question
        assert sorted(int(text.split(" + 0")[0].split()[-1]) for text in examples) == [
            other for other in range(6) if other != number
        ]


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--num-fewshot 6: mgsm_swh_Latn has only 5 examples"):
        _prompts(_read(tmp_path, "mgsm", mgsm()), "swh_Latn", num_fewshot=6)


def test_a_draw_keeps_the_order_and_knows_no_language() -> None:
    questions = [{"id": f"q{number}"} for number in range(50)]
    few = drawn(questions, 7)
    assert [question for question in questions if question in few] == few
    assert len(few) == 7
    assert [question for question in drawn(questions, 20) if question in few] == few  # a longer draw holds the shorter
    assert drawn(questions, None) == drawn(questions, 80) == questions


def _changed(rows: list[dict[str, Any]], change: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
    change(rows)
    return rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.clear(), "no rows; a benchmark needs questions"),
        (lambda rows: rows[2].pop("id"), "line 3: no id"),
        (lambda rows: rows[2].update(id=7), "line 3: no id"),
        (lambda rows: rows[2].update(id="b0"), "line 3: the id 'b0' occurs twice in eng_Latn"),
        (
            lambda rows: rows[1].update(answer=4),
            r"line 2 \(eng_Latn\): answer is 4; it must be the index, from 0, of one",
        ),
        (lambda rows: rows[1].update(answer="A"), "answer is 'A'"),
        (lambda rows: rows[1].update(answer=True), "answer is True"),
        (lambda rows: rows[1].pop("answer"), "answer is None"),
        (lambda rows: rows[1].pop("items"), "line 2: no question of a known layout"),
        (lambda rows: rows[1]["items"]["swh_Latn"].update(question=" "), r"\(swh_Latn\): question is ' '"),
        (lambda rows: rows[1]["items"]["swh_Latn"].update(choices=["a"]), "1 choice; there must be two"),
        (lambda rows: rows[1]["items"]["swh_Latn"].update(choices="abcd"), "choices is 'abcd'"),
        (lambda rows: rows[1]["items"]["swh_Latn"].update(choices=["a", ""]), "choices holds ''"),
        (lambda rows: rows.append(mgsm()[0]), "a question of the kind 'number' among those of the kind 'choice'"),
        (lambda rows: rows[1].update(items={}), "items holds no question"),
        (lambda rows: rows[1]["items"].update(swh_Latn="anga"), "items has 'anga' in swh_Latn"),
        (lambda rows: rows[1]["items"]["swh_Latn"].update(choices=["a"] * 27), "27 choices; they are lettered"),
        (lambda rows: rows[1]["items"]["swh_Latn"].update(passage=5), "passage is 5; it must be a text"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, change: Callable[..., object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        _read(tmp_path, "own", _changed(belebele(), change))


def test_a_language_that_is_null_is_a_language_that_is_missing(tmp_path: Path) -> None:
    """As Parquet files have it, whose rows all have all columns."""
    rows = _changed(belebele(), lambda rows: rows[1]["items"].update(swh_Latn=None))
    benchmark = _read(tmp_path, "own", rows)
    assert [len(benchmark.asked[code]) for code in ("eng_Latn", "swh_Latn")] == [16, 15]
    rows = _changed(mgsm(), lambda rows: rows[1]["question"].update(swh_Latn=None))
    benchmark = _read(tmp_path, "own", rows)
    assert [len(benchmark.asked[code]) for code in ("eng_Latn", "swh_Latn")] == [6, 5]


def test_an_answer_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="answer is 'many'; it must be a number"):
        _read(tmp_path, "own", _changed(mgsm(), lambda rows: rows[0].update(answer="many")))


def test_unknown_connecting_words_are_not_guessed(tmp_path: Path) -> None:
    rows = xcopa()
    for row in rows:
        row["items"]["zul_Latn"] = row["items"]["eng_Latn"]
    with pytest.raises(DataError, match="xcopa in zul_Latn: the words for 'because' and 'therefore' are not known"):
        _prompts(_read(tmp_path, "xcopa", rows), "zul_Latn")


def test_names_of_the_harness_resolve() -> None:
    """Every benchmark and language here is a task of the installed harness, under the name that is used."""
    for benchmark in HARNESS.values():
        languages = benchmark.languages
        assert len(set(languages)) == len(languages)
        for language in languages:
            code = benchmark.code(language)
            assert code is not None
            folder, task = tasks_folder() / benchmark.folder.format(code), benchmark.task.format(code)
            names = [line for path in folder.glob("*.yaml") for line in path.read_text("utf-8").splitlines()]
            assert f"task: {task}" in names or f"group: {task}" in names, (benchmark.name, language)
            if benchmark.codes is not None:
                assert language in LANGUAGES
        assert benchmark.code("xxx_Latn") is None


@pytest.mark.parametrize(
    ("name", "language", "size"), [("xstorycloze", "swh_Latn", 1), ("global_mmlu", "swh_Latn", 61)]
)
def test_the_harness_knows_its_own_names(name: str, language: str, size: int) -> None:
    """By the harness's own index: a task, or a group with its subjects."""
    benchmark = HARNESS[name]
    code = benchmark.code(language)
    folder = str(tasks_folder() / benchmark.folder.format(code))
    index = TaskManager(include_defaults=False, include_path=folder).task_index
    assert benchmark.task.format(code) in index
    assert len([task for task in index if f"_{code}" in task]) >= size


def test_the_harness_s_benchmarks_run_on_the_hub_s_rows(
    command: Callable[..., Done], models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is named as the data set on the hub stands for it: `datasets` reads it by the same call."""
    for code in ("eng_Latn", "swh_Latn"):
        rows = [
            {
                "flores_passage": row["items"][code]["passage"],
                "question": row["items"][code]["question"],
                **{f"mc_answer{n}": choice for n, choice in enumerate(row["items"][code]["choices"], 1)},
                "correct_answer_num": str(row["answer"] + 1),
            }
            for row in belebele()
        ]
        write_jsonl(tmp_path / "facebook" / "belebele" / "data" / f"{code}.jsonl", rows)
    configs = "".join(
        f"- config_name: {code}\n  data_files:\n  - split: test\n    path: data/{code}.jsonl\n"
        for code in ("eng_Latn", "swh_Latn")
    )
    (tmp_path / "facebook" / "belebele" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
    write_jsonl(tmp_path / "data" / "mcq" / "belebele.jsonl", belebele())
    monkeypatch.chdir(tmp_path)
    languages = ("--languages", "swh_Latn")
    command("evaluate", models / "base", "--tasks", "harness:belebele", *languages, "-o", "hub")
    command("evaluate", models / "base", "--tasks", "belebele", *languages, "--data", "data", "-o", "local")
    name = "base/samples/belebele.swh_Latn.jsonl"
    hub, local = read_jsonl(tmp_path / "hub" / name), read_jsonl(tmp_path / "local" / name)
    assert [row["loglikelihoods"] for row in hub] == [row["loglikelihoods"] for row in local]
    assert [row["score"] for row in hub] == [row["score"] for row in local]
    assert [row["id"] for row in hub] == [str(number) for number in range(16)]
    done = command("evaluate", models / "base", "--tasks", "harness:belebele", *languages, "-o", "hub")
    assert done.out.count("finished before") == 2


@pytest.mark.skipif(not PACK, reason="INNERLINGUA_DATA is not set")
def test_the_pack_s_benchmarks_are_read_whole() -> None:
    chosen = choose(
        ["belebele", "mgsm", "xcopa", "xquad", "afriqa", "mmlu_clinical_african", "winogrande_african"],
        ["eng_Latn"],
        data=Path(PACK),
    )
    for benchmark, _ in chosen.benchmarks:
        assert len(benchmark.languages) >= 11
        questions = benchmark.asked["eng_Latn"]  # type: ignore[union-attr]
        assert len(questions) >= 100
        prompts = _prompts(benchmark, benchmark.languages[-1])
        assert all(context.strip() for context, _ in prompts)
