"""Runs against runs: did the languages get better, by how much, and could these samples have told?

`compare_runs` is the door. Per benchmark and measure, and for each method against the first (or each pair), it gives a
row per target language, one for their mean, and one for the anchor language, so that what alignment cost stands beside
what it gave. `verdicts.py` says which p-values are corrected together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from innerlingua.data.languages import LANGUAGES
from innerlingua.errors import DataError, nearest
from innerlingua.evaluation.analysis import Analysis
from innerlingua.evaluation.caveats import caveats
from innerlingua.evaluation.correction import CORRECTIONS
from innerlingua.evaluation.matching import Matched, match
from innerlingua.evaluation.outcome import Comparison, Kind, Score
from innerlingua.evaluation.power import POWER
from innerlingua.evaluation.scores import score_of, stacks
from innerlingua.evaluation.selection import Method, read_methods
from innerlingua.evaluation.statistics import PERMUTATIONS, REPLICATES
from innerlingua.evaluation.verdicts import Row, differences, refuse_too_few

__all__ = ["compare_runs"]


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
    notes += caveats(methods, pairs, fixed, found)

    positions: dict[str, list[int]] = {}
    for method in methods:
        start = sum(map(len, positions.values()))
        positions[method.label] = list(range(start, start + len(method.runs)))
    alpha = 1 - level
    scores: list[Score] = []
    rows: list[Row] = []
    for matched in found:
        for stack in stacks(matched):
            analysis = Analysis(stack, replicates=replicates, permutations=permutations, seed=seed, level=level)
            for kind, language, chosen in _targets(matched):
                here = {
                    label: score_of(analysis, matched, kind, language, chosen, label, runs)
                    for label, runs in positions.items()
                }
                scores += here.values()
                for first, second in pairs:
                    sides = frozenset(side for side, one in (("a", first), ("b", second)) if one.label in fixed)
                    estimate = analysis.difference(positions[first.label], positions[second.label], chosen, fixed=sides)
                    guessing = here[first.label].at_chance and here[second.label].at_chance
                    chance = here[first.label].chance if guessing else None
                    rows.append(Row(matched, stack.measure, kind, language, (first, second), estimate, chance))
    refuse_too_few(rows, permutations, alpha, correction)
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
        differences=differences(rows, correction, alpha, power, level),
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


def _targets(matched: Matched) -> list[tuple[Kind, str | None, list[int]]]:
    """The rows of a benchmark: the mean over targets where there are several, the anchor, and each target."""
    targets = [place for place, language in enumerate(matched.languages) if language != matched.anchor]
    rows: list[tuple[Kind, str | None, list[int]]] = []
    if len(targets) > 1:
        rows.append(("overall", None, targets))
    if matched.anchor is not None:
        rows.append(("anchor", matched.anchor, [matched.languages.index(matched.anchor)]))
    return rows + [("language", matched.languages[place], [place]) for place in targets]
