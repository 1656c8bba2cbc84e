"""What is compared: a mean over samples (accuracy, F1), or a score of the whole corpus (chrF++, BLEU).

Either is a function of sums over samples, so one mechanism resamples both. A corpus score is not the mean of its
sentences' scores: chrF++ and BLEU first add up n-gram counts, and what is resampled here are those counts (Koehn,
2004, EMNLP; Riezler and Maxwell, 2005). The counts are sacreBLEU's own, and its score of the whole corpus is checked
against ours before any resampling.

Shapes: n samples, k statistics per sample; scores are computed over any leading axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measure", "bleu_score", "chrf_score", "corpus_statistics", "mean_measure"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """One way to score samples.

    Attributes:
        name: as it is shown: accuracy, F1, chrF++, BLEU.
        factor: what a score is multiplied with to be shown in points of 100.
        span: the largest difference of two scores of one sample, for means of bounded scores; 0 for anything else.
        largest: the largest difference that two scores can have.
        score: (sums of statistics (..., k), numbers of samples (...)) -> scores (...).
    """

    name: str
    factor: float
    span: float
    largest: float
    score: Callable[[Floats, Floats], Floats]


def mean_measure(name: str, *, bounded: bool) -> Measure:
    """The mean of the samples' scores; `bounded` says that they lie between 0 and 1."""
    factor, span, largest = (100.0, 1.0, 1.0) if bounded else (1.0, 0.0, math.inf)
    return Measure(name, factor=factor, span=span, largest=largest, score=_mean)


def _mean(sums: Floats, counts: Floats) -> Floats:
    means: Floats = np.divide(sums[..., 0], counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return means


def chrf_score(sums: Floats, counts: Floats) -> Floats:
    """chrF++ (Popović, 2017, WMT) from sums of (hypothesis, reference, matching) n-grams per order, beta 2, 0 to 100.

    Character orders 1 to 6 and word orders 1 and 2; an order that one side lacks is left out of the averages, as
    sacreBLEU does since 2.0.
    """
    hypothesis, reference, matching = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    there = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(there.sum(axis=-1), 1)
    precision = np.divide(matching, hypothesis, out=np.zeros(there.shape), where=there).sum(axis=-1) / orders
    recall = np.divide(matching, reference, out=np.zeros(there.shape), where=there).sum(axis=-1) / orders
    below = 4 * precision + recall
    score: Floats = np.divide(500 * precision * recall, below, out=np.zeros(below.shape), where=below > 0)
    return score


def bleu_score(sums: Floats, counts: Floats) -> Floats:
    """BLEU (Papineni et al., 2002, ACL) from sums of lengths, matching and all n-grams (orders 1 to 4), 0 to 100.

    Smoothed as sacreBLEU does by default ("exp"): the k-th order without a match counts 1 / 2^k of a match.
    """
    length, reference, matching, everything = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    smoothed = np.where(matching > 0, matching, 0.5 ** np.cumsum(matching == 0, axis=-1))
    share = np.divide(smoothed, everything, out=np.zeros(everything.shape), where=everything > 0)
    scored = (share > 0).all(axis=-1) & (matching > 0).any(axis=-1)
    with np.errstate(divide="ignore"):
        average = np.exp(np.log(share).mean(axis=-1))
    brevity = np.exp(np.minimum(0.0, 1 - np.divide(reference, length, out=np.ones(length.shape), where=length > 0)))
    return np.where(scored, 100 * brevity * average, 0.0)


def corpus_statistics(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> Floats:
    """A sacreBLEU metric's counts for each sentence: (n, k).

    sacreBLEU has no public door to them, so what is added up here is checked against its public score of the corpus.

    Raises:
        RuntimeError: this version of sacreBLEU counts in another way.
    """
    counts = np.array(metric._extract_corpus_statistics(list(hypotheses), [list(references)]), dtype=np.float64)
    score = chrf_score if type(metric).__name__ == "CHRF" else bleu_score
    ours = float(score(counts.sum(axis=0), np.array(float(len(counts)))))
    theirs = float(metric.corpus_score(list(hypotheses), [list(references)]).score)
    if not abs(ours - theirs) < 1e-6:
        raise RuntimeError(
            f"sacreBLEU's {type(metric).__name__} of this corpus is {theirs}, and its counts give {ours}"
        )
    return counts
