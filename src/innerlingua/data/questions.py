"""Instruction sets as questions with a known answer, from the layouts that such sets come in.

| layout | question | right answer |
|---|---|---|
| `prompt`, `answer` (and `choices`; and `anchor_prompt`) | prompt | answer |
| `instruction` (and `input`), `output` | both | after `####` in the output, or its last box |
| `question`, `answer` (and `choices`) | question, a text or {language: text} | answer |
| `question`, `answers` (and `context`) | the same | any of the answers, a list or {language: list} |
| `items` = {language: {...}}, `answer` | passage, premise, sentence, question of the language | answer |
| `items` = {language: {..., `answers`}} | the same | any of the language's answers |

With `choices`, an integer answer is the 0-based index of the right one. `answers` may be {`text`: list}, as in SQuAD.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from innerlingua.data.answers import extract_boxed
from innerlingua.data.languages import ENGLISH, check_language
from innerlingua.data.rows import group_of, row_id_of
from innerlingua.data.sources import Source
from innerlingua.errors import DataError

__all__ = ["Question", "read_questions"]

_ITEM: Final = ("passage", "context", "premise", "sentence", "question")
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """One question in one language, and where it stood.

    `answer` is the right one, a letter where there are choices; `accepted` holds all texts that count as right where
    the set lists several, and is empty otherwise. `origin` has file and place, and source and licence where known.
    """

    id: str
    language: str
    group: str | None
    text: str
    choices: tuple[str, ...]
    answer: str
    accepted: tuple[str, ...]
    origin: dict[str, Any]

    @property
    def lettered(self) -> str:
        """The choices as lines `A. ...`."""
        return "\n".join(f"{letter}. {choice}" for letter, choice in zip(_LETTERS, self.choices, strict=False))


def read_questions(
    sources: Sequence[Source], *, known: Mapping[str, str], languages: Sequence[str] | None = None
) -> Iterator[Question]:
    """The questions of the sources, in order.

    Args:
        sources: opened files.
        known: language code -> English name.
        languages: languages to take; all unless given.

    Raises:
        DataError: a row is in none of the layouts, lacks an id or an answer, repeats an id in one language, or its
            choices do not fit its answer.
    """
    seen: dict[tuple[str, str], tuple[int, int, str]] = {}
    for index, source in enumerate(sources):
        for number, row in source.rows():
            where = source.place(number)
            for question in _questions(row, where, source.unit, number, source.name):
                check_language(question.language, where, known=known)
                if languages is not None and question.language not in languages:
                    continue
                key = (question.id, question.language)
                *first, text = seen.setdefault(key, (index, number, question.text))
                if first == [index, number]:
                    yield question
                elif text != question.text or "anchor_prompt" not in row:
                    raise DataError(
                        f"{where} (id {question.id!r}): the id occurs twice in {question.language}, first at "
                        f"{sources[first[0]].place(first[1])}. Rename or remove one of the two."
                    )


def _questions(row: dict[str, Any], where: str, unit: str, number: int, name: str) -> Iterator[Question]:
    row_id = row_id_of(row, where)
    where = f"{where} (id {row_id!r})"
    group = group_of(row, where)
    origin = {"file": name.replace("\\", "/").rsplit("/", 1)[-1], unit: number}
    origin |= {column: row[column] for column in ("source", "license") if isinstance(row.get(column), str)}
    for language, text, choices, answer in _sides(row, where):
        if not text.strip():
            raise DataError(f"{where}: the question in {language} is empty")
        accepted = answer if isinstance(answer, tuple) else ()
        gold = accepted[0] if accepted else _gold(answer, choices, where)
        yield Question(row_id, language, group, text, choices, gold, accepted, origin)


def _sides(row: dict[str, Any], where: str) -> Iterator[tuple[str, str, tuple[str, ...], Any]]:
    """Language, question, choices and answer of each side; the answer is a tuple where several are accepted."""
    language = str(row.get("language") or row.get("lang") or ENGLISH)
    choices = _choices(row.get("choices"), where)

    def answer(code: str, given: Any = None) -> Any:
        several = row.get("answers") if given is None else given
        return row.get("answer") if several is None or row.get("answer") is not None else _several(several, code, where)

    if isinstance(row.get("prompt"), str):
        if isinstance(row.get("anchor_prompt"), str):
            anchor = str(row.get("anchor_language") or ENGLISH)
            yield anchor, row["anchor_prompt"], choices, answer(anchor)
        yield language, row["prompt"], choices, answer(language)
    elif isinstance(row.get("instruction"), str):
        text = "\n\n".join(str(part) for part in (row["instruction"], row.get("input")) if part)
        known = answer(language)
        yield language, text, choices, known if known is not None else _worked(row.get("output"))
    elif isinstance(row.get("items"), dict):
        for code, item in row["items"].items():
            if item is None:
                continue  # Parquet holds every language in every row, null where there is none
            if not isinstance(item, dict):
                raise DataError(f"{where}: items[{code!r}] must be an object with the question in it")
            text = "\n\n".join(str(item[name]) for name in _ITEM if item.get(name))
            if "premise" in item and row.get("question") in ("cause", "effect"):
                text += f"\n\nWhat is the {row['question']}?"
            yield code, text, _choices(item.get("choices"), where), answer(code, item.get("answers"))
    elif isinstance(row.get("question"), dict):
        for code, text in row["question"].items():
            if text is None:
                continue
            if not isinstance(text, str):
                raise DataError(f"{where}: question[{code!r}] must be text, not {text!r}")
            yield code, text, choices, answer(code)
    elif isinstance(row.get("question"), str):
        parts = [row[name] for name in ("passage", "context", "question") if isinstance(row.get(name), str)]
        yield language, "\n\n".join(parts), choices, answer(language)
    else:
        raise DataError(
            f"{where}: no question. A row needs prompt, instruction, question or items; its columns: "
            f"{', '.join(sorted(row))}."
        )


def _several(value: Any, language: str, where: str) -> tuple[str, ...]:
    """The accepted answers of a language: from a list, from {language: list}, or from {"text": list}."""
    if isinstance(value, dict):
        value = value.get("text", value.get(language))
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value) or not value:
        raise DataError(f"{where}: answers in {language} must be a list of texts, none of them empty")
    return tuple(value)


def _choices(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not 2 <= len(value) <= len(_LETTERS):
        raise DataError(f"{where}: choices must be a list of 2 to {len(_LETTERS)} texts")
    for choice in value:
        if isinstance(choice, bool) or not isinstance(choice, str | int | float) or not str(choice).strip():
            raise DataError(f"{where}: choices hold {choice!r}; each must be a text (or a number), none of them empty")
    return tuple(str(choice) for choice in value)


def _worked(output: Any) -> str | None:
    """The answer of a worked solution: what follows the last `####`, or the last box."""
    if not isinstance(output, str):
        return None
    tail = output.rpartition("####")
    return tail[2].strip() if tail[1] else extract_boxed(output)


def _gold(answer: Any, choices: tuple[str, ...], where: str) -> str:
    if isinstance(answer, str) and choices and answer.strip().isdigit() and answer.strip() not in choices:
        answer = int(answer)
    if choices and isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            raise DataError(f"{where}: answer {answer} where the choices are numbered 0 to {len(choices) - 1}")
        return _LETTERS[answer]
    if answer is None or isinstance(answer, bool | list | dict) or not str(answer).strip():
        raise DataError(
            f"{where}: no right answer to compare with. Give the column answer (a text, a number, or the index of a "
            "choice), or an output that ends with '#### 42' or \\boxed{42}."
        )
    text = str(answer).strip()
    if choices:
        if text in choices:
            return _LETTERS[choices.index(text)]
        if text.upper() not in tuple(_LETTERS[: len(choices)]):
            raise DataError(f"{where}: answer {text!r} is neither a choice nor the letter of one")
        return text.upper()
    return text
