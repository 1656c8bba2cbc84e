"""What a reader must know of a comparison beside its numbers: seeds, models, versions and anchors of its runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from innerlingua.errors import DataError
from innerlingua.evaluation.matching import Matched
from innerlingua.evaluation.selection import Method

__all__ = ["caveats"]


def caveats(
    methods: Sequence[Method], pairs: Sequence[tuple[Method, Method]], fixed: Sequence[str], found: Sequence[Matched]
) -> list[str]:
    """Sentences for the head of the result.

    Raises:
        DataError: a method that is said to be fixed has several runs.
    """
    return _seeds(methods, pairs, fixed) + _same_models(methods) + _versions(methods) + _without_anchor(found)


def _seeds(methods: Sequence[Method], pairs: Sequence[tuple[Method, Method]], fixed: Sequence[str]) -> list[str]:
    """What one run of a method leaves open."""
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
    return notes


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
