"""Matched samples as stacks for the statistics, and the score of each method with its interval, beside chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from innerlingua.evaluation.analysis import Analysis, Stack
from innerlingua.evaluation.estimates import Floats
from innerlingua.evaluation.matching import Matched
from innerlingua.evaluation.measures import Measure, bleu_score, chrf_score, corpus_statistics, mean_measure
from innerlingua.evaluation.outcome import Kind, Score
from innerlingua.evaluation.store import STATUSES
from innerlingua.evaluation.translation import metrics, require_sacrebleu

__all__ = ["score_of", "stacks"]


def stacks(matched: Matched) -> list[Stack]:
    """One stack per measure: the mean of the scores, or chrF++ and BLEU of the corpus for translations."""

    def stack(measure: Measure, statistics: list[Floats]) -> Stack:
        return Stack(matched.benchmark, measure, matched.clusters, matched.members, statistics)

    if matched.texts is None:
        bounded = all(((scores >= 0) & (scores <= 1)).all() for scores in matched.scores)
        return [stack(mean_measure(matched.metric, bounded=bounded), [scores[:, :, None] for scores in matched.scores])]
    require_sacrebleu()
    signed = [metrics(language) for language in matched.languages]
    return [
        stack(
            Measure(name, factor=1.0, span=0.0, largest=100.0, score=score),
            [
                np.stack([corpus_statistics(by_language[place], *texts) for texts in runs])
                for by_language, runs in zip(signed, matched.texts, strict=True)
            ],
        )
        for place, (name, score) in enumerate((("chrF++", chrf_score), ("BLEU", bleu_score)))
    ]


def score_of(
    analysis: Analysis,
    matched: Matched,
    kind: Kind,
    language: str | None,
    chosen: Sequence[int],
    label: str,
    runs: Sequence[int],
) -> Score:
    """The score of the method `label`, in the places `runs`, over the languages in the places `chosen`."""
    factor = analysis.stack.measure.factor
    score, interval = analysis.score(runs, chosen)
    chances = [matched.chance[place] for place in chosen]
    chance = (
        None
        if analysis.stack.measure.span == 0 or None in chances
        else float(np.mean([c for c in chances if c is not None]))
    )
    low, high = interval or (None, None)
    statuses = [
        {status: sum(matched.statuses[place][run][status] for place in chosen) for status in STATUSES} for run in runs
    ]
    # Who guesses leaves the same samples without an answer.
    answered = sum(counts["answered"] for counts in statuses) / sum(map(sum, (one.values() for one in statuses)))
    guess = None if chance is None else chance * answered
    return Score(
        benchmark=matched.benchmark,
        measure=analysis.stack.measure.name,
        kind=kind,
        language=language,
        method=label,
        score=factor * score,
        low=None if low is None else factor * low,
        high=None if high is None else factor * high,
        by_run=[factor * float(analysis.stack.scores[run, list(chosen)].mean()) for run in runs],
        samples=sum(len(matched.ids[place]) for place in chosen),
        statuses=statuses,
        chance=None if chance is None else factor * chance,
        at_chance=_at_chance(guess, low, high),
    )


def _at_chance(guess: float | None, low: float | None, high: float | None) -> bool:
    return guess is not None and low is not None and high is not None and low <= guess <= high
