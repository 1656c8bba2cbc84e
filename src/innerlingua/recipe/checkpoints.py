"""Which checkpoint of a run can be continued. Imports no torch, and unpickles nothing.

The trainer writes a checkpoint file by file, `trainer_state.json` last, so a run that is killed leaves one that lacks
it. A disk that runs full, or a copy that is cut off, also leaves files that are there and are not whole. So each file
is held against what its own format says of its length: the header of a safetensors file names the last byte, and the
zip archive that `torch.save` writes has its table at the end. No content is read, so a large model costs nothing.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from innerlingua.errors import RecipeError

__all__ = ["flaw_of", "last_checkpoint"]

_STATE = "trainer_state.json"
_HEADER_LIMIT = 100_000_000  # bytes; what the safetensors library itself reads at most
# Plain and DDP; FSDP with full and with sharded state; DeepSpeed, whose `latest` names a folder with everything.
_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "pytorch_model.bin"),
    *("pytorch_model_fsdp.bin", "pytorch_model_fsdp_0", "latest"),
)
_OPTIMIZER = ("optimizer.pt", "optimizer.bin", "optimizer_0", "latest")
_UNREAD = frozenset({"training_args.bin"})


def last_checkpoint(folder: Path, say: Callable[[str], None] = print) -> Path:
    """The latest checkpoint in `folder` that is whole; says which later ones are passed over, and why.

    Raises `RecipeError` when there is none.
    """
    found = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := _numbered(path))]
    flaws: list[str] = []
    for step, path in sorted(found, reverse=True):
        flaw = flaw_of(path, step)
        if flaw is None:
            for text in flaws:
                say(f"passed over: {text}")
            return path
        flaws.append(f"{path.name}, where {flaw}")
    broken = f" (passed over: {'; '.join(flaws)})" if flaws else ""
    raise RecipeError(
        f"--resume: {folder} holds no whole checkpoint, so there is nothing to resume{broken}; start again with "
        "--overwrite. (trainer.save_steps says how often one is written; with trainer.save_only_model none can be "
        "resumed)"
    )


def _numbered(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"checkpoint-(\d+)", path.name)


def flaw_of(checkpoint: Path, step: int) -> str | None:
    """What keeps `checkpoint` from being continued at `step`, in words; None when it is whole."""
    state = _json(checkpoint / _STATE)
    if not isinstance(state, dict):
        return f"{_STATE} is {'missing' if state is None else 'cut short'}"
    if state.get("global_step") != step:
        return f"{_STATE} says step {state.get('global_step')}"
    names = {path.name for path in checkpoint.iterdir()}
    for wanted, words in ((_WEIGHTS, "the weights are"), (_OPTIMIZER, "the optimiser's state is")):
        if names.isdisjoint(wanted):
            return f"{words} missing"
    if "scheduler.pt" not in names and "latest" not in names:
        return (
            "scheduler.pt is missing"  # without it transformers leaves out the optimiser's state, too, and says nothing
        )
    if not any(re.fullmatch(r"rng_state(_\d+)?\.pth", name) for name in names):
        return "rng_state.pth is missing"
    return _missing_part(checkpoint) or next(
        (
            f"{path.relative_to(checkpoint)} is cut short or damaged"
            for path in sorted(checkpoint.rglob("*"))
            if path.is_file() and path.name not in _UNREAD and not _whole(path)
        ),
        None,
    )


def _missing_part(checkpoint: Path) -> str | None:
    """A file or folder that another one of the checkpoint names."""
    index = _json(checkpoint / "model.safetensors.index.json")
    if index is not None:
        shards = index.get("weight_map", {}).values() if isinstance(index, dict) else []
        absent = sorted({str(name) for name in shards if not (checkpoint / str(name)).is_file()})
        if absent:
            return f"{absent[0]} is missing"
    for sharded in (*checkpoint.glob("pytorch_model_fsdp_*"), *checkpoint.glob("optimizer_*")):
        if sharded.is_dir() and not (sharded / ".metadata").is_file():  # written last
            return f"{sharded.name}/.metadata is missing"
    latest = checkpoint / "latest"
    if latest.is_file():
        named = latest.read_text(encoding="utf-8", errors="replace").strip()
        if not named or not (checkpoint / named).is_dir():
            return f"the folder {named or 'that latest should name'} is missing"
    return None


def _whole(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return _whole_safetensors(path)
    if path.suffix in (".pt", ".pth", ".bin"):
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None  # torch writes a checksum of each part
        except (zipfile.BadZipFile, OSError):
            return False
    return path.suffix != ".json" or _json(path) not in (None, _BROKEN)


def _whole_safetensors(path: Path) -> bool:
    """Layout: 8 bytes with the header's length, the header in JSON, and the tensors at the offsets that it names."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= _HEADER_LIMIT:
                return False
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return path.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False


_BROKEN = object()


def _json(path: Path) -> Any:
    """What the JSON file `path` holds; None when there is no such file, `_BROKEN` when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return _BROKEN
