"""What tests share that run the real command: its recipe, its environment, two processes, words, and tiny files."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "tiny.yaml"

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
}

TWO_PROCESSES = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",  # MULTI_CPU starts one process; this and `use_cpu` start two on the CPU
    "use_cpu": True,
    "num_processes": 2,
    "num_machines": 1,
    "machine_rank": 0,
    "mixed_precision": "no",
    "main_process_port": 0,
    "rdzv_backend": "static",
}
"""A configuration of `accelerate launch`."""

# `python` imports this by itself before anything else. Opening, renaming, making and removing files raises an event
# before it happens.
KILL = """
import os, signal, sys

wanted, needle = os.environ["KILL_AT"].split("|")

def look(event, arguments):
    if event == wanted and any(needle in str(argument) for argument in arguments):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(look)
"""

WORDS = ["sun", "rain", "road", "house", "tree", "river", "bread", "milk", "night", "day"]
OTHER = ["jua", "mvua", "barabara", "nyumba", "mti", "mto", "mkate", "maziwa", "usiku", "siku"]


def pair_of(number: int) -> dict[str, Any]:
    """A pair of one to eight words, whose text no other number has."""
    length = 1 + (number * 5) % 8
    target, anchor = (
        " ".join(words[(number * 7 + 3 * word) % 10] for word in range(length)) for words in (OTHER, WORDS)
    )
    row = {"id": f"p{number:03d}", "language": "swh_Latn", "prompt": f"{number}?", "completion": f" {target}"}
    return row | {"anchor_prompt": f"{number}?", "anchor_completion": f" {anchor}"}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_launch(path: Path) -> Path:
    """`TWO_PROCESSES` as the file that `accelerate launch --config_file` reads."""
    path.write_text(json.dumps(TWO_PROCESSES), encoding="utf-8")
    return path


def killed_at(folder: Path, event: str, needle: str) -> dict[str, str]:
    """What to add to the environment of a process that is to get SIGKILL just before the `event` (`open`, `os.mkdir`,
    `os.rename`) on a path that contains `needle`: the same moment on any machine. `folder` holds what it needs."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(KILL)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "KILL_AT": f"{event}|{needle}"}


def save_byte_model(folder: Path, **changes: Any) -> Path:
    """A tiny random Qwen3-MoE of three layers with a tokenizer of bytes; `changes` of its configuration."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *alphabet])}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>")
    settings = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "intermediate_size": 32,
        "moe_intermediate_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**settings | changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Inside, the system refuses to make a file larger than `size` bytes (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
