"""What is compared with what: folders of results, gathered into methods.

A method is one run, or several runs of one recipe from different training seeds. It is named on the command line, as in
`sara=runs/sara-1,runs/sara-2`, or by its runs' own label; runs of one label and different stated seeds belong together.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from innerlingua.errors import DataError
from innerlingua.evaluation.store import RUN, RunResults, read_results, read_run

__all__ = ["Method", "read_methods"]


@dataclass(frozen=True)
class Method:
    """Runs that count as one: several seeds of a recipe, or a single run.

    Attributes:
        label: what tells it from the others.
        folders: where each run was read from.
        runs: their results, in the same order.
    """

    label: str
    folders: Sequence[Path]
    runs: Sequence[RunResults]


def read_methods(given: Sequence[str | Path]) -> list[Method]:
    """Methods from words of the command line, in the given order.

    A word is a results folder, a folder of such folders, or NAME=FOLDER[,FOLDER...]; a folder may be a pattern such as
    `runs/sara-*`. A word that is an existing path is that path, also with `=` in it.

    Raises:
        DataError: a folder holds no results or was given twice, labels collide, or fewer than two methods are there.
    """
    named: dict[str, list[Path]] = {}
    unnamed: list[tuple[str, Path]] = []
    order: list[str] = []
    for word in given:
        name, folders = _word(word)
        for folder in folders:
            label = name if name is not None else _label(folder)
            if name is None:
                unnamed.append((label, folder))
            else:
                named.setdefault(name, []).append(folder)
            order.append(label)
    _refuse_twice([folder for folders in named.values() for folder in folders] + [folder for _, folder in unnamed])
    for label, folder in unnamed:
        if label in named:
            raise DataError(
                f"{folder}: its run is called {label!r}, and so is a group of runs. Put it into the group, as in "
                f"{label}={named[label][0]},{folder}, or give it another name, as in other={folder}"
            )
    together: dict[str, list[Path]] = {**named}
    for label, folder in unnamed:
        together.setdefault(label, []).append(folder)
    methods = []
    for label in dict.fromkeys(order):
        runs = [read_results(folder) for folder in together[label]]
        if label not in named and len(runs) > 1:
            _refuse_same_label(label, together[label], runs)
        methods.append(Method(label, together[label], runs))
    if len(methods) < 2:
        what = f"only {methods[0].label} ({', '.join(map(str, methods[0].folders))})" if methods else "nothing"
        raise DataError(
            f"{what} was given, and a comparison needs two models or more: innerlingua compare runs/sft runs/sara, or, "
            "with several seeds of each, sft=runs/sft-1,runs/sft-2 sara=runs/sara-1,runs/sara-2"
        )
    return methods


def _label(folder: Path) -> str:
    """What a run calls itself."""
    label = read_run(folder).get("label", folder.name)
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"{folder / RUN}: the label {label!r} is no name. Give the run one here, as in sara={folder}")
    return label


def _word(word: str | Path) -> tuple[str | None, list[Path]]:
    """The name before `=`, if there is one, and the run folders that a word stands for."""
    if isinstance(word, Path) or "=" not in word or Path(word).exists():
        return None, _folders(str(word))
    name, _, rest = word.partition("=")
    parts = [part.strip() for part in rest.split(",")]
    if not name.strip() or not all(parts):
        raise DataError(f"{word!r} is not NAME=FOLDER[,FOLDER...], such as sara=runs/sara-1,runs/sara-2")
    return name.strip(), [folder for part in parts for folder in _folders(part)]


def _folders(text: str) -> list[Path]:
    """The run folders at a path or pattern: itself, or those directly in it."""
    if not text.strip():
        raise DataError("an empty name is no results folder; give one that `innerlingua evaluate ... -o DIR` wrote")
    path = Path(text)
    if not path.exists() and glob.has_magic(text):
        found = [Path(match) for match in sorted(glob.glob(text)) if (Path(match) / RUN).is_file()]
        if not found:
            raise DataError(f"{text}: no results of a run match this pattern (folders with a {RUN})")
        return found
    if path.is_dir() and not (path / RUN).is_file():
        inside = sorted(child for child in path.iterdir() if (child / RUN).is_file())
        if inside:
            return inside
    read_run(path)  # says what is wrong with it
    return [path]


def _refuse_twice(folders: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if place in seen:
            raise DataError(
                f"{folder} was given twice (also as {seen[place]}): a run compared with itself shows nothing"
            )
        seen[place] = folder


def _refuse_same_label(label: str, folders: Sequence[Path], runs: Sequence[RunResults]) -> None:
    """Runs of one label are seeds of one method only where their seeds say so."""
    seeds = [run.run.get("seed") for run in runs]
    if None not in seeds and len(set(map(str, seeds))) == len(seeds):
        return
    listed = ", ".join(
        f"{folder} (seed {'not stated' if seed is None else seed})" for folder, seed in zip(folders, seeds, strict=True)
    )
    raise DataError(
        f"{len(runs)} runs are called {label!r}: {listed}. Name them apart, as in first={folders[0]} "
        f"second={folders[1]}, or say that they are seeds of one method, as in {label}={','.join(map(str, folders))}"
    )
