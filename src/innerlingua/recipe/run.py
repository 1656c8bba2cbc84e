"""The folder of a run: what it holds, who may write into it, and where a killed run goes on.

    <output_dir>/
        recipe.resolved.yaml    every key of the recipe, ours and the machine's included
        run.json                what a resumed run must match (prior, rows, number of processes), the files it wrote
        prior/                  the routing prior
        checkpoint-N/           the trainer's resume state
        evaluation/             what benchmarks along the training gave
        train_result.json       counts and final metrics; written last, so a run that has it is complete
        model files, tokenizer

Files are written to a temporary name and renamed. `checkpoints.py` says which checkpoint counts, `drift.py` what must
match. Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from innerlingua.errors import RecipeError
from innerlingua.evaluation.store import clear_history
from innerlingua.recipe.loading import to_yaml
from innerlingua.recipe.schema import Recipe
from innerlingua.recipe.writable import check_writable

__all__ = [
    "CARD",
    "PRIOR",
    "RECIPE",
    "RECORD",
    "RESULT",
    "check_folder",
    "check_prior_folder",
    "clear_folder",
    "held",
    "read_record",
    "record_files",
    "write_json",
    "write_recipe",
]

RECIPE, RECORD, RESULT, PRIOR = "recipe.resolved.yaml", "run.json", "train_result.json", "prior"
CARD = "README.md"  # the model card that TRL writes beside its checkpoints
_EVALUATION = "evaluation"

_TEMPORARY = re.compile(
    r"\.(saving|prior\.(\d+|old|partial)|(recipe\.resolved\.yaml|run\.json|train_result\.json)\.\d+)$"
)


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise `RecipeError` when `folder` holds something that the run was not asked to touch. Changes nothing.

    A new run takes an empty folder or one with nothing but a prior; `resume` and `overwrite` take one that a run wrote.
    """
    if resume and overwrite:
        raise RecipeError(
            "--resume and --overwrite contradict each other: one continues the run, the other replaces it"
        )
    _check_place(folder)
    names = held(folder)
    is_run = RECORD in names
    if resume:
        if not is_run:
            raise RecipeError(f"--resume: {folder} holds no run of innerlingua train; leave --resume out to start one")
        if RESULT in names:
            raise RecipeError(f"--resume: the run in {folder} is finished; there is nothing to resume")
        if RECIPE not in names:
            raise RecipeError(
                f"--resume: the run in {folder} was ended before its first step ({RECIPE} is missing), so there is "
                "nothing to resume; start again with --overwrite"
            )
        return
    if not names:
        return
    if not is_run:
        raise RecipeError(
            f"trainer.output_dir: {folder} holds files of something else ({', '.join(names[:3])}); name another folder"
        )
    if not overwrite:
        finished = RESULT in names
        state = "a finished run. Replace it" if finished else "an unfinished run. Continue it with --resume, replace it"
        raise RecipeError(
            f"trainer.output_dir: {folder} holds {state} with --overwrite, or name another folder by "
            "--trainer.output-dir"
        )


def check_prior_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise `RecipeError` when a prior cannot be put into `folder`, or would take the place of a run's own."""
    _check_place(folder)
    is_run = (folder / RECORD).exists() and (folder / PRIOR).exists()
    if overwrite and is_run and read_record(folder).get("prior") is not None:
        raise RecipeError(
            f"--overwrite: {folder} holds a run that was trained towards the prior in it, which would then be another. "
            "Name another folder by --trainer.output-dir, or start the run anew by `innerlingua train RECIPE "
            "--overwrite`, which replaces its prior when it is out of date"
        )


def _check_place(folder: Path) -> None:
    if folder.is_file():
        raise RecipeError(f"trainer.output_dir: {folder} is a file; name a folder")
    check_writable(folder, "trainer.output_dir")
    prior = folder / PRIOR
    if (prior.exists() or prior.is_symlink()) and not prior.is_dir():
        raise RecipeError(
            f"trainer.output_dir: {prior} is a file where the routing prior has its folder: move it away, or name "
            "another folder by --trainer.output-dir"
        )


def held(folder: Path) -> list[str]:
    """What `folder` holds beside a prior and what a killed write of ours left, sorted."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return [name for name in names if name != PRIOR and not _TEMPORARY.match(name)]


def clear_folder(folder: Path) -> None:
    """Remove what an earlier run recorded as its own in `folder`, file by file and nothing else. The prior stays.

    Of `evaluation/`, too, only what a training's history tells of is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(folder.iterdir()):
        if _TEMPORARY.match(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not (folder / RECORD).exists():
        return
    for path in folder.glob("checkpoint-*"):
        if re.fullmatch(r"checkpoint-\d+", path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    clear_history(folder / _EVALUATION)
    # The record goes last: a removal that is cut short leaves a folder that is still known as a run's.
    written = _listed(read_record(folder), "files")
    for name in [*(name for name in written if _is_own(folder, name)), RESULT, RECIPE, RECORD]:
        (folder / name).unlink(missing_ok=True)


def _is_own(folder: Path, name: str) -> bool:
    """Whether a recorded name is that of a file in the folder itself, and of no other place."""
    return "\0" not in name and Path(name).name == name and not (folder / name).is_dir()


def record_files(folder: Path, names: Iterable[str]) -> None:
    """Add `names` to the files that the run in `folder` calls its own. Called before they are written."""
    record = read_record(folder)
    write_json(folder / RECORD, {**record, "files": sorted({*_listed(record, "files"), *names})})


def _listed(record: Mapping[str, Any], key: str) -> list[str]:
    """The names that a record lists under `key`; none where it lists something else."""
    given = record.get(key)
    return [name for name in given if isinstance(name, str)] if isinstance(given, list) else []


def read_record(folder: Path) -> dict[str, Any]:
    """What the run in `folder` recorded at its start. Raises `RecipeError` when the record is damaged."""
    record = read_json(folder / RECORD)
    if not _are_sources(record.get("sources", {})):
        raise RecipeError(
            f"{folder / RECORD}: its entry sources is not what a run writes; the run in this folder is damaged"
        )
    return record


def _are_sources(value: Any) -> bool:
    """Whether `value` has the shape that `recipe.drift.sources` gives, section by section."""
    if not isinstance(value, dict):
        return False
    kinds = {"file": str, "bytes": int, "sha256": str}
    return all(
        isinstance(section, dict)
        and isinstance(section.get("rows"), int)
        and isinstance(section.get("files"), list)
        and all(
            isinstance(file, dict) and all(isinstance(file.get(key), kind) for key, kind in kinds.items())
            for file in section["files"]
        )
        for section in value.values()
    )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises `RecipeError` when it is something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); the run in this folder is damaged") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: is not a JSON object; the run in this folder is damaged")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as JSON, whole or not at all."""
    _write(path, json.dumps(dict(values), ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe into `folder`, whole or not at all. It reads back as a recipe."""
    _write(folder / RECIPE, to_yaml(recipe.values()))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # JSON writes halves of surrogate pairs in this way.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
