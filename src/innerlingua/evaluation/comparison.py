"""Runs against runs: did the languages get better, by how much, and could these samples have told?

`compare_runs` is the door. Per benchmark and measure, and for each method against the first (or each pair), it gives a
row per target language, one for their mean, and one for the anchor language, so that what alignment cost stands beside
what it gave. p-values are corrected among rows of one kind: the target languages of one benchmark and pair; all means
over languages of a call; all anchor rows of a call. The smallest difference that a row could show is for the same
corrected level: that of one language which changes alone.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from innerlingua.data.languages import LANGUAGES
from innerlingua.errors import DataError, nearest
from innerlingua.evaluation.analysis import Analysis, Estimate, Stack
from innerlingua.evaluation.correction import CORRECTIONS
from innerlingua.evaluation.estimates import Floats
from innerlingua.evaluation.matching import Matched, match
from innerlingua.evaluation.measures import Measure, bleu_score, chrf_score, corpus_statistics, mean_measure
from innerlingua.evaluation.outcome import Comparison, Difference, Kind, Score
from innerlingua.evaluation.power import POWER
from innerlingua.evaluation.selection import Method, read_methods
from innerlingua.evaluation.statistics import PERMUTATIONS, REPLICATES
from innerlingua.evaluation.store import STATUSES
from innerlingua.evaluation.translation import metrics, require_sacrebleu
from innerlingua.evaluation.wording import digits_for, sentence, verdict

__all__ = ["compare_runs"]


@dataclass(frozen=True)
class _Row:
    """An estimate on its way to a `Difference`: p-values are corrected when all are there."""

    matched: Matched
    measure: Measure
    kind: Kind
    language: str | None
    pair: tuple[Method, Method]
    estimate: Estimate
    at_chance: float | None


def compare_runs(
    given: Sequence[str | Path | Method],
    *,
    baseline: str | None = None,
    all_pairs: bool = False,
    benchmarks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    fixed: Sequence[str] = (),
    correction: str = "holm",
    level: float = 0.95,
    power: float = POWER,
    replicates: int = REPLICATES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    allow_settings: bool = False,
) -> Comparison:
    """Compare results folders of the same benchmarks.

    Args:
        given: folders of `innerlingua evaluate`, or NAME=FOLDER,FOLDER for several seeds of one method; or `Method`s.
        baseline: the label that the others are compared with; the first one by default.
        all_pairs: compare each with each.
        benchmarks, languages: only these.
        fixed: labels of methods that no training seed changes, such as the model before training. A single run beside
            several of another method is otherwise taken to vary as those do.
        correction: holm, bh (Benjamini and Hochberg) or none.
        level: of intervals; p-values count up to 1 - level.
        power: of the smallest difference.
        replicates, permutations: of the bootstrap and of the permutation test.
        seed: of the random numbers.
        allow_settings: compare results of different settings, with a note.

    Raises:
        DataError: results that cannot be read or compared, or an argument out of its range. The message names the
        place.
    """
    _check(correction, level, power, replicates, permutations, seed)
    methods = [one for one in given if isinstance(one, Method)]
    if not methods:
        methods = read_methods([one for one in given if not isinstance(one, Method)])
    if len(methods) < 2:
        raise DataError("a comparison needs two methods or more")
    labels = [method.label for method in methods]
    for what, names in (("baseline", [] if baseline is None else [baseline]), ("fixed", fixed)):
        for name in names:
            if name not in labels:
                raise DataError(f"{what}: no method is called {name!r}{nearest(name, labels)}")
    pairs = _pairs(methods, baseline, all_pairs=all_pairs)
    found, notes = match(methods, benchmarks=benchmarks, languages=languages, allow_settings=allow_settings)
    notes += _assumptions(methods, pairs, fixed) + _without_anchor(found)

    positions: dict[str, list[int]] = {}
    for method in methods:
        start = sum(map(len, positions.values()))
        positions[method.label] = list(range(start, start + len(method.runs)))
    alpha = 1 - level
    scores: list[Score] = []
    rows: list[_Row] = []
    for matched in found:
        for stack in _stacks(matched):
            analysis = Analysis(stack, replicates=replicates, permutations=permutations, seed=seed, level=level)
            for kind, language, chosen in _targets(matched):
                here = {
                    label: _score(analysis, matched, kind, language, chosen, label, runs)
                    for label, runs in positions.items()
                }
                scores += here.values()
                for first, second in pairs:
                    sides = frozenset(side for side, one in (("a", first), ("b", second)) if one.label in fixed)
                    estimate = analysis.difference(positions[first.label], positions[second.label], chosen, fixed=sides)
                    guessing = here[first.label].at_chance and here[second.label].at_chance
                    chance = here[first.label].chance if guessing else None
                    rows.append(_Row(matched, stack.measure, kind, language, (first, second), estimate, chance))
    _enough(rows, permutations, alpha, correction)
    return Comparison(
        methods={
            method.label: {
                "folders": [str(folder) for folder in method.folders],
                "seeds": [run.run.get("seed") for run in method.runs],
                "models": [run.run.get("model") for run in method.runs],
                "versions": [run.run.get("versions") for run in method.runs],
                "fixed": method.label in fixed,
            }
            for method in methods
        },
        settings={
            "baseline": pairs[0][0].label,
            "all_pairs": all_pairs,
            "correction": correction,
            "level": level,
            "power": power,
            "replicates": replicates,
            "permutations": permutations,
            "seed": seed,
        },
        names={
            language: LANGUAGES.get(language, language)
            for language in dict.fromkeys(row.language for row in scores if row.language)
        },
        scores=scores,
        differences=_differences(rows, correction, alpha, power, level),
        notes=notes,
    )


def _check(correction: str, level: float, power: float, replicates: int, permutations: int, seed: int) -> None:
    if correction not in CORRECTIONS:
        raise DataError(f"correction: {correction!r} is none of {', '.join(CORRECTIONS)}")
    for name, value in (("level", level), ("power", power)):
        if not 0.5 <= value < 1:
            raise DataError(f"{name}: {value} is not in 0.5 to 1, such as 0.95")
    for name, number in (("replicates", replicates), ("permutations", permutations)):
        if number < 100:
            raise DataError(f"{name}: {number} is too few to say anything; give 1000 or more")
    if seed < 0:
        raise DataError(f"seed: {seed} is negative; give 0 or more")


def _pairs(methods: Sequence[Method], baseline: str | None, *, all_pairs: bool) -> list[tuple[Method, Method]]:
    if all_pairs:
        if baseline is not None:
            raise DataError("a baseline and all pairs were both asked for: choose one")
        return list(combinations(methods, 2))
    first = methods[0] if baseline is None else next(one for one in methods if one.label == baseline)
    return [(first, other) for other in methods if other is not first]


def _assumptions(methods: Sequence[Method], pairs: Sequence[tuple[Method, Method]], fixed: Sequence[str]) -> list[str]:
    """What the reader must know about seeds and models."""
    notes = []
    several = [method.label for method in methods if len(method.runs) > 1]
    single = [method.label for method in methods if len(method.runs) == 1 and method.label not in fixed]
    if not several:
        notes.append(
            "one run of each method: the intervals hold the chance of the samples alone, not that of training again "
            "with another seed"
        )
    elif beside := [name for name in single if any(name in (a.label, b.label) for a, b in pairs)]:
        notes.append(
            f"{', '.join(beside)}: one run, taken to vary between seeds as {', '.join(several)}; name a model that no "
            "seed changes with --fixed"
        )
    for label in fixed:
        if label in several:
            raise DataError(f"fixed: {label!r} has several runs; a model that no seed changes has one")
    return notes + _same_models(methods) + _versions(methods)


def _same_models(methods: Sequence[Method]) -> list[str]:
    """Runs whose `run.json` names one and the same model, which no training tells apart."""
    held: dict[str, list[str]] = defaultdict(list)
    for method in methods:
        for folder, run in zip(method.folders, method.runs, strict=True):
            model = run.run.get("model")
            if not isinstance(model, dict):
                continue
            # Where the content is known by a digest or a commit, another path is no other model.
            known = any(model.get(key) for key in ("digest", "commit"))
            named = {key: value for key, value in model.items() if not (known and key == "path")}
            held[json.dumps(named, sort_keys=True, default=str)].append(str(folder))
    return [
        f"the same model was evaluated in {', '.join(folders)}: what differs there is not training"
        for folders in held.values()
        if len(folders) > 1
    ]


def _versions(methods: Sequence[Method]) -> list[str]:
    """Versions of what scores the samples, where they differ."""
    notes = []
    for name in ("lm_eval", "sacrebleu"):
        held: dict[str, list[str]] = defaultdict(list)
        for method in methods:
            for folder, run in zip(method.folders, method.runs, strict=True):
                versions = run.run.get("versions")
                if isinstance(versions, dict) and versions.get(name):
                    held[str(versions[name])].append(str(folder))
        if len(held) > 1:
            listed = "; ".join(f"{version} in {', '.join(folders)}" for version, folders in held.items())
            notes.append(f"evaluated with different versions of {name}: {listed}")
    return notes


def _without_anchor(found: Sequence[Matched]) -> list[str]:
    lacking = [matched.benchmark for matched in found if matched.anchor is None]
    if not lacking:
        return []
    return [f"no anchor language in {', '.join(lacking)}: what alignment cost there cannot be seen"]


def _targets(matched: Matched) -> list[tuple[Kind, str | None, list[int]]]:
    """The rows of a benchmark: the mean over targets where there are several, the anchor, and each target."""
    targets = [place for place, language in enumerate(matched.languages) if language != matched.anchor]
    rows: list[tuple[Kind, str | None, list[int]]] = []
    if len(targets) > 1:
        rows.append(("overall", None, targets))
    if matched.anchor is not None:
        rows.append(("anchor", matched.anchor, [matched.languages.index(matched.anchor)]))
    return rows + [("language", matched.languages[place], [place]) for place in targets]


def _stacks(matched: Matched) -> list[Stack]:
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


def _score(
    analysis: Analysis,
    matched: Matched,
    kind: Kind,
    language: str | None,
    chosen: Sequence[int],
    label: str,
    runs: Sequence[int],
) -> Score:
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


def _family(row: _Row) -> tuple[str, ...]:
    """Rows whose p-values are corrected together."""
    if row.kind != "language":
        return (row.kind,)
    return (row.kind, row.matched.benchmark, row.measure.name, row.pair[0].label, row.pair[1].label)


def _enough(rows: Sequence[_Row], permutations: int, alpha: float, correction: str) -> None:
    """Refuse a number of permutations whose smallest p-value could never pass the correction."""
    sizes = Counter(map(_family, rows))
    most = max((sizes[_family(row)] for row in rows if row.estimate.test == "permutation"), default=0)
    needed = round((1 if correction == "none" else most) / alpha)
    if most and permutations + 1 < needed:
        raise DataError(
            f"permutations: with {permutations} of them no p-value is below {1 / (permutations + 1):.2g}, and "
            f"corrected for {most} tests none could be found; give {10 * needed} or more"
        )


def _differences(rows: Sequence[_Row], correction: str, alpha: float, power: float, level: float) -> list[Difference]:
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
    row: _Row, corrected: float, tests: int, *, strict: int, alpha: float, power: float, level: float, digits: int
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
