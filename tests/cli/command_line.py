"""What the tests of the command line share: the tiny recipe, its pairs, its options, and how a command ended."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"

WORDS = ["sun", "rain", "road", "house", "tree", "river", "bread", "milk", "night", "day"]
OTHER = ["jua", "mvua", "barabara", "nyumba", "mti", "mto", "mkate", "maziwa", "usiku", "siku"]


def pairs(count: int = 40) -> list[dict[str, str]]:
    rows = []
    for number in range(count):
        first, second, third = number % 10, (number * 7 + 3) % 10, (number // 10)
        rows.append(
            {
                "id": f"p{number:03d}",
                "language": "swh_Latn",
                "prompt": f"{number} {OTHER[first]}?",
                "completion": f" {OTHER[second]} {OTHER[third]}",
                "anchor_prompt": f"{number} {WORDS[first]}?",
                "anchor_completion": f" {WORDS[second]} {WORDS[third]}",
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


STEPS = ["--trainer.max-steps", "12", "--trainer.save-steps", "4"]

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "innerlingua.cli", *words]


def options(tiny: Path, output: Path) -> list[str]:
    """What `recipes/tiny.yaml` needs to run here."""
    return [
        *("--model.path", str(tiny / "model")),
        *("--data.train", str(tiny / "pairs.jsonl")),
        *("--trainer.output-dir", str(output)),
        *("--trainer.full-determinism", "--trainer.disable-tqdm"),
    ]


Run = Callable[..., Done]
