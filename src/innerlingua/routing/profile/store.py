"""A whole profile to and from a folder, with its tensors as torch's. What needs no torch is in `stored`.

Each file is written to a temporary name and renamed; `profile.json` of an earlier profile in the folder is removed
first and written last, so that the files of two never pass for one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from innerlingua.routing.profile.layout import MEASURES
from innerlingua.routing.profile.stored import (
    RECORD,
    REPLICATES,
    SAMPLES,
    TENSORS,
    read_arrays,
    read_distributions,
    read_record,
    read_samples,
)
from innerlingua.routing.profile.stream import RoutingProfile

__all__ = ["read_profile", "write_profile"]


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
    """The profile in `folder`. Raises `DataError` when there is none, or when it is damaged or of another schema."""
    folder = Path(folder)
    record = read_record(folder)
    mean, load = (torch.from_numpy(values) for values in read_distributions(folder, record))
    draws = (record["settings"]["bootstrap"], len(record["languages"]), len(record["model"]["layers"]))
    replicates = read_arrays(folder / REPLICATES, dict.fromkeys(MEASURES, draws))
    tensors = {name: torch.from_numpy(values) for name, values in replicates.items()}
    return RoutingProfile(record, mean, load, tensors, read_samples(folder, record))


def _write_json(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
