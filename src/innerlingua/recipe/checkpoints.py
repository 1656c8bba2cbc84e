"""Which checkpoint of a run can be continued. Imports no torch, and unpickles nothing.

The trainer writes a checkpoint file by file, `trainer_state.json` last, so a run that is killed leaves one that lacks
it. A disk that runs full, or a copy that is cut off, also leaves files that are there and are not whole. So each file
is held against what its own format says of it: the header of a safetensors file names the last byte, and the zip
archive that `torch.save` writes ends with a table of its parts, so that neither is read to tell that it is cut short.

The archive also has a checksum of each part. For these the optimiser's state must be read, which is twice the size of
the weights; that is done for a checkpoint that is to be resumed (`last_checkpoint`). A run that ends says what it
leaves (`left`) without: within the seconds that a SIGTERM gives it, and of files that it wrote to their end, or read
when it was resumed.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from innerlingua.errors import RecipeError

__all__ = ["flaw_of", "last_checkpoint", "left", "newest_whole", "unfinished", "unseal_later"]

_STATE = "trainer_state.json"
_STATE_KEYS = frozenset({"epoch", "global_step", "log_history", "max_steps"})
_HEADER_LIMIT = 100_000_000  # bytes; what the safetensors library itself reads at most
# Plain and DDP; FSDP with full and with sharded state; DeepSpeed, whose `latest` names a folder with everything.
_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "pytorch_model.bin"),
    *("pytorch_model_fsdp.bin", "pytorch_model_fsdp_0", "latest"),
)
_OPTIMIZER = ("optimizer.pt", "optimizer.bin", "optimizer_0", "latest")
_UNREAD = frozenset({"training_args.bin"})


def last_checkpoint(folder: Path, say: Callable[[str], None] = print) -> Path:
    """The latest checkpoint in `folder` that is whole, read through; says which later ones are passed over, and why.

    Raises `RecipeError` when there is none, or a file bears the name of one.
    """
    flaws: list[str] = []
    for _, path in _by_step(folder):
        if not path.is_dir():
            raise RecipeError(f"--resume: {path} is a file where the run keeps a folder: move it away")
    for step, path in _by_step(folder):
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


def newest_whole(folder: Path) -> Path | None:
    """The latest checkpoint in `folder` that is whole by the lengths of its files, None where there is none."""
    return next((path for step, path in _by_step(folder) if flaw_of(path, step, read=False) is None), None)


def left(folder: Path, *, weights_only: bool, whole: str, none: str) -> str:
    """What a run that ended early has left in `folder`, in one sentence: its latest checkpoint, which `whole` goes on
    to tell about, or `none`. With `weights_only` (`trainer.save_only_model`) no checkpoint can be resumed.
    """
    newest = newest_whole(folder)
    if newest is not None:
        return f"{newest} {whole}"
    if weights_only and any(folder.glob("checkpoint-*")):
        return f"With trainer.save_only_model no checkpoint can be resumed; the weights that were saved are in {folder}"
    return none


def unfinished(folder: Path, *, weights_only: bool = False) -> list[Path]:
    """The folders of checkpoints in `folder` that are not whole and come after the latest that is.

    With `weights_only` (`trainer.save_only_model`) no checkpoint could be resumed, and those count that lack the state
    file, which is written last.
    """
    if weights_only:
        return [path for _, path in _by_step(folder) if path.is_dir() and not isinstance(_json(path / _STATE), dict)]
    found = []
    for step, path in _by_step(folder):
        if path.is_dir() and flaw_of(path, step, read=False) is None:
            break
        found.append(path)
    return [path for path in found if path.is_dir()]


def unseal_later(checkpoint: Path) -> None:
    """Take the state file, which is written last, out of all checkpoints after this one: none of them was whole.

    The run that goes on will write them anew, file by file. Killed at that, it would leave files of two attempts, and
    the old state file would pass them for one.
    """
    for _, path in _by_step(checkpoint.parent):
        if path == checkpoint:
            return
        if path.is_dir():
            (path / _STATE).unlink(missing_ok=True)


def _by_step(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in `folder` with their steps, the latest first."""
    matches = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in folder.glob("checkpoint-*"))
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def flaw_of(checkpoint: Path, step: int, *, read: bool = True) -> str | None:
    """What keeps `checkpoint` from being continued at `step`, in words; None when it is whole.

    Without `read`, files are held against their lengths alone, and not against their checksums.
    """
    state = _json(checkpoint / _STATE)
    if not isinstance(state, dict):
        return f"{_STATE} is {'missing' if state is None else 'cut short'}"
    if state.get("global_step") != step:
        return f"{_STATE} says step {state.get('global_step')}"
    absent = sorted(_STATE_KEYS - state.keys())
    if absent:
        return f"{_STATE} lacks {absent[0]}, so the trainer did not write it"
    names = {path.name for path in checkpoint.iterdir()}
    for wanted, words in ((_WEIGHTS, "the weights are"), (_OPTIMIZER, "the optimiser's state is")):
        if names.isdisjoint(wanted):
            return f"{words} missing"
    if "config.json" not in names and any(name.startswith("model.safetensors") for name in names):
        return "config.json is missing"  # the weights are loaded by it
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
            if path.is_file() and path.name not in _UNREAD and not _whole(path, read=read)
        ),
        None,
    )


def _missing_part(checkpoint: Path) -> str | None:
    """A file or folder that another one of the checkpoint names."""
    index = _json(checkpoint / "model.safetensors.index.json")
    if index is not None:
        shards = index.get("weight_map") if isinstance(index, dict) else None
        names = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
        absent = sorted(name for name in names if not _is_there(checkpoint / name))
        if absent:
            return f"{absent[0]} is missing"
    for sharded in (*checkpoint.glob("pytorch_model_fsdp_*"), *checkpoint.glob("optimizer_*")):
        if sharded.is_dir() and not (sharded / ".metadata").is_file():  # written last
            return f"{sharded.name}/.metadata is missing"
    latest = checkpoint / "latest"
    if latest.is_file():
        named = latest.read_text(encoding="utf-8", errors="replace").strip()
        if not named or not _is_there(checkpoint / named):
            return f"the folder {named or 'that latest should name'} is missing"
    return None


def _is_there(path: Path) -> bool:
    """Whether something is at `path`; a name that no file can have is that of nothing."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _whole(path: Path, *, read: bool) -> bool:
    if path.suffix == ".safetensors":
        return _whole_safetensors(path)
    if path.suffix in (".pt", ".pth", ".bin"):
        try:
            with zipfile.ZipFile(path) as archive:
                return not read or archive.testzip() is None  # torch writes a checksum of each part
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, zlib.error, struct.error):
            return False  # what is damaged decides which
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False


_BROKEN = object()


def _json(path: Path) -> Any:
    """What the JSON file `path` holds; None when there is no such file, `_BROKEN` when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return _BROKEN
