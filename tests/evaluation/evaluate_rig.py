"""What the tests of `innerlingua evaluate` run on: benchmarks of a few questions, tiny models, and a caller."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tiny import tiny_model

LANGUAGES = ("eng_Latn", "swh_Latn", "hin_Deva")

_COLOURS = {
    "eng_Latn": ["blue", "green", "white", "yellow"],
    "swh_Latn": ["buluu", "kijani", "nyeupe", "njano"],
    "hin_Deva": ["नीला", "हरा", "सफेद", "पीला"],
}
_THINGS = {
    "eng_Latn": ["the sky", "grass", "snow", "the sun"],
    "swh_Latn": ["anga", "nyasi", "theluji", "jua"],
    "hin_Deva": ["आकाश", "घास", "बर्फ", "सूरज"],
}


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def save_model(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **changes: Any) -> Path:
    """A tiny Qwen3-MoE with `tokenizer` in the Hugging Face layout; `changes` are of its generation configuration."""
    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=512, seed=seed)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    for name, value in changes.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _pairs() -> list[tuple[int, int]]:
    """(thing, number) of sixteen questions, the numbers making the texts differ."""
    return [(number % 4, number) for number in range(16)]


def belebele() -> list[dict[str, Any]]:
    """Sixteen questions on four passages, four choices each; the right one at each place equally often."""
    return [
        {
            "id": f"b{number}",
            "group": f"p{thing}",
            "answer": thing,
            "items": {
                code: {
                    "passage": f"{_THINGS[code][thing]} {_COLOURS[code][thing]} {number}",
                    "question": f"{_THINGS[code][thing]} ?",
                    "choices": _COLOURS[code],
                }
                for code in LANGUAGES
            },
        }
        for thing, number in _pairs()
    ]


def xcopa() -> list[dict[str, Any]]:
    """Ten questions of the test split and six of the validation split, in English and Swahili."""
    return [
        {
            "id": f"x{number}",
            "official_split": "test" if number < 10 else "val",
            "question": "cause" if number % 2 else "effect",
            "answer": number // 2 % 2,
            "items": {
                code: {
                    "premise": f"{_THINGS[code][thing]} {number}.",
                    "choices": [f"The {_COLOURS[code][thing]}.", f"It {_COLOURS[code][(thing + 1) % 4]} {number}."],
                }
                for code in LANGUAGES[:2]
            },
        }
        for thing, number in _pairs()
    ]


def mgsm() -> list[dict[str, Any]]:
    return [
        {
            "id": f"m{number}",
            "answer": str(number),
            "question": {code: f"{_THINGS[code][number % 4]} {number} + 0 ?" for code in LANGUAGES[:2]},
        }
        for number in range(6)
    ]


def xquad() -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{number}",
            "group": f"p{number // 2}",
            "items": {
                code: {
                    "context": f"{_THINGS[code][number % 4]} {_COLOURS[code][number % 4]} {number}",
                    "question": f"{_THINGS[code][number % 4]} ?",
                    "answers": [_COLOURS[code][number % 4]],
                }
                for code in LANGUAGES
            },
        }
        for number in range(6)
    ]


def afriqa() -> list[dict[str, Any]]:
    return [
        {
            "id": f"a{number}",
            "official_split": "test" if number < 4 else "train",
            "question": {code: f"{_THINGS[code][number % 4]} {number} ?" for code in LANGUAGES[:2]},
            "answers": {code: [_COLOURS[code][number % 4]] for code in LANGUAGES[:2]},
        }
        for number in range(6)
    ]


def winogrande() -> list[dict[str, Any]]:
    """Sentences with one blank, with two, and with nothing after it."""
    forms = ("{0} _ is {1}", "_ {0} and _ {1}", "{0} {1} _")
    return [
        {
            "id": f"w{number}",
            "group": f"t{number // 2}",
            "answer": number % 2,
            "items": {
                code: {
                    "sentence": forms[number % 3].format(_THINGS[code][number % 4], number),
                    "choices": _COLOURS[code][:2],
                }
                for code in LANGUAGES[:2]
            },
        }
        for number in range(9)
    ]


def truthfulqa() -> list[dict[str, Any]]:
    colours = _COLOURS["eng_Latn"]
    return [
        {"id": f"t{n}", "lang": "eng_Latn", "question": f"what is {n} ?", "choices": colours[: 2 + n % 3], "answer": 0}
        for n in range(6)
    ]


def news() -> list[dict[str, Any]]:
    return [
        {
            "id": f"n{number}",
            "group": f"d{number // 2}",
            "text": {code: f"{_THINGS[code][number % 4]} {_COLOURS[code][number % 4]} {number}" for code in LANGUAGES},
        }
        for number in range(6)
    ]


def write_benchmarks(folder: Path) -> Path:
    """All of the above in the layout of the project's pack of data."""
    for name, rows in (
        ("mcq/belebele.jsonl.gz", belebele()),
        ("mcq/xcopa.jsonl", xcopa()),
        ("mcq/mgsm.jsonl", mgsm()),
        ("mcq/xquad.jsonl", xquad()),
        ("mcq/afriqa.jsonl", afriqa()),
        ("mcq/winogrande_african.jsonl", winogrande()),
        ("mcq/truthfulqa_mc1_en.jsonl", truthfulqa()),
        ("parallel/news.jsonl", news()),
    ):
        write_jsonl(folder / name, rows)
    return folder
