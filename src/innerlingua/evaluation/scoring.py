"""From what a model answered to one line per sample: score, status, prediction, target.

`accuracy`: the harness's own `acc`, right or wrong by the greatest loglikelihood. `number`: the number in the answer
(digits of any script) equals the right one. `text`: token F1 of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250), best
over the accepted answers, without case, punctuation of any script and English articles; scripts without spaces are
split into characters, as MLQA does (Lewis et al. 2020, arXiv 1910.07475); `exact` stands beside it. `translation`:
sentence chrF++.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import regex

from innerlingua.data.answers import EXTRACTORS
from innerlingua.data.scripts import UNSPACED
from innerlingua.evaluation.local import exact_number
from innerlingua.evaluation.store import content_hash
from innerlingua.evaluation.watch import Watch

__all__ = ["METRICS", "normalised", "rows_of", "sample_hash", "token_f1"]

METRICS: Final[Mapping[str, str]] = {
    "accuracy": "accuracy",
    "number": "accuracy",
    "text": "f1",
    "translation": "chrf++",
}
"""Scoring -> name of its metric in the results."""

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_UNSPACED: Final = regex.compile("|".join(rf"\p{{Script={script}}}" for script in UNSPACED))


def sample_hash(question: Mapping[str, Any]) -> str:
    """The digest of a question's content: all but what names it."""
    return content_hash({key: value for key, value in question.items() if key not in ("id", "group")})


def rows_of(
    examples: Iterable[Mapping[str, Any]],
    scoring: str,
    watch: Watch,
    *,
    questions: Mapping[str, Mapping[str, Any]] | None,
    prefix: str = "",
) -> list[dict[str, Any]]:
    """The lines of one task's samples.

    Args:
        examples: the harness's logged samples; of several filters the first is read.
        scoring: a key of `METRICS`.
        watch: what the backend noticed.
        questions: the local questions by id; None where the harness has the data.
        prefix: of the ids of data that has none, to tell the tasks of a group apart.
    """
    rows: list[dict[str, Any]] = []
    first: str | None = None
    for example in examples:
        first = first if first is not None else example["filter"]
        if example["filter"] != first:
            continue
        doc = example["doc"]
        question = doc if questions is None else questions[doc["id"]]
        name = str(doc["id"]) if questions is not None else f"{prefix}{example['doc_id']}"
        row: dict[str, Any] = {"id": name, "group": str(question.get("group", name)) if questions else name}
        if scoring == "accuracy":
            row |= _chosen(example, question, watch)
        else:
            row |= _written(example, question, scoring, watch)
        row["hash"] = sample_hash(question)
        rows.append(row)
    return rows


def _chosen(example: Mapping[str, Any], question: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    lls = [float(response[0]) for response in example["filtered_resps"]]
    # The harness calls the scored text the target where the contexts differ.
    target = example["target"] if isinstance(example["target"], int) else question.get("answer")
    if any(tuple(arguments[:2]) in watch.overlong for arguments in example["arguments"]):
        return {"score": 0.0, "status": "overlong", "prediction": None, "target": target}
    return {
        "score": float(example["acc"]),
        "status": "answered",
        "prediction": max(range(len(lls)), key=lls.__getitem__),
        "target": target,
        "loglikelihoods": lls,
    }


def _written(example: Mapping[str, Any], question: Mapping[str, Any], scoring: str, watch: Watch) -> dict[str, Any]:
    context = example["arguments"][0][0]
    text = example["resps"][0][0]
    status = "overlong" if context in watch.overlong else "cut" if context in watch.cut else "answered"
    if scoring == "translation":
        return _translated(text, question["reference"], status)
    if scoring == "number":
        target: Any = str(question["answer_number"] if "answer_number" in question else question["answer"])
        found = EXTRACTORS["number"](text)
        value = None if found is None else exact_number(found)
        read = value is not None
        scores = {"score": float(read and value == exact_number(target))}
    else:
        target = _answers(question)
        found = normalised(text)
        read = bool(found)
        scores = {
            "score": max(token_f1(text, answer) for answer in target),
            "exact": float(any(found == normalised(answer) for answer in target)),
        }
    if status == "answered" and not read:
        status = "unparsed"
    if status != "answered":
        scores = dict.fromkeys(scores, 0.0)
    return {**scores, "status": status, "prediction": found, "target": target, "response": text}


def _translated(text: str, reference: str, status: str) -> dict[str, Any]:
    from innerlingua.evaluation.translation import sentence_chrf

    hypothesis = " ".join(text.split())
    if not hypothesis and status == "answered":
        status = "unparsed"
    # What was cut is a translation of a part, and scored as such; it is counted all the same.
    return {
        "score": sentence_chrf(hypothesis, reference) if hypothesis else 0.0,
        "status": status,
        "prediction": hypothesis,
        "target": reference,
        "hypothesis": hypothesis,
        "reference": reference,
    }


def _answers(question: Mapping[str, Any]) -> list[str]:
    answers = question["answers"]
    return list(answers["text"]) if isinstance(answers, Mapping) else list(answers)


def token_f1(prediction: str, answer: str) -> float:
    """The harmonic mean of precision and recall over tokens, each as often as it occurs; 0 to 1."""
    found, right = _tokens(prediction), _tokens(answer)
    if not found or not right:
        return float(found == right)
    shared = sum((Counter(found) & Counter(right)).values())
    return 2 * shared / (len(found) + len(right))


def normalised(text: str) -> str:
    """A text without case, punctuation, English articles and needless spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(character for character in plain if not unicodedata.category(character).startswith("P"))
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _tokens(text: str) -> list[str]:
    spaced: str = _UNSPACED.sub(lambda match: f" {match[0]} ", normalised(text))
    return spaced.split()
