"""From estimates to differences: p-values corrected within their family of tests, and the verdict in words.

A family is what is read together: the target languages of one benchmark, measure and pair; all means over languages of
a call; all anchor rows of a call. The smallest difference that a row could show is for the same corrected level: that
of one language which changes alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from innerlingua.errors import DataError
from innerlingua.evaluation.analysis import Estimate
from innerlingua.evaluation.correction import CORRECTIONS
from innerlingua.evaluation.matching import Matched
from innerlingua.evaluation.measures import Measure
from innerlingua.evaluation.outcome import Difference, Kind
from innerlingua.evaluation.selection import Method
from innerlingua.evaluation.wording import digits_for, sentence, verdict

__all__ = ["Row", "differences", "refuse_too_few"]


@dataclass(frozen=True)
class Row:
    """An estimate on its way to a `Difference`: p-values are corrected when all are there."""

    matched: Matched
    measure: Measure
    kind: Kind
    language: str | None
    pair: tuple[Method, Method]
    estimate: Estimate
    at_chance: float | None


def _family(row: Row) -> tuple[str, ...]:
    """Rows whose p-values are corrected together."""
    if row.kind != "language":
        return (row.kind,)
    return (row.kind, row.matched.benchmark, row.measure.name, row.pair[0].label, row.pair[1].label)


def refuse_too_few(rows: Sequence[Row], permutations: int, alpha: float, correction: str) -> None:
    """Refuse a number of permutations whose smallest p-value could never pass the correction."""
    sizes = Counter(map(_family, rows))
    most = max((sizes[_family(row)] for row in rows if row.estimate.test == "permutation"), default=0)
    needed = round((1 if correction == "none" else most) / alpha)
    if most and permutations + 1 < needed:
        raise DataError(
            f"permutations: with {permutations} of them no p-value is below {1 / (permutations + 1):.2g}, and "
            f"corrected for {most} tests none could be found; give {10 * needed} or more"
        )


def differences(rows: Sequence[Row], correction: str, alpha: float, power: float, level: float) -> list[Difference]:
    """The rows with p-values corrected in their families, the smallest difference for that level, and words."""
    families: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        families[_family(row)].append(place)
    corrected: dict[int, tuple[float, int]] = {}
    for places in families.values():
        adjusted = CORRECTIONS[correction]([rows[place].estimate.p for place in places])
        corrected.update((place, (p, len(places))) for place, p in zip(places, adjusted, strict=True))
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        errors[row.matched.benchmark, row.measure.name].append(row.measure.factor * row.estimate.spread.total)
    digits = {table: digits_for(found) for table, found in errors.items()}
    return [
        _difference(
            row,
            *corrected[place],
            strict=1 if correction == "none" else corrected[place][1],
            alpha=alpha,
            power=power,
            level=level,
            digits=digits[row.matched.benchmark, row.measure.name],
        )
        for place, row in enumerate(rows)
    ]


def _difference(
    row: Row, corrected: float, tests: int, *, strict: int, alpha: float, power: float, level: float, digits: int
) -> Difference:
    estimate, factor = row.estimate, row.measure.factor
    baseline, method = row.pair
    raw = estimate.smallest(alpha / strict, power)
    smallest = None if raw is None else factor * raw
    interval = None if estimate.interval is None else (factor * estimate.interval[0], factor * estimate.interval[1])
    found = verdict(estimate.difference, estimate.p, corrected, alpha=alpha, same=estimate.same)
    words = sentence(
        found,
        baseline=baseline.label,
        method=method.label,
        difference=factor * estimate.difference,
        interval=interval,
        level=level,
        p=estimate.p,
        corrected=corrected,
        tests=tests,
        smallest=smallest,
        samples=estimate.samples,
        clusters=estimate.clusters,
        runs=(len(baseline.runs), len(method.runs)),
        at_chance=row.at_chance,
        digits=digits,
    )
    return Difference(
        benchmark=row.matched.benchmark,
        measure=row.measure.name,
        kind=row.kind,
        language=row.language,
        baseline=baseline.label,
        method=method.label,
        difference=factor * estimate.difference,
        low=None if interval is None else interval[0],
        high=None if interval is None else interval[1],
        standard_error=factor * estimate.spread.total,
        from_samples=factor * estimate.spread.samples,
        from_seeds=None if estimate.spread.seeds is None else factor * estimate.spread.seeds,
        freedom=estimate.spread.freedom,
        p=estimate.p,
        corrected=corrected,
        tests=tests,
        test=estimate.test,
        smallest=smallest,
        samples=estimate.samples,
        clusters=estimate.clusters,
        discordance=estimate.discordance,
        wins=estimate.wins,
        losses=estimate.losses,
        verdict=found,
        words=words,
    )
