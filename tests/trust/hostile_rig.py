"""What the tests of hostile input share: a caller of the command in this process, tiny models, planted code, and a
census of files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from commands import OTHER, ROOT, TINY, WORDS, save_byte_model, write_rows

__all__ = ["ROOT", "TINY", "write_rows"]


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def invoke(*words: str) -> Done:
    """The command's own entry point in this process, its exit code and its two streams."""
    from innerlingua.cli import main

    # As a real stream, which takes no half of a surrogate pair.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: Any = 0
    with (
        mock.patch.object(sys, "argv", ["innerlingua", *words]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            code = left.code
    return Done(int(code or 0), *(stream.buffer.getvalue().decode() for stream in (out, err)))


def refused(done: Done, *says: str) -> None:
    """The command ended with one message that says this, and without a traceback."""
    assert done.code == 2, f"exit code {done.code}\n{done.out}\n{done.err}"
    assert "Traceback" not in done.err, done.err
    for words in says:
        assert words in done.err, done.err


class Planted:
    """An object whose pickle makes the folder `place` when it is read."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self._place,)


def plant(path: Path, place: Path, *, by_torch: bool) -> Path:
    """Write a file that makes the folder `place` when it is unpickled; `by_torch` as `torch.save` writes one."""
    import torch

    if by_torch:
        torch.save({"state": Planted(place), "weight": torch.ones(3)}, path)
    else:
        path.write_bytes(pickle.dumps(Planted(place)))
    return path


def pairs(count: int = 12) -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{number:03d}",
            "language": "swh_Latn",
            "prompt": f"{number} {OTHER[number % 10]}?",
            "completion": f" {OTHER[(number * 7 + 3) % 10]}",
            "anchor_prompt": f"{number} {WORDS[number % 10]}?",
            "anchor_completion": f" {WORDS[(number * 7 + 3) % 10]}",
        }
        for number in range(count)
    ]


def save_tiny(folder: Path) -> Path:
    """`folder/model`, a tiny random Qwen3-MoE with a byte tokenizer, and `folder/pairs.jsonl`."""
    save_byte_model(folder / "model")
    write_rows(folder / "pairs.jsonl", pairs())
    return folder


def save_replicates(folder: Path) -> None:
    """What the stored profiles of the report's tests lack: the replicates behind the intervals."""
    import torch
    from safetensors.torch import save_file

    from innerlingua.routing.profile.layout import MEASURES

    record = json.loads((folder / "profile.json").read_text())
    shape = (record["settings"]["bootstrap"], len(record["languages"]), len(record["model"]["layers"]))
    save_file({name: torch.rand(shape) for name in MEASURES}, folder / "replicates.safetensors")


def train_words(model: Path, rows: Path, output: Path, *more: str) -> list[str]:
    """`innerlingua train` of `recipes/tiny.yaml` for four steps, a checkpoint after the second."""
    return [
        *("train", str(TINY), "--model.path", str(model), "--data.train", str(rows)),
        *("--trainer.output-dir", str(output), "--trainer.max-steps", "4", "--trainer.save-steps", "2"),
        *("--trainer.disable-tqdm", *more),
    ]


def census(folder: Path) -> dict[str, bytes | str]:
    """Everything under `folder`: relative path -> content, or where a link leads."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "folder"
    return found


def texts_under(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()
