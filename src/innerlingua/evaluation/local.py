"""Benchmarks in local files: found, read, checked, and brought into one form, question by question.

A file is JSON Lines, Parquet or CSV whose rows are parallel over languages, in the layout of the project's pack of data
(`items` = {language: {...}} with one `answer`; `question` = {language: text} for mathematics and open questions), or
monolingual (`lang` with `question`, `choices`, `answer`). What kind of benchmark it is follows from the fields:

    choice    question, choices, optional passage    answer: index
    cause     premise, choices; row: question = cause or effect    answer: index
    blank     sentence with `_`, choices             answer: index
    number    question                               answer: a number, as text
    extract   context, question                      answers: texts
    open      question                               answers: texts

Where rows name their official split, those of the test split are asked and the others give examples; without a test
split all are asked, and examples come from the questions themselves, never the one that is asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

from innerlingua.data.scripts import ascii_digits
from innerlingua.data.sources import open_sources
from innerlingua.errors import DataError

__all__ = [
    "ENDINGS",
    "SPLIT_COLUMN",
    "Kind",
    "LocalBenchmark",
    "Question",
    "drawn",
    "exact_number",
    "find_file",
    "read_benchmark",
]

Kind = Literal["choice", "cause", "blank", "number", "extract", "open"]

Question = dict[str, Any]
"""`id`, `group`, and the fields of its kind: texts, `choices` and `answer` (an index), or `answers`."""

ENDINGS: Final = (".jsonl.gz", ".jsonl", ".json", ".parquet", ".csv")
SPLIT_COLUMN: Final = "official_split"

_TEXTS: Final[dict[Kind, tuple[str, ...]]] = {
    "choice": ("question",),
    "cause": ("premise", "relation"),
    "blank": ("sentence",),
    "number": ("question", "answer"),
    "extract": ("context", "question"),
    "open": ("question",),
}


@dataclass(frozen=True)
class LocalBenchmark:
    """One benchmark as read from a file: what is asked, and what examples are drawn from, by language."""

    name: str
    path: Path
    kind: Kind
    asked: dict[str, list[Question]]
    examples: dict[str, list[Question]] = field(default_factory=dict)

    @property
    def languages(self) -> list[str]:
        """The languages that it has, in the order of the file."""
        return list(self.asked)

    def chance(self, language: str) -> float | None:
        """The expected accuracy of a guess: the mean of 1 / number of choices; None where nothing is chosen."""
        if self.kind in ("number", "extract", "open"):
            return None
        questions = self.asked[language]
        return sum(1 / len(question["choices"]) for question in questions) / len(questions)


def find_file(name: str, folder: Path, *, inside: str) -> Path | None:
    """The file `name` with one of `ENDINGS` in `folder/inside` or `folder` itself; None when there is none."""
    for place in (folder / inside, folder):
        for ending in ENDINGS:
            if (place / f"{name}{ending}").is_file():
                return place / f"{name}{ending}"
    return None


def drawn(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most `limit` of `questions`, in their order, chosen by a hash of the id.

    So the same meanings are drawn in every language, and the first subject of a file is not the only one.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    ranked = sorted(questions, key=lambda question: hashlib.sha256(question["id"].encode()).digest())
    chosen = {question["id"] for question in ranked[:limit]}
    return [question for question in questions if question["id"] in chosen]


def read_benchmark(name: str, path: Path) -> LocalBenchmark:
    """Read and check a whole file.

    Raises:
        DataError: a row is of no known kind or of another than the first, lacks a text, has an id twice in a language,
            or an answer that is not among the choices; the message names the place.
    """
    kind: Kind | None = None
    asked: dict[str, list[Question]] = {}
    examples: dict[str, list[Question]] = {}
    seen: set[tuple[str, str]] = set()
    has_test = False
    for source in open_sources(path):
        for number, row in source.rows():
            place = source.place(number)
            found, by_language = _questions(row, place)
            if kind not in (None, found):
                raise DataError(f"{place}: a question of the kind {found!r} among those of the kind {kind!r}")
            kind = found
            split = str(row.get(SPLIT_COLUMN) or "")
            is_test = split.startswith("test")
            has_test = has_test or is_test
            for language, question in by_language.items():
                _check(question, found, f"{place} ({language})")
                if (question["id"], language) in seen:
                    raise DataError(f"{place}: the id {question['id']!r} occurs twice in {language}")
                seen.add((question["id"], language))
                (asked if is_test or not split else examples).setdefault(language, []).append(question)
    if kind is None:
        raise DataError(f"{path}: no rows; a benchmark needs questions")
    if not has_test:
        for language, questions in examples.items():
            asked.setdefault(language, []).extend(questions)
        examples = {}
    return LocalBenchmark(name, path, kind, asked, {language: examples.get(language, []) for language in asked})


def _questions(row: Mapping[str, Any], place: str) -> tuple[Kind, dict[str, Question]]:
    """The kind of a row, and its questions by language."""
    shared = {"id": row.get("id"), "group": str(row.get("group") or row.get("id"))}
    if not isinstance(shared["id"], str) or not shared["id"]:
        raise DataError(f"{place}: no id; each question needs one, as text, the same in all languages")
    if "subject" in row:
        shared["subject"] = row["subject"]
    items = row.get("items")
    if isinstance(items, Mapping):
        items = {language: item for language, item in items.items() if item is not None}
        for language, item in items.items():
            if not isinstance(item, Mapping):
                raise DataError(f"{place}: items has {item!r} in {language}; it must be an object with the question")
        if not items:
            raise DataError(f"{place}: items holds no question in any language")
        if "premise" in next(iter(items.values())):
            shared["relation"] = row.get("question")
        extra = {"answer": row["answer"]} if "answer" in row else {}
        merged = {language: {**shared, **item, **extra} for language, item in items.items()}
        return _kind(next(iter(merged.values())), place), merged
    if isinstance(row.get("question"), Mapping):
        asked = {language: text for language, text in row["question"].items() if text is not None}
        if isinstance(row.get("answers"), Mapping):
            lacking = sorted(language for language in asked if row["answers"].get(language) is None)
            if lacking:
                raise DataError(f"{place}: question but no answers in {', '.join(lacking)}")
            return "open", {
                code: {**shared, "question": text, "answers": row["answers"][code]} for code, text in asked.items()
            }
        return "number", {
            code: {**shared, "question": text, "answer": str(row.get("answer", ""))} for code, text in asked.items()
        }
    if isinstance(row.get("lang"), str):
        question = {**shared, **{key: row[key] for key in ("passage", "question", "choices", "answer") if key in row}}
        return _kind(question, place), {row["lang"]: question}
    raise DataError(
        f"{place}: no question of a known layout. A row has items = {{language: {{...}}}} and answer, or question = "
        "{language: text}, or lang with question, choices and answer (docs/evaluation.md)"
    )


def _kind(question: Mapping[str, Any], place: str) -> Kind:
    if "choices" in question:
        if "premise" in question:
            return "cause"
        return "blank" if "sentence" in question else "choice"
    if "context" in question and "answers" in question:
        return "extract"
    given = ", ".join(sorted(question))
    raise DataError(f"{place}: a question needs choices, or context and answers; this has {given}")


def _check(question: Question, kind: Kind, place: str) -> None:
    for name in _TEXTS[kind]:
        text = question.get(name)
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{place}: {name} is {text!r}; it must be a text that is not blank")
    if kind in ("extract", "open"):
        if isinstance(question.get("answers"), Mapping):  # as the hub's SQuAD has them: {"text": [...]}
            question["answers"] = question["answers"].get("text")
        _texts(question.get("answers"), "answers", place)
        return
    if kind == "number":
        if exact_number(question["answer"]) is None:
            raise DataError(f"{place}: answer is {question['answer']!r}; it must be a number")
        return
    choices, answer = question.get("choices"), question.get("answer")
    _texts(choices, "choices", place)
    assert isinstance(choices, list)
    passage = question.get("passage")
    if passage is not None and not isinstance(passage, str):
        raise DataError(f"{place}: passage is {passage!r}; it must be a text")
    if len(choices) > 26:
        raise DataError(f"{place}: {len(choices)} choices; they are lettered from A to Z, so 26 at most")
    if len(choices) < 2:
        raise DataError(f"{place}: {len(choices)} choice; there must be two at least")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(
            f"{place}: answer is {answer!r}; it must be the index, from 0, of one of {len(choices)} choices"
        )
    if kind == "cause" and question["relation"] not in ("cause", "effect"):
        raise DataError(f"{place}: question is {question['relation']!r}; it must be 'cause' or 'effect'")
    if kind == "blank" and "_" not in question["sentence"]:
        raise DataError(f"{place}: the sentence has no blank (_) for a choice")


def exact_number(text: str) -> Fraction | None:
    """The value of a number as written (digits of any script, commas between thousands, `3/4`); None if it is none."""
    plain = ascii_digits(text).strip().replace(",", "").rstrip(".")
    if not re.fullmatch(r"[-+]?(\d{1,50}(\.\d{1,50})?|\.\d{1,50}|\d{1,50}/\d{1,50})", plain):
        return None
    try:
        return Fraction(plain)
    except ZeroDivisionError:
        return None


def _texts(values: object, name: str, place: str) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise DataError(f"{place}: {name} is {values!r}; it must be a list of texts")
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{place}: {name} holds {value!r}; each must be a text that is not blank")
