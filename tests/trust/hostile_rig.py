"""What the tests of hostile input share: a caller of the command in this process, tiny models, planted code, and a
census of files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"

WORDS = ["sun", "rain", "road", "house", "tree", "river", "bread", "milk", "night", "day"]
OTHER = ["jua", "mvua", "barabara", "nyumba", "mti", "mto", "mkate", "maziwa", "usiku", "siku"]


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


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def save_tiny(folder: Path) -> Path:
    """`folder/model`, a tiny random Qwen3-MoE with a byte tokenizer, and `folder/pairs.jsonl`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *alphabet])}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>")
    config = Qwen3MoeConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        moe_intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
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
