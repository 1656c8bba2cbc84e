"""What a comparison says: scores, differences, and notes, as plain values in points of 100."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from innerlingua.evaluation.wording import Verdict

__all__ = ["SCHEMA", "Comparison", "Difference", "Kind", "Score"]

SCHEMA: Final = 1

Kind = Literal["language", "overall", "anchor"]


@dataclass(frozen=True)
class Score:
    """A method's score in a language, or its mean over the targets. Scores in points of 100.

    Attributes:
        benchmark, measure: what was asked and how it is scored.
        kind: language (a target), overall (mean over targets), anchor.
        language: code; None for overall.
        method: its label.
        score: the mean over its runs.
        low, high: its interval; None where one cluster is all there is.
        by_run: the score of each run.
        samples: how many, over all languages of the row.
        statuses: samples by status, over the row's languages, of each run.
        chance: of a guess; None where it is not known.
        at_chance: whether the interval holds the score of a guess that answers the same samples.
    """

    benchmark: str
    measure: str
    kind: Kind
    language: str | None
    method: str
    score: float
    low: float | None
    high: float | None
    by_run: list[float]
    samples: int
    statuses: list[dict[str, int]]
    chance: float | None
    at_chance: bool

    @property
    def unanswered(self) -> dict[str, int]:
        """Samples that gave no answer, by reason, over all runs; only reasons that occur."""
        reasons = {reason for counts in self.statuses for reason in counts if reason != "answered"}
        totals = {reason: sum(counts[reason] for counts in self.statuses) for reason in sorted(reasons)}
        return {reason: total for reason, total in totals.items() if total}


@dataclass(frozen=True)
class Difference:
    """How a method differs from a baseline in a language, or in the mean over the targets. In points of 100.

    Attributes:
        benchmark, measure, kind, language: as of `Score`.
        baseline, method: labels; `difference` is the method's score less the baseline's.
        difference, low, high: with the interval; None where one cluster is all there is.
        standard_error, from_samples, from_seeds: the whole, and its parts; `from_seeds` is None with one run of each.
        freedom: degrees of freedom of the standard error.
        p, corrected: two-sided, before and after correction.
        tests: how many p-values were corrected together.
        test: exact, permutation, or t (with several runs).
        smallest: the smallest difference that would be shown with the power asked for; None when none would.
        samples, clusters: how many, and how many independent pieces they are.
        discordance: the share of samples with a different score; None for corpus scores.
        wins, losses: samples on which method or baseline scores higher; None with several runs and for corpus scores.
        verdict: better, worse, noise, uncorrected (only before correction) or same.
        words: the row in a sentence.
    """

    benchmark: str
    measure: str
    kind: Kind
    language: str | None
    baseline: str
    method: str
    difference: float
    low: float | None
    high: float | None
    standard_error: float
    from_samples: float
    from_seeds: float | None
    freedom: float
    p: float
    corrected: float
    tests: int
    test: str
    smallest: float | None
    samples: int
    clusters: int
    discordance: float | None
    wins: int | None
    losses: int | None
    verdict: Verdict
    words: str


@dataclass(frozen=True)
class Comparison:
    """All that was compared.

    Attributes:
        methods: per label, its folders, training seeds and models.
        settings: level, power, correction, replicates, permutations, seed.
        names: English names of the language codes.
        scores: per benchmark, measure, language and method.
        differences: per benchmark, measure, pair and language.
        notes: what a reader must know: what was left out, which settings differ, which assumptions were made.
    """

    methods: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    names: dict[str, str]
    scores: list[Score]
    differences: list[Difference]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"schema": SCHEMA, **asdict(self)}

    def rows(self, benchmark: str, measure: str, baseline: str, method: str) -> list[Difference]:
        """The differences of one benchmark, measure and pair: overall, anchor, then the targets."""
        key = (benchmark, measure, baseline, method)
        return [row for row in self.differences if (row.benchmark, row.measure, row.baseline, row.method) == key]

    def score(self, row: Difference, method: str) -> Score:
        """The score of `method` where `row` compares."""
        key = (row.benchmark, row.measure, row.language, method)
        return next(one for one in self.scores if (one.benchmark, one.measure, one.language, one.method) == key)

    @property
    def tables(self) -> list[tuple[str, str]]:
        """The (benchmark, measure) of the rows, in order."""
        return list(dict.fromkeys((row.benchmark, row.measure) for row in self.scores))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The (baseline, method) of the rows, in order."""
        return list(dict.fromkeys((row.baseline, row.method) for row in self.differences))
