"""How a question of each kind is put to a model: our own prompts, as fields of the harness's task configuration.

Answers that are chosen are scored by loglikelihood: the letter of a choice (`choice`), the choice itself (`cause`, and
MC1 of TruthfulQA), or what follows the blank once a choice is filled in (`blank`: the contexts differ, the scored text
is the same; Trinh and Le 2018, arXiv 1806.02847). The others are generated, greedily, and read from the text.

Labels such as `Question:` are English in every language, as in MMLU and its translations, so that languages differ in
the questions and in nothing else. Imports nothing of the harness.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from innerlingua.errors import DataError
from innerlingua.evaluation.local import Kind, Question

__all__ = ["VERSION", "own_prompt", "translation_prompt"]

VERSION: Final = 1
"""Of all prompts here; another prompt, another version, and results of two versions are never mixed."""

CONTINUATIONS: Final = frozenset({"truthfulqa_mc1_en"})
"""Benchmarks whose choices are scored as answers, not by letter: MC1 of TruthfulQA is defined so."""

_CONNECTORS: Final[Mapping[str, Mapping[str, str]]] = {"eng_Latn": {"cause": "because", "effect": "therefore"}}
_BLANK: Final = re.compile(r"_+")
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def own_prompt(kind: Kind, name: str, language: str, *, max_new_tokens: int | None) -> dict[str, Any]:
    """The fields of the harness's task configuration that say how a question is asked and answered.

    Args:
        kind: of the benchmark.
        name: of the benchmark.
        language: FLORES-200 code.
        max_new_tokens: of a generated answer; 64 for texts and 256 for numbers unless given.

    Raises:
        DataError: cause and effect in a language whose connecting words are not known here.
    """
    if kind == "choice" and name in CONTINUATIONS:
        return _chosen(lambda question: f"Q: {question['question']}\nA:", lambda question: question["choices"])
    if kind == "choice":
        return _chosen(_letters_prompt, lambda question: list(_LETTERS[: len(question["choices"])]))
    if kind == "cause":
        if language not in _CONNECTORS:
            raise DataError(f"{name} in {language}: the words for 'because' and 'therefore' are not known here")
        return _chosen(_cause_prompt(_CONNECTORS[language]), _lower_choices)
    if kind == "blank":
        # The harness's form for contexts that differ: the text is the index, the choices are the contexts.
        return {
            **_chosen(lambda question: question["answer"], _filled),
            "doc_to_target": _after_blank,
            "target_delimiter": " ",
        }
    if kind == "number":
        return _generated(lambda q: f"Question: {q['question']}\nAnswer:", ["Question:"], max_new_tokens or 256)
    if kind == "extract":
        return _generated(_extract_prompt, ["\n"], max_new_tokens or 64)
    return _generated(lambda q: f"Question: {q['question']}\nAnswer:", ["\n"], max_new_tokens or 64)


def translation_prompt(start: str, end: str, *, max_new_tokens: int | None) -> dict[str, Any]:
    """The same for translation between two languages, by name; 256 new tokens unless given."""

    def ask(question: Question) -> str:
        return f"Translate from {start} into {end}.\n\n{start}: {question['source']}\n{end}:"

    return {
        **_generated(ask, ["\n"], max_new_tokens or 256),
        "doc_to_target": "reference",
    }


def _chosen(text: Any, choices: Any) -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_text": text,
        "doc_to_choice": choices,
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _generated(text: Any, until: list[str], max_new_tokens: int) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_text": text,
        "doc_to_target": _first_answer,
        "generation_kwargs": {
            "until": until,
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": max_new_tokens,
        },
        # The text itself is what is kept; it is scored here, in `scoring`.
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _letters_prompt(question: Question) -> str:
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(_LETTERS, question["choices"], strict=False))
    passage = f"{question['passage']}\n\n" if question.get("passage") else ""
    return f"{passage}{question['question'].strip()}\n{choices}\nAnswer:"


def _cause_prompt(words: Mapping[str, str]) -> Any:
    def ask(question: Question) -> str:
        return f"{question['premise'].strip().rstrip('.')} {words[question['relation']]}"

    return ask


def _lower_choices(question: Question) -> list[str]:
    return [choice[0].lower() + choice[1:] for choice in question["choices"]]


def _filled(question: Question) -> list[str]:
    """The sentence up to the end of its last blank, with each choice in every blank."""
    blanks = list(_BLANK.finditer(question["sentence"]))
    upto = question["sentence"][: blanks[-1].end()]
    return [choice.join(_BLANK.split(upto)) for choice in question["choices"]]


def _after_blank(question: Question) -> str:
    """What follows the last blank; a full stop where nothing does, so that there is something to score."""
    after = _BLANK.split(question["sentence"])[-1]
    return after.strip() or "."


def _extract_prompt(question: Question) -> str:
    return f"Context: {question['context']}\n\nQuestion: {question['question']}\n\nAnswer:"


def _first_answer(question: Question) -> str:
    return str(question["answers"][0] if "answers" in question else question["answer"])
