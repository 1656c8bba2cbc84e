"""Fixtures shared by all rooms: a tiny tokenizer and a few pairs."""

from __future__ import annotations

import os

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# Several test processes share the cores; one thread each is fastest and makes sums reproducible.
torch.set_num_threads(1)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PAIRS = [
    ("sky", "swh_Latn", "rangi ya anga ni ipi", "anga ni buluu", "what colour is the sky", "the sky is blue"),
    ("grass", "swh_Latn", "rangi ya nyasi ni ipi", "nyasi ni kijani", "what colour is grass", "grass is green"),
    ("snow", "swh_Latn", "theluji", "theluji ni nyeupe na baridi", "what is snow like", "snow is white and cold"),
    ("sky", "hin_Deva", "आकाश का रंग क्या है", "आकाश नीला है", "what colour is the sky", "the sky is blue"),
    ("grass", "hin_Deva", "घास का रंग क्या है", "घास हरी है", "what colour is grass", "grass is green"),
    ("snow", "hin_Deva", "बर्फ कैसी है", "बर्फ सफेद और ठंडी है", "what is snow like", "snow is white and cold"),
    ("sun", "hin_Deva", "सूरज", "सूरज पीला है", "what colour is the sun", "the sun is yellow"),
    ("sun", "swh_Latn", "rangi ya jua ni ipi", "jua ni njano", "what colour is the sun", "the sun is yellow"),
]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] }}</s>{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_level_tokenizer(texts: list[str], *, vocab_size: int = 300) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learned on `texts`, with pad, EOS and a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_level_tokenizer([text for pair in PAIRS for text in pair[2:]])


@pytest.fixture(scope="session")
def pairs() -> Dataset:
    """Eight prompt-completion pairs in two languages over four meanings, lengths from 20 to 60 tokens."""
    columns = ("id", "language", "prompt", "completion", "anchor_prompt", "anchor_completion")
    return Dataset.from_list([dict(zip(columns, pair, strict=True)) for pair in PAIRS])
