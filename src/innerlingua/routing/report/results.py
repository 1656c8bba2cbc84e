"""Accuracy per language, to be set beside the routing: from `result.json`, or from a folder of `innerlingua evaluate`.

Two forms are read. A file: `runs: {label: {accuracy: {language: {n, correct}}}}`, as studies and the demo write it. A
folder: what `innerlingua evaluate ... -o DIR` wrote, one folder per label, of which one benchmark is taken (benchmarks
differ in what a guess scores, so they are never added up). Labels are matched with those of the profiles without regard
to case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerlingua.errors import DataError, nearest
from innerlingua.routing.report.read import Profile

__all__ = ["Results", "read_results"]

Counts = tuple[int, int]
"""Questions, and those answered rightly."""


@dataclass(frozen=True, slots=True)
class Results:
    """Accuracy per profile label and language.

    Attributes:
        accuracy: label -> language -> (n, correct).
        unmatched: runs without a profile.
        other_languages: codes that no profile has.
        benchmark: what was answered, where the source says so.
        chance: the accuracy of a guess, where the source says so and it is one for all languages.
    """

    accuracy: Mapping[str, Mapping[str, Counts]]
    unmatched: list[str]
    other_languages: list[str]
    benchmark: str | None = None
    chance: float | None = None


def read_results(path: Path, profiles: Sequence[Profile], *, benchmark: str | None = None) -> Results:
    """Accuracy for the profiles from `path`, a file or a folder; `benchmark` chooses among those of a folder.

    Raises:
        DataError: nothing is there, it is damaged, no accuracy is in it, none of its runs has the label of a profile,
            none of its languages is compared in a profile, or the benchmark is not clear.
    """
    chance: float | None = None
    if path.is_dir():
        runs, benchmark, chance = _of_folder(path, benchmark)
    elif not path.is_file():
        raise DataError(
            f"{path}: no such file. --results takes a result.json, or the folder that `innerlingua evaluate` wrote."
        )
    elif benchmark is not None:
        raise DataError(f"--benchmark chooses in a folder of `innerlingua evaluate`; {path} is a file of one accuracy")
    else:
        runs = _of_file(path)
    labels = {profile.label.casefold(): profile.label for profile in profiles}
    accuracy = {labels[name.casefold()]: rows for name, rows in runs.items() if rows and name.casefold() in labels}
    if not accuracy:
        raise DataError(
            f"{path}: its runs {', '.join(runs)} match none of the profiles {', '.join(labels.values())}, or hold no "
            "accuracy. Name the profiles like the runs: innerlingua routing profile ... --label NAME."
        )
    targets = {code for profile in profiles for code in profile.languages if code != profile.anchor}
    named = {code for rows in accuracy.values() for code in rows}
    if not named & targets:
        raise DataError(
            f"{path}: accuracy in {', '.join(sorted(named))}, and none of these languages is compared in the profiles"
        )
    return Results(
        accuracy=accuracy,
        unmatched=[name for name in runs if name.casefold() not in labels],
        other_languages=sorted(named - targets - {profiles[0].anchor}),
        benchmark=benchmark,
        chance=chance,
    )


def _of_file(path: Path) -> dict[str, dict[str, Counts]]:
    """The runs of a `result.json`."""
    stored = _json(path)
    runs = stored.get("runs") if isinstance(stored, dict) else None
    shaped = isinstance(runs, dict) and all(
        isinstance(run, dict) and isinstance(run.get("accuracy", {}), dict) for run in runs.values()
    )
    if not isinstance(runs, dict) or not shaped or not any(run.get("accuracy") for run in runs.values()):
        raise DataError(
            f"{path}: no accuracy in it. Expected runs: {{label: {{accuracy: {{language: {{n, correct}}}}}}}}; of "
            "`innerlingua evaluate`, give the folder."
        )
    return {
        name: {
            language: _counts(entry, f"{path}: runs.{name}.accuracy.{language}")
            for language, entry in run.get("accuracy", {}).items()
        }
        for name, run in runs.items()
    }


def _counts(entry: Any, where: str) -> Counts:
    n, correct = (entry.get("n"), entry.get("correct")) if isinstance(entry, dict) else (None, None)
    # A bool is an int to isinstance, and no count.
    if type(n) is not int or type(correct) is not int or not 0 <= correct <= n or n == 0:
        raise DataError(f"{where}: expected whole numbers n > 0 and correct <= n.")
    return n, correct


def _of_folder(path: Path, benchmark: str | None) -> tuple[dict[str, dict[str, Counts]], str, float | None]:
    """The runs of one benchmark in a folder of `innerlingua evaluate`, or of one run in it; its name and chance."""
    folders = [path] if (path / "run.json").is_file() else sorted(one.parent for one in path.glob("*/run.json"))
    entries = {folder: _entries(folder / "results.json") for folder in folders}
    found = {entry["benchmark"] for rows in entries.values() for entry in rows}
    if not found:
        raise DataError(
            f"{path}: no accuracy in it. --results takes the folder that `innerlingua evaluate ... -o` wrote."
        )
    if benchmark is None and len(found) > 1:
        raise DataError(f"{path} holds {', '.join(sorted(found))}: choose one by --benchmark")
    chosen = benchmark if benchmark is not None else next(iter(found))
    if chosen not in found:
        raise DataError(f"{path}: no accuracy in {chosen!r}{nearest(chosen, found)}")
    runs: dict[str, dict[str, Counts]] = {}
    chances: set[float | None] = set()
    for folder, rows in entries.items():
        label = str(_json(folder / "run.json").get("label", folder.name))
        rows = [entry for entry in rows if entry["benchmark"] == chosen]
        runs[label] = {entry["language"]: (entry["n"], round(entry["score"] * entry["n"])) for entry in rows}
        chances |= {entry.get("chance") for entry in rows}
    return runs, chosen, next(iter(chances)) if len(chances) == 1 else None


def _entries(path: Path) -> list[dict[str, Any]]:
    """The accuracies of a `results.json`; none where nothing is finished yet."""
    if not path.is_file():
        return []
    stored = _json(path)
    rows = stored.get("results") if isinstance(stored, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{path}: no list of results in it. Write it again by `innerlingua evaluate`.")
    kept = [entry for entry in rows if isinstance(entry, dict) and entry.get("metric") == "accuracy"]
    for number, entry in enumerate(kept, start=1):
        n, score, chance = (entry.get(key) for key in ("n", "score", "chance"))
        texts = all(isinstance(entry.get(key), str) for key in ("benchmark", "language"))
        share = isinstance(score, int | float) and 0 <= score <= 1
        if not texts or type(n) is not int or n < 1 or not share or not isinstance(chance, int | float | None):
            raise DataError(
                f"{path}: accuracy {number}: expected benchmark, language, n > 0, a score from 0 to 1 and a chance. "
                "Write it again by `innerlingua evaluate`."
            )
    return kept


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no readable JSON ({error}). Write it again with the command that made it.") from None
