from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# Written for these tests.
SENTENCES = [
    "The river is wide and the boat is small.",
    "Where is the market today?",
    "Mto ni mpana na mashua ni ndogo.",
    "Soko liko wapi leo?",
    "नदी चौड़ी है और नाव छोटी है।",
    "आज बाज़ार कहाँ है?",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def build_tokenizer(chat_template: str | None = CHAT_TEMPLATE, **special: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 entries, learnt on a few sentences of ours."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|eos|>", "<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, **(special or {"pad_token": "<|pad|>", "eos_token": "<|eos|>"})
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|end|>"]})
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    return build_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as JSON Lines and return the path."""

    def write_rows(rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write_rows


def pair(**changes: Any) -> dict[str, Any]:
    """A right row of plain text, with changes; a change to None takes the column away."""
    row = {"id": "1", "language": "swh_Latn", "text": SENTENCES[2], "anchor_text": SENTENCES[0], **changes}
    return {name: value for name, value in row.items() if value is not None}


@pytest.fixture(name="pair")
def pair_fixture() -> Callable[..., dict[str, Any]]:
    return pair
