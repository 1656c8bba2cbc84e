"""What the tests of the command line share: the tiny recipe, its pairs, its options, and how a command ended."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands import ENVIRONMENT, OTHER, TINY, WORDS, write_rows

__all__ = ["ENVIRONMENT", "STEPS", "TINY", "Done", "Run", "command", "options", "pairs", "write_rows"]


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


STEPS = ["--trainer.max-steps", "12", "--trainer.save-steps", "4"]


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
