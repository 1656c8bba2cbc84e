"""Which files of a model's folder may be read as weights: safetensors, and nothing that can run code. Imports no torch.

What `torch.save` writes is a pickle, a program for rebuilding objects. Today's loaders refuse most of what such a
program could do; a format that holds numbers alone leaves nothing to refuse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from innerlingua.errors import ModelError

__all__ = ["refuse_unsafe_weights"]

_INDEX: Final = "model.safetensors.index.json"
_PICKLED: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# What a trainer leaves beside a model; none of them is read as weights.
_BESIDE: Final = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt")


def refuse_unsafe_weights(folder: Path, where: str) -> None:
    """Raise `ModelError` for a folder whose weights are pickled, or whose index names files outside of it.

    Args:
        folder: of a model or an adapter; one without any weights passes, and its loader says so.
        where: what the message begins with, such as `model.path: models/base`.
    """
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    if any(name.endswith(".safetensors") for name in files):
        _refuse_index(folder / _INDEX, where)
        return
    pickled = [
        name for name in files if name.endswith(_PICKLED) and name not in _BESIDE and not name.startswith("rng_state")
    ]
    if pickled:
        raise ModelError(
            f"{where}: its weights are pickled ({pickled[0]}), and a pickle can run code when it is read, so only "
            "safetensors are read here. Convert it once, if you trust where it comes from: from_pretrained(FOLDER) and "
            "save_pretrained(ANOTHER) of transformers or peft write safetensors; save the tokenizer there, too"
        )


def _refuse_index(index: Path, where: str) -> None:
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{where}: {index.name} is damaged ({error!r}); take the whole checkpoint") from error
    for name in listed:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{where}: {index.name} names {name!r} as a file of weights; it may name safetensors files beside it "
                "and nothing else"
            )
