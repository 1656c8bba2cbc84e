"""Which models are evaluated: folders, names on the hub, adapters on either; and what tells that one has changed.

`MODEL+ADAPTER` is an adapter on a model; a folder with `adapter_config.json` alone is an adapter on the model that it
names. A local model is told by a digest of its files: configuration, tokenizer and template whole, weights by a fixed
sample of their bytes, since training moves them all and reading 60 GB takes minutes. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import xxhash

from innerlingua.errors import DataError, ModelError
from innerlingua.weights import refuse_unsafe_weights

__all__ = ["ModelSpec", "digest", "identity", "lora_rank", "read_models"]

_ADAPTER: Final = "adapter_config.json"
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".gguf")
_SMALL: Final = (".json", ".jinja", ".model", ".txt")
# What a trainer leaves beside a model and what does not change its answers.
_BESIDE: Final = ("trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pt")
_RANKS: Final = (16, 32, 64, 128, 256, 320, 512)
_BLOCKS: Final = 256
_BLOCK: Final = 4096


@dataclass(frozen=True)
class ModelSpec:
    """One model to evaluate: where it is, and what its results are called."""

    given: str
    path: str
    adapter: str | None
    revision: str | None
    label: str
    seed: int | None

    @property
    def local(self) -> bool:
        """Whether it is a folder here."""
        return Path(self.path).is_dir()

    @property
    def tokenizer(self) -> str:
        """Where its tokenizer is: with the adapter where that has one."""
        if self.adapter is not None and (Path(self.adapter) / "tokenizer_config.json").is_file():
            return self.adapter
        return self.path


def read_models(
    given: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    revision: str | None = None,
) -> list[ModelSpec]:
    """The models that a user named, checked as far as they are here.

    Args:
        given: folders, names on the hub, `MODEL+ADAPTER`.
        labels: what their results are called, one each; the folder's name unless given.
        seeds: the seeds that they were trained with, one each.
        revision: of models of the hub.

    Raises:
        ModelError: no such folder, no model in it, an adapter whose base is missing.
        DataError: labels that repeat or cannot name a folder, or another number of labels or seeds than of models.
    """
    for what, values in (("--label", labels), ("--seed", seeds)):
        if values is not None and len(values) != len(given):
            raise DataError(f"{what}: {len(values)} given for {len(given)} models; give one for each, in their order")
    places = [_place(name) for name in given]
    for path, _ in places:
        if revision is not None and Path(path).is_dir():
            raise ModelError(f"--revision {revision}: {path} is a folder; a revision is of a model of the hub")
    named = list(labels) if labels is not None else [_label(path, adapter) for path, adapter in places]
    for label in named:
        if not label or label in (".", "..") or any(character in label for character in "/\\") or label.startswith("."):
            raise DataError(f"--label {label!r}: a label names a folder of results; it has no slash and no leading dot")
        if named.count(label) > 1:
            raise DataError(f"two models are called {label!r}; tell their results apart with --label, one for each")
    return [
        ModelSpec(name, path, adapter, revision, label, None if seeds is None else seeds[index])
        for index, (name, (path, adapter), label) in enumerate(zip(given, places, named, strict=True))
    ]


def identity(spec: ModelSpec, *, commit: str | None) -> dict[str, Any]:
    """What `run.json` says of a model: its path, revision, adapter, and the digest or commit that tells a change."""
    return {
        "path": spec.path,
        "revision": spec.revision,
        "commit": commit,
        "digest": digest(Path(spec.path)) if spec.local else None,
        "adapter": spec.adapter,
        "adapter_digest": digest(Path(spec.adapter)) if spec.adapter and Path(spec.adapter).is_dir() else None,
    }


def lora_rank(spec: ModelSpec) -> int:
    """The rank that vLLM must have room for: the least that it knows which holds the adapter's; 16 where unknown."""
    config = Path(spec.adapter or "") / _ADAPTER
    if spec.adapter is None or not config.is_file():
        return _RANKS[0]
    record = json.loads(config.read_text(encoding="utf-8"))
    rank = max([record.get("r", 0), *record.get("rank_pattern", {}).values()])
    return next((room for room in _RANKS if room >= rank), _RANKS[-1])


def digest(folder: Path) -> str:
    """A digest of the files of a model: small ones whole, weights by 256 blocks of 4 KiB, evenly spaced."""
    state = xxhash.xxh3_128()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name in _BESIDE or path.suffix not in (*_WEIGHTS, *_SMALL):
            continue
        size = path.stat().st_size
        state.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as stream:
            if path.suffix in _SMALL or size <= _BLOCKS * _BLOCK:
                state.update(stream.read())
                continue
            for block in range(_BLOCKS):
                stream.seek(block * (size - _BLOCK) // (_BLOCKS - 1))
                state.update(stream.read(_BLOCK))
    return state.hexdigest()


def _place(given: str) -> tuple[str, str | None]:
    """(path of the model, path of the adapter) of what a user wrote."""
    if not given.strip() or given.endswith("+") or given.startswith("+"):
        raise ModelError(f"{given!r} names no model; it is a folder, owner/name, or MODEL+ADAPTER")
    path = Path(given).expanduser()
    if path.is_dir():
        if (path / "config.json").is_file():
            _check_weights(path)
            return str(path), None
        if (path / _ADAPTER).is_file():
            refuse_unsafe_weights(path, given)
            return _base_of(path), str(path)
        raise ModelError(f"{given}: no model in this folder (neither config.json nor {_ADAPTER}){_inside(path)}")
    if "+" in given:
        base, _, adapter = given.rpartition("+")
        folder = Path(adapter).expanduser()
        if folder.is_dir() and not (folder / _ADAPTER).is_file():
            raise ModelError(f"{adapter}: no adapter in this folder (no {_ADAPTER})")
        if not folder.is_dir() and not _hub_name(adapter):
            raise ModelError(f"{adapter}: no such folder; an adapter is a folder with {_ADAPTER}, or owner/name")
        if folder.is_dir():
            refuse_unsafe_weights(folder, adapter)
        found, own = _place(base)
        if own is not None:
            raise ModelError(f"{base}: an adapter, where the model itself belongs: MODEL+ADAPTER")
        return found, str(folder) if folder.is_dir() else adapter
    if not _hub_name(given):
        raise ModelError(f"{given}: there is no such folder, and it is no name on the hub (owner/name)")
    return given, None


def _hub_name(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") == 1 and all(name.split("/"))


def _base_of(adapter: Path) -> str:
    try:
        base = json.loads((adapter / _ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{adapter / _ADAPTER} cannot be read ({error!r})") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"{adapter}: the adapter does not name its model; write MODEL+{adapter}")
    if not Path(base).is_dir() and not _hub_name(base):
        raise ModelError(f"{adapter}: its model {base} is not here; say where it is: MODEL+{adapter}")
    if Path(base).is_dir() and not (Path(base) / "config.json").is_file():
        raise ModelError(f"{adapter}: its model {base} is no model (no config.json); say where it is: MODEL+{adapter}")
    if Path(base).is_dir():
        _check_weights(Path(base))
    return base


def _check_weights(folder: Path) -> None:
    refuse_unsafe_weights(folder, str(folder))
    if not any(path.suffix == ".safetensors" for path in folder.iterdir()):
        raise ModelError(f"{folder}: a configuration, but no weights (.safetensors){_inside(folder)}")


def _inside(folder: Path) -> str:
    """A hint: the models in folders inside."""
    names = [child for child in sorted(folder.iterdir()) if (child / "config.json").is_file()]
    names += [child for child in sorted(folder.iterdir()) if (child / _ADAPTER).is_file() and child not in names]
    return f"; there are models in it: {', '.join(map(str, names[:5]))}" if names else ""


def _label(path: str, adapter: str | None) -> str:
    """The folder's name; of a trainer's checkpoint, with the run's name before it."""
    name = Path(adapter or path).resolve() if Path(adapter or path).is_dir() else Path(adapter or path)
    if name.name.startswith("checkpoint-"):
        return f"{name.parent.name}-{name.name}"
    return name.name
