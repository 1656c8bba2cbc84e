"""Trajectories through the real command: a small world on disk, runs of it, and how far two of them lie apart.

A run is `innerlingua train recipe.yaml` in a process of its own, or two processes under `accelerate launch`. Of every
step it leaves the loss, the term and the norm of the gradient (`trainer_state.json`, at full precision), and after
every `save_steps` steps the weights.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from commands import ENVIRONMENT, TWO_PROCESSES, pair_of, write_rows
from tiny import tiny_model

TERM = "routing_alignment"
LOGGED = ("loss", TERM, "grad_norm")

# 47 rows: five steps of eight and one of seven in each epoch, and every fifth row without an anchor. However the last
# step is split, micro-batches and ranks hold different numbers of rows and of pairs.
ROWS = 47
GLOBAL_BATCH = 8
UNPAIRED = 5

# By default DeepSpeed's buckets are of two gigabytes, which the deterministic mode of torch fills at every step.
BUCKET = 1_000_000


@dataclass(frozen=True)
class Trajectory:
    """What a run leaves: the log of each step, the weights by step, and `train_result.json`."""

    steps: list[dict[str, float]]
    weights: dict[int, dict[str, Tensor]]
    result: dict[str, Any]


@dataclass(frozen=True)
class Distance:
    """How far a run lies from another.

    `largest` is the largest relative difference of each logged value over the steps, `mean` the mean of the signed
    relative differences. They are relative to the value, and to its mean over the run where it is smaller than that: a
    term that has been learned is nearly zero, and its last digits are rounding. `weights` is the largest distance of
    the weights after a step, over all tensors together, relative to how far training had moved them from where they
    began.
    """

    largest: dict[str, float]
    mean: dict[str, float]
    weights: float
    steps: int


# -- the world ---------------------------------------------------------------------------------------------------------


def make_world(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """`folder` with `model/` (four layers of eight experts, random) and `pairs.jsonl`."""
    model = tiny_model("qwen3_moe", vocab_size=320, max_position_embeddings=256)
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_rows(folder / "pairs.jsonl", rows())
    return folder


def rows() -> list[dict[str, Any]]:
    """Pairs whose texts have from one to eight words, every fifth of them without an anchor."""
    made = []
    for number in range(ROWS):
        row = pair_of(number)
        paired = {"anchor_prompt": f"{number}!", "anchor_completion": row["anchor_completion"]}
        made.append(row | (dict.fromkeys(paired) if number % UNPAIRED == 0 else paired))
    return made


# -- a run -------------------------------------------------------------------------------------------------------------


def recipe_of(world: Path, output: Path, *, steps: int, save_steps: int) -> dict[str, Any]:
    """The recipe that all settings change: full fine-tuning with AdamW, a cosine, clipping, a stored prior."""
    return {
        "model": {"path": str(world / "model"), "dtype": "float32"},
        "data": {"train": str(world / "pairs.jsonl"), "missing_anchor": "keep", "max_length": 256},
        "alignment": {"weight": 5.0, "layers": "1-2"},
        "trainer": {
            "output_dir": str(output),
            "max_steps": steps,
            "learning_rate": 1e-3,
            "per_device_train_batch_size": GLOBAL_BATCH,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
            "router_aux_loss_coef": 0.0,
            "max_grad_norm": 1.0,
            "full_determinism": True,
            "logging_steps": 1,
            "save_steps": save_steps,
            "save_only_model": True,
            "disable_tqdm": True,
            "seed": 7,
            # The default fills the last batch up with rows of the first: other rows than one process has.
            "accelerator_config": {"even_batches": False},
        },
    }


def merged(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`recipe` with `changes`, section by section; a section that is None is left out."""
    result = {name: dict(section) for name, section in recipe.items()}
    for name, section in changes.items():
        if section is None:
            result.pop(name, None)
        else:
            result[name] = result.get(name, {}) | section
    return result


def run(
    world: Path,
    folder: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    steps: int = 50,
    save_steps: int = 10,
    launch: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Trajectory:
    """Train in `folder` by the command, under `accelerate launch` where `launch` is its configuration."""
    folder.mkdir(parents=True)
    recipe = merged(recipe_of(world, folder / "out", steps=steps, save_steps=save_steps), changes or {})
    # JSON is YAML.
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    words = [sys.executable, "-m"]
    if launch is not None:
        (folder / "launch.yaml").write_text(json.dumps(dict(launch)))
        words += ["accelerate.commands.launch", "--config_file", str(folder / "launch.yaml"), "-m"]
    finish([*words, "innerlingua.cli", "train", str(folder / "recipe.yaml")], ENVIRONMENT | (environment or {}), folder)
    return read(folder / "out")


def finish(words: Sequence[str], environment: Mapping[str, str], folder: Path, *, timeout: float = 400) -> None:
    """Run a command that must end well. Processes that it started do not outlive it."""
    log = folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(words, env=dict(environment), stdout=stream, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout)
        finally:
            # The launcher ends its processes, which have sessions of their own, when it is asked to end.
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()
                process.wait()
    assert code == 0, log.read_text()[-8000:]


def read(output: Path) -> Trajectory:
    """The trajectory of a finished run in `output`."""
    result = json.loads((output / "train_result.json").read_text())
    found = sorted((int(path.name.partition("-")[2]), path) for path in output.glob("checkpoint-*"))
    history = json.loads((found[-1][1] / "trainer_state.json").read_text())["log_history"]
    weights = {step: weights_of(path) for step, path in found}
    return Trajectory([entry for entry in history if "loss" in entry], weights, result)


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The model's weights, or the adapter's, in `folder`."""
    names = [name for name in ("model.safetensors", "adapter_model.safetensors") if (folder / name).exists()]
    assert names, sorted(path.name for path in folder.iterdir())
    return load_file(folder / names[0])


def deepspeed_launch(folder: Path, stage: int, **changes: Any) -> dict[str, Any]:
    """The configuration of accelerate for DeepSpeed on two CPU processes; DeepSpeed's own is put in `folder`."""
    zero = {
        "stage": stage,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        "stage3_prefetch_bucket_size": BUCKET,
        "stage3_param_persistence_threshold": 0,  # every weight is taken apart, however small
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    path = folder / f"zero-{stage}.json"
    path.write_text(json.dumps(dict.fromkeys(sizes, "auto") | {"zero_optimization": zero | changes}))
    # Beside DeepSpeed's own configuration accelerate accepts no type of numbers.
    return {key: value for key, value in TWO_PROCESSES.items() if key != "mixed_precision"} | {
        "distributed_type": "DEEPSPEED",
        "use_cpu": False,  # with true, accelerate forgets DeepSpeed; the recipe resolves to use_cpu by itself
        "deepspeed_config": {"deepspeed_config_file": str(path), "zero3_init_flag": False},
    }


# -- two runs ----------------------------------------------------------------------------------------------------------


def distance(found: Trajectory, expected: Trajectory, *, start: Mapping[str, Tensor] | None = None) -> Distance:
    """How far `found` lies from `expected`; `start` are the weights before the first step.

    Without `start` the weights are those of adapters: their second factors began at zero, and the distance is held
    against how far these have moved.
    """
    assert len(found.steps) == len(expected.steps)
    assert found.weights.keys() == expected.weights.keys()
    keys = [key for key in LOGGED if key in expected.steps[0]]
    largest, mean = {}, {}
    for key in keys:
        usual = math.fsum(abs(step[key]) for step in expected.steps) / len(expected.steps)
        residuals = [
            (one[key] - other[key]) / max(abs(other[key]), usual)
            for one, other in zip(found.steps, expected.steps, strict=True)
        ]
        largest[key] = max(abs(residual) for residual in residuals)
        mean[key] = math.fsum(residuals) / len(residuals)
    apart = max(_apart(found.weights[step], expected.weights[step], start) for step in expected.weights)
    return Distance(largest, mean, apart, len(expected.steps))


def _apart(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], start: Mapping[str, Tensor] | None) -> float:
    assert found.keys() == expected.keys()
    gap = moved = 0.0
    for name, tensor in expected.items():
        gap += float((found[name].double() - tensor.double()).square().sum())
        if start is not None or "lora_B" in name:
            begin = torch.zeros_like(tensor) if start is None else start[name]
            moved += float((tensor.double() - begin.double()).square().sum())
    return math.sqrt(gap / moved)


def check(found: Distance, *, within: float, weights: float) -> None:
    """Hold the logged values `within` a relative tolerance at every step, their signed mean within that tolerance by
    the square root of the number of steps, and the weights within `weights` of what they moved.

    A mean of independent errors shrinks with the root of their number; an error with a sign, such as a wrong divisor
    that is nearly one, does not.
    """
    assert holds(found, within=within, weights=weights), found


def holds(found: Distance, *, within: float, weights: float) -> bool:
    """Whether `check` passes."""
    largest, mean = max(found.largest.values()), max(abs(mean) for mean in found.mean.values())
    return largest <= within and mean <= within / math.sqrt(found.steps) and found.weights <= weights


def verdict(found: Sequence[Distance], *, within: float, weights: float) -> str:
    """What a soak records of several distances."""
    return (
        "equal within rounding" if all(holds(each, within=within, weights=weights) for each in found) else "DIFFERENT"
    )


def shown(found: Distance) -> dict[str, float]:
    """What a soak records of a distance."""
    names = {"loss": "loss", TERM: "term", "grad_norm": "gradient norm"}
    return {names[key]: value for key, value in found.largest.items()} | {
        "mean residual": max(abs(mean) for mean in found.mean.values()),
        "weights": found.weights,
    }
