"""Tasks of lm-evaluation-harness for what was chosen: its own, its own on local data, and ours. Imports the harness.

Belebele, MGSM and XCOPA from local files are asked by the harness's own task files, only the data being another,
wherever it has the language; so their figures compare with figures of the harness. All else is asked by the prompts of
`prompts`: what the harness lacks, and XQuAD, whose task file needs a module that transformers 5 no longer has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from datasets import Dataset
from datasets.exceptions import DatasetsError
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager

from innerlingua.errors import DataError
from innerlingua.evaluation.benchmarks import Benchmark
from innerlingua.evaluation.harness import HARNESS, HarnessBenchmark, tasks_folder
from innerlingua.evaluation.local import LocalBenchmark, Question, drawn
from innerlingua.evaluation.parallel_files import ParallelBenchmark
from innerlingua.evaluation.prompts import VERSION, own_prompt, translation_prompt
from innerlingua.evaluation.store import content_hash

__all__ = ["FEWSHOT_SEED", "SCORING", "Scoring", "Unit", "build_unit", "task_version"]

FEWSHOT_SEED: Final = 1234  # the harness's own

Scoring = Literal["accuracy", "number", "text", "translation"]

SCORING: Final[Mapping[str, Scoring]] = {
    "choice": "accuracy",
    "cause": "accuracy",
    "blank": "accuracy",
    "number": "number",
    "extract": "text",
    "open": "text",
}


@dataclass(frozen=True)
class Unit:
    """One benchmark in one language, ready to run: the harness's tasks, and how their samples are scored.

    `questions` are the local questions by id, in order; None where the harness fetched the data itself. `limit` is then
    the harness's own: of the first questions of each task.
    """

    benchmark: str
    language: str
    tasks: dict[str, Task]
    scoring: Scoring
    version: str
    chance: float | None
    questions: dict[str, Question] | None
    limit: int | None
    target: str
    """The language that is answered in: of the measures that need to know how a script is split."""


def task_version(benchmark: Benchmark, language: str) -> str:
    """Which task file asks, and in which version; part of a benchmark's version."""
    if isinstance(benchmark, ParallelBenchmark):
        return f"innerlingua/translation/{VERSION}/{'>'.join(benchmark.named_sides(language))}"
    entry = _harness_entry(benchmark, language)
    if entry is None:
        assert isinstance(benchmark, LocalBenchmark)
        return f"innerlingua/{benchmark.kind}/{VERSION}"
    return entry.version


def build_unit(
    benchmark: Benchmark, language: str, *, num_fewshot: int, max_new_tokens: int | None, limit: int | None
) -> Unit:
    """The tasks of `benchmark` in `language`.

    Args:
        benchmark: what `choose` found.
        language: one of its languages.
        num_fewshot: examples before each question.
        max_new_tokens: of a generated answer; the task's own unless given.
        limit: at most so many questions.

    Raises:
        DataError: too few examples, or data that the harness cannot fetch.
    """
    if isinstance(benchmark, HarnessBenchmark):
        tasks = _fetched(benchmark, language)
        unit = Unit(
            benchmark.name,
            language,
            tasks,
            SCORING[benchmark.kind],
            task_version(benchmark, language),
            benchmark.chance,
            None,
            limit,
            language,
        )
    elif isinstance(benchmark, ParallelBenchmark):
        unit = _translation(benchmark, language, num_fewshot, max_new_tokens, limit)
    else:
        unit = _local(benchmark, language, num_fewshot, max_new_tokens, limit)
    for task in unit.tasks.values():
        if unit.questions is None:
            _enough(task, num_fewshot)
        _set(task, num_fewshot, max_new_tokens)
    return unit


def _set(task: Task, num_fewshot: int, max_new_tokens: int | None) -> None:
    if task.get_config("num_fewshot") != 0:  # a task file that says 0 means it
        task.set_config(key="num_fewshot", value=num_fewshot)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    if max_new_tokens is not None and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value={"max_gen_toks": max_new_tokens}, update=True)


def _enough(task: Task, num_fewshot: int) -> None:
    there = len(task.sampler.fewshot_docs()) - 1
    if task.get_config("num_fewshot") != 0 and num_fewshot > there:
        raise DataError(f"--num-fewshot {num_fewshot}: {task.task_name} has only {there} examples to draw from")


def _local(
    benchmark: LocalBenchmark, language: str, num_fewshot: int, max_new_tokens: int | None, limit: int | None
) -> Unit:
    questions = drawn(benchmark.asked[language], limit)
    entry = _harness_entry(benchmark, language)
    name = f"{benchmark.name}_{language}"
    form = _plain if entry is None else _FORMS[benchmark.name]
    data = _data(name, questions, benchmark.examples[language], num_fewshot, form)
    if entry is not None:
        task = _on_local_data(entry, data)
    else:
        prompt = own_prompt(benchmark.kind, benchmark.name, language, max_new_tokens=max_new_tokens)
        task = ConfigurableTask(config={"task": name, **data, **prompt})
    return Unit(
        benchmark.name,
        language,
        {name: task},
        SCORING[benchmark.kind],
        task_version(benchmark, language),
        benchmark.chance(language),
        {question["id"]: question for question in questions},
        None,
        language,
    )


def _translation(
    benchmark: ParallelBenchmark, language: str, num_fewshot: int, max_new_tokens: int | None, limit: int | None
) -> Unit:
    source, target = benchmark.named_sides(language)
    questions = drawn(benchmark.asked[language], limit)
    name = f"{benchmark.name}_{language}"
    config = {
        "task": name,
        **_data(name, questions, [], num_fewshot, _plain),
        **translation_prompt(source, target, max_new_tokens=max_new_tokens),
    }
    return Unit(
        benchmark.name,
        language,
        {name: ConfigurableTask(config=config)},
        "translation",
        task_version(benchmark, language),
        None,
        {question["id"]: question for question in questions},
        None,
        benchmark.sides(language)[1],
    )


def _data(
    name: str,
    questions: Sequence[Question],
    examples: Sequence[Question],
    num_fewshot: int,
    form: Callable[[Question], dict[str, Any]],
) -> dict[str, Any]:
    """The fields of a task configuration that say where its data is: here, in memory.

    Where there are no examples apart, questions are examples for each other. The harness leaves out the one that is
    asked when both come from one split.
    """
    there = len(examples) if examples else len(questions) - 1
    if num_fewshot > there:
        raise DataError(f"--num-fewshot {num_fewshot}: {name} has only {there} examples to draw from")
    rows = {"test": Dataset.from_list([form(question) for question in questions])}
    if examples:
        rows["examples"] = Dataset.from_list([form(question) for question in examples])
    return {
        "custom_dataset": lambda **_: rows,
        "test_split": "test",
        "validation_split": None,
        "training_split": None,
        "fewshot_split": "examples" if examples else "test",
    }


def _plain(question: Question) -> dict[str, Any]:
    return dict(question)


def _belebele(question: Question) -> dict[str, Any]:
    answers = {f"mc_answer{number}": choice for number, choice in enumerate(question["choices"], 1)}
    return {
        "id": question["id"],
        "flores_passage": question["passage"],
        "question": question["question"],
        "correct_answer_num": str(question["answer"] + 1),
        **answers,
    }


def _mgsm(question: Question) -> dict[str, Any]:
    # No worked answer: to the harness's prompt that is a row of the test split.
    return {
        "id": question["id"],
        "question": question["question"],
        "answer": None,
        "answer_number": question["answer"],
    }


def _xcopa(question: Question) -> dict[str, Any]:
    first, second = question["choices"]
    return {
        "id": question["id"],
        "premise": question["premise"],
        "question": question["relation"],
        "choice1": first,
        "choice2": second,
        "label": question["answer"],
    }


_FORMS: Final[Mapping[str, Callable[[Question], dict[str, Any]]]] = {
    "belebele": _belebele,
    "mgsm": _mgsm,
    "xcopa": _xcopa,
}
"""Local questions in the fields that the harness's own task files read."""

_KINDS: Final = {"belebele": "choice", "mgsm": "number", "xcopa": "cause"}


@dataclass(frozen=True)
class _Entry:
    folder: str
    task: str
    version: str


def _harness_entry(benchmark: LocalBenchmark | HarnessBenchmark, language: str) -> _Entry | None:
    """The task file of the harness that asks `benchmark` in `language`; None when ours does."""
    known = HARNESS.get(benchmark.name)
    if known is None or (isinstance(benchmark, LocalBenchmark) and not _fits(benchmark, known, language)):
        return None
    code = known.code(language)
    if code is None:
        return None
    folder, task = known.folder.format(code), known.task.format(code)
    config = _manager(folder).task_index[task].cfg or {}
    version = (config.get("metadata") or {}).get("version", "unknown")
    return _Entry(folder, task, f"lm_eval/{task}/{version}/{_digest(config)}")


def _fits(benchmark: LocalBenchmark, known: HarnessBenchmark, language: str) -> bool:
    if _KINDS.get(benchmark.name) != benchmark.kind:
        return False
    questions = benchmark.asked[language] + benchmark.examples[language]
    if known.choices is not None and any(len(question["choices"]) != known.choices for question in questions):
        return False
    return benchmark.name != "belebele" or all(question.get("passage") for question in questions)


def _digest(config: Mapping[str, Any]) -> str:
    asked = {key: config.get(key) for key in ("doc_to_text", "doc_to_choice", "doc_to_target", "task", "description")}
    return content_hash({key: value if isinstance(value, str | list) else None for key, value in asked.items()})[:8]


@cache
def _manager(folder: str) -> TaskManager:
    # Its index of everything takes a minute to build; of one folder, less than a second.
    return TaskManager(include_defaults=False, include_path=str(tasks_folder() / folder))


def _on_local_data(entry: _Entry, data: Mapping[str, Any]) -> Task:
    """The harness's own task with `data` in place of the hub's. A group of one is how it takes overrides."""
    group = {"group": "local", "task": [{"task": entry.task, **data}]}
    (task,) = _manager(entry.folder).load([group])["tasks"].values()
    return task


def _fetched(benchmark: HarnessBenchmark, language: str) -> dict[str, Task]:
    entry = _harness_entry(benchmark, language)
    assert entry is not None
    try:
        return dict(_manager(entry.folder).load([entry.task])["tasks"])
    except ImportError as error:
        raise DataError(
            f"{benchmark.name} in {language}: the installed lm-evaluation-harness cannot load its own task ({error}); "
            "give local files instead: --data DIR (docs/evaluation.md)"
        ) from error
    except (OSError, ValueError, DatasetsError) as error:
        words = " ".join(str(error).split())
        raise DataError(
            f"{benchmark.name} in {language}: the harness cannot fetch its data ({words}). Without a connection to the "
            "hub, give local files: --data DIR (docs/evaluation.md)"
        ) from error
