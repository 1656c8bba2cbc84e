"""How a ratio of times is measured, and how a result is written: what the benchmarks share.

Two things are timed in alternating order (A B B A ...) in one process. The figure is the median of the ratios of
neighbours, with a 95 % bootstrap interval of that median. An A/A row, the same thing against itself, says how far a
ratio strays when there is nothing to find: half the width of its interval is taken off the upper end of a ratio's
interval before that is held against a limit.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "innerlingua")
# What decides how fast a processor's step is, besides the processor.
SETTINGS = (
    "OMP_NUM_THREADS",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "PYTORCH_CUDA_ALLOC_CONF",
)

# `cpu` is the processor's time for this process: with one thread what a step would take with the core to itself, which
# other work on the machine does not change much.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

# Every call does the step of this number and gives its seconds.
Timed = Callable[[int], float]


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of B to A in each pair, and a 95 % bootstrap interval of it.

    `spread` is where the ratios of single pairs lie, 5 % to 95 %; `seconds_a` and `seconds_b` are medians.
    """

    median: float
    low: float
    high: float
    spread: tuple[float, float]
    seconds_a: float
    seconds_b: float
    pairs: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def timed(step: Callable[[int], Any], clock: str = "wall") -> Timed:
    """`step` with a clock around it, which waits for a GPU. `clock` is a word of `CLOCKS`."""
    now = CLOCKS[clock]

    def run(number: int) -> float:
        _synchronise()
        start = now()
        step(number)
        _synchronise()
        return now() - start

    return run


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def pairs_of(a: Timed, b: Timed, *, pairs: int, title: str, warm_up: int = 2) -> np.ndarray:
    """Seconds of A and B, (pairs, 2), in the order A B B A; A and B of a pair do the step of one number."""
    for number in range(warm_up):
        a(number), b(number)
    console = Console(stderr=True)
    seconds = np.empty((pairs, 2))
    for number in range(pairs):
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            seconds[number, place] = (a, b)[place](number)
        if console.is_terminal:
            console.print(f"{title}: {number + 1} of {pairs}", end="\r")
    return seconds


def ratio_of(seconds: np.ndarray) -> Ratio:
    """The ratio of the second column to the first."""
    ratios = seconds[:, 1] / seconds[:, 0]
    low, high = interval(ratios)
    five, ninety_five = np.quantile(ratios, [0.05, 0.95])
    median_a, median_b = np.median(seconds, axis=0)
    return Ratio(
        float(np.median(ratios)),
        low,
        high,
        (float(five), float(ninety_five)),
        float(median_a),
        float(median_b),
        len(seconds),
    )


def compare(a: Timed, b: Timed, *, pairs: int, title: str, warm_up: int = 2) -> Ratio:
    """The ratio of B to A."""
    return ratio_of(pairs_of(a, b, pairs=pairs, title=title, warm_up=warm_up))


def interval(values: np.ndarray, *, draws: int = 10_000) -> tuple[float, float]:
    """A 95 % bootstrap interval of the median of `values`."""
    medians = np.median(np.random.default_rng(0).choice(values, (draws, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def bound(ratio: Ratio, aa: Ratio) -> float:
    """What is held against a limit: the upper end of the ratio's interval less the half-width of A/A."""
    return ratio.high - aa.half_width


def row_of(ratio: Ratio, aa: Ratio | None = None, limit: float | None = None) -> dict[str, Any]:
    """A ratio as it stands in a result; with a limit also whether that is met."""
    row: dict[str, Any] = asdict(ratio)
    if aa is not None:
        row["bound"] = bound(ratio, aa)
    if limit is not None:
        row |= {"limit": limit, "met": row["bound"] <= limit}
    return row


def machine() -> dict[str, Any]:
    """The machine in words and numbers; nothing that names it."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }
    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'processor'} ({platform.machine()})"


def command() -> str:
    """The command line of this process, from the root of the repository."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def write_result(path: Path, result: Mapping[str, Any], *, packages: Sequence[str] = PACKAGES) -> None:
    """`result` as JSON, with schema, command, machine and versions in front."""
    head = {
        "schema": 2,
        "command": command(),
        "machine": machine(),
        "versions": {name: version(name) for name in packages},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | dict(result), indent=2) + "\n", encoding="utf-8")
