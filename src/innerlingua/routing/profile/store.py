"""A profile on disk: a folder that is whole when its `profile.json` is there.

    DIR/
        profile.safetensors     mean, load
        replicates.safetensors  one tensor per measure
        samples.json            pairs kept whole
        profile.json            everything else; written last

What the files hold is described in docs/profile.md. Each file is written to a temporary name and renamed;
`profile.json` of an earlier profile in the folder is removed first, so that the files of two never pass for one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from innerlingua.errors import DataError
from innerlingua.routing.profile.stream import SCHEMA, RoutingProfile

__all__ = ["RECORD", "REPLICATES", "SAMPLES", "TENSORS", "check_folder", "read_profile", "read_record", "write_profile"]

RECORD: Final = "profile.json"
TENSORS: Final = "profile.safetensors"
REPLICATES: Final = "replicates.safetensors"
SAMPLES: Final = "samples.json"


def check_folder(folder: str | Path, *, overwrite: bool) -> Path:
    """`folder`, if a profile may be written there. Raises `DataError` for a file, other files, or a profile in the
    way."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; name a folder for the profile")
    if (folder / RECORD).exists() and not overwrite:
        raise DataError(f"{folder} holds a profile already: replace it with --overwrite, or name another folder")
    return folder


def write_profile(profile: RoutingProfile, folder: str | Path) -> Path:
    """Write `profile` into `folder`, replacing one that is there, and return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    temporary = folder / f".{TENSORS}.{os.getpid()}"
    save_file({"mean": profile.mean, "load": profile.load}, temporary)
    os.replace(temporary, folder / TENSORS)
    temporary = folder / f".{REPLICATES}.{os.getpid()}"
    save_file(profile.replicates, temporary)
    os.replace(temporary, folder / REPLICATES)
    _write_json(folder / SAMPLES, {"pairs": profile.samples})
    _write_json(folder / RECORD, profile.record)
    return folder


def read_profile(folder: str | Path) -> RoutingProfile:
    """The profile in `folder`. Raises `DataError` when there is none, or when it is damaged or of a newer schema."""
    folder = Path(folder)
    record = read_record(folder)
    try:
        tensors = load_file(folder / TENSORS)
        replicates = load_file(folder / REPLICATES)
        samples = json.loads((folder / SAMPLES).read_text(encoding="utf-8"))["pairs"]
        expected = (len(record["languages"]), len(record["model"]["layers"]), record["model"]["experts"])
        whole = tensors["mean"].shape == expected and tensors["load"].shape == expected
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"the profile in {folder} is damaged ({error}): make it anew") from error
    if not whole:
        raise DataError(f"the profile in {folder} is damaged (its files do not belong together): make it anew")
    return RoutingProfile(record, tensors["mean"], tensors["load"], replicates, samples)


def read_record(folder: str | Path) -> dict[str, Any]:
    """`profile.json` of the profile in `folder` alone; errors as `read_profile`."""
    path = Path(folder) / RECORD
    if not path.is_file():
        what = "no such folder" if not path.parent.is_dir() else "no routing profile in it"
        raise DataError(f"{folder}: {what}; `innerlingua routing profile MODEL --pairs FILE -o {folder}` makes one")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema = record["schema"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): make the profile anew") from error
    if schema != SCHEMA:
        raise DataError(f"{path} has schema {schema}, and this version reads {SCHEMA}: make the profile anew")
    assert isinstance(record, dict)
    return record


def _write_json(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
