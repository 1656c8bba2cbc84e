"""A profile on disk, read without torch: a folder that is whole when its `profile.json` is there.

    DIR/
        profile.safetensors     mean, load
        replicates.safetensors  one tensor per measure
        samples.json            pairs kept whole
        profile.json            everything else; written last

What the files hold is described in docs/profile.md and checked by `layout`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from innerlingua.errors import DataError
from innerlingua.routing.profile.layout import check_record, check_samples

__all__ = [
    "RECORD",
    "REPLICATES",
    "SAMPLES",
    "TENSORS",
    "check_folder",
    "read_arrays",
    "read_distributions",
    "read_record",
    "read_samples",
]

RECORD: Final = "profile.json"
TENSORS: Final = "profile.safetensors"
REPLICATES: Final = "replicates.safetensors"
SAMPLES: Final = "samples.json"

_OWN = (RECORD, TENSORS, REPLICATES, SAMPLES)  # also as temporary files, .profile.json.1234

Array = NDArray[np.float32]


def check_folder(folder: str | Path, *, overwrite: bool) -> Path:
    """`folder`, if a profile may be written there; to be asked before the long work.

    Raises `DataError` for a file, for a folder that holds other files or (unless `overwrite`) a profile, and for a
    place where nothing can be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; name a folder for the profile")
    if (folder / RECORD).exists() and not overwrite:
        raise DataError(f"{folder} holds a profile already: replace it with --overwrite, or name another folder")
    if folder.is_dir() and not (folder / RECORD).exists():
        # The files of a profile without its record are what a killed writing leaves, and may be replaced.
        others = sorted(entry.name for entry in folder.iterdir() if not entry.name.lstrip(".").startswith(_OWN))
        if others:
            raise DataError(
                f"{folder} holds other files ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}); name a new "
                "folder for the profile"
            )
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise DataError(f"no profile can be written to {folder}: {existing}: {error.strerror or error}") from error
    return folder


def read_record(folder: str | Path) -> dict[str, Any]:
    """`profile.json` of the profile in `folder` alone; errors as `read_profile`."""
    path = Path(folder) / RECORD
    if not path.is_file():
        what = "no routing profile in it" if path.parent.is_dir() else "no such folder"
        raise DataError(
            f"{folder}: {what}. `innerlingua routing profile MODEL --pairs FILE -o DIR` makes one; one that was "
            f"interrupted has no {RECORD}, make it again"
        )
    record: dict[str, Any] = _json(path)
    check_record(record, path)
    return record


def read_distributions(folder: str | Path, record: Mapping[str, Any]) -> tuple[Array, Array]:
    """Mean routing and load, (languages, layers, experts), of the profile in `folder` whose `record` was read."""
    shape = (len(record["languages"]), len(record["model"]["layers"]), record["model"]["experts"])
    tensors = read_arrays(Path(folder) / TENSORS, dict.fromkeys(("mean", "load"), shape))
    return tensors["mean"], tensors["load"]


def read_samples(folder: str | Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sentence pairs of the profile in `folder` whose `record` was read; none where the file is missing."""
    path = Path(folder) / SAMPLES
    return check_samples(_json(path), path, record) if path.is_file() else []


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, of a number
        raise DataError(f"{path} is damaged ({error}). Make the profile anew.") from error


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def read_arrays(path: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The arrays in the safetensors file `path`, float32, each of its expected shape; others are not asked for."""
    if not path.is_file():
        raise DataError(f"{path} is missing beside {RECORD}. Make the profile anew.")
    try:
        tensors: dict[str, Array] = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is damaged ({error}). Make the profile anew.") from error
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        if found != shape:
            raise DataError(f"{path}: {name} should be {shape} and is {found}. Make the profile anew.")
    return tensors
