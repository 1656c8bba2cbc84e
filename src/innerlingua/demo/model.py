"""The demo's tokenizer and base model: a Qwen3-MoE of about two million parameters, trained from scratch on the world.

The base is kept in a folder beside a fingerprint of everything that it depends on (settings, seed, the demo's own
source, the versions of the libraries), and trained again when any of that has changed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from innerlingua.demo.languages import ANCHOR
from innerlingua.demo.world import World, base_texts

__all__ = [
    "Base",
    "BaseSettings",
    "base_fingerprint",
    "encode",
    "fit_tokenizer",
    "get_base",
    "new_model",
    "pad",
    "train_base",
]

PAD, EOS = "<pad>", "<end>"
RECORD = "base.json"
SOURCES = ("model", "names", "text", "world")


@dataclass(frozen=True)
class BaseSettings:
    """Sizes of the world, the tokenizer, the model and its training. The defaults are the demo's."""

    people: int = 72
    towns: int = 48
    coverage: int = 3
    vocabulary: int = 4000
    hidden: int = 96
    layers: int = 6
    experts: int = 8
    top_k: int = 2
    expert_width: int = 96
    steps: int = 1800
    batch: int = 64
    rate: float = 3e-3
    english_weight: int = 2


@dataclass(frozen=True)
class Base:
    """The trained base in its folder; `cached` says that it was there already. `model()` loads a fresh copy."""

    folder: Path
    tokenizer: PreTrainedTokenizerFast
    seconds_per_step: float
    cached: bool

    def model(self) -> Qwen3MoeForCausalLM:
        """A copy of the base, in eval mode. The `eager` experts are the fastest on a CPU at this size."""
        model: Qwen3MoeForCausalLM = Qwen3MoeForCausalLM.from_pretrained(self.folder, experts_implementation="eager")
        model.train(False)
        return model


def get_base(
    folder: Path,
    world: World,
    settings: BaseSettings,
    *,
    seed: int,
    fresh: bool = False,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Base:
    """The base of these settings and this seed: from `folder` when it holds it, else trained and stored there.

    `fresh` trains anew in any case. The folder is written under another name and then renamed, so a killed run leaves
    no base that looks whole.
    """
    fingerprint = base_fingerprint(settings, seed=seed)
    record = folder / RECORD
    if not fresh and record.is_file():
        stored = json.loads(record.read_text(encoding="utf-8"))
        if stored["fingerprint"] == fingerprint:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
            return Base(folder, tokenizer, stored["seconds_per_step"], cached=True)
    tokenizer = fit_tokenizer([text for _, text in base_texts(world)], size=settings.vocabulary)
    model = new_model(settings, tokenizer, seed=seed)
    seconds = train_base(model, tokenizer, world, settings, seed=seed, on_step=on_step)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    content = {"fingerprint": fingerprint, "seconds_per_step": seconds, "seed": seed, "settings": asdict(settings)}
    (partial / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return Base(folder, tokenizer, seconds, cached=False)


def base_fingerprint(settings: BaseSettings, *, seed: int) -> str:
    """SHA-256 over the settings, the seed, the library versions and the demo's source that the base depends on."""
    room = Path(__file__).parent
    digest = hashlib.sha256(json.dumps([asdict(settings), seed], sort_keys=True).encode())
    for package in ("torch", "transformers", "tokenizers"):
        digest.update(f"{package} {version(package)}\n".encode())
    for source in (*sorted(room.glob("languages/*.py")), *(room / f"{name}.py" for name in SOURCES)):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def fit_tokenizer(texts: list[str], *, size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE learned on `texts`, with a padding and an end token.

    Words are split at spaces and punctuation, with combining marks kept inside the word: the usual GPT-2 pattern would
    cut Devanagari, Bengali and Telugu at every vowel sign.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[\p{L}\p{M}\p{N}]+| ?[^\s\p{L}\p{M}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[AddedToken(PAD, special=True), AddedToken(EOS, special=True)],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    names = {"pad_token": PAD, "eos_token": EOS, "padding_side": "right"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]


def new_model(settings: BaseSettings, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> Qwen3MoeForCausalLM:
    """An untrained model of the demo's size. Sets torch's seed."""
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(  # type: ignore[call-arg]  # `head_dim` is read but not declared
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.expert_width,
        moe_intermediate_size=settings.expert_width,
        num_hidden_layers=settings.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=settings.hidden // 4,
        num_experts=settings.experts,
        num_experts_per_tok=settings.top_k,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        router_aux_loss_coef=0.01,
        tie_word_embeddings=True,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen3MoeForCausalLM(config)
    model.set_experts_implementation("eager")
    return model


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, with the end token."""
    encoded: list[list[int]] = tokenizer(texts)["input_ids"]
    return [[*ids, tokenizer.eos_token_id] for ids in encoded]


def pad(rows: list[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, (rows, longest) each, padded on the right."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def train_base(
    model: Qwen3MoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    settings: BaseSettings,
    *,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Language modelling on `base_texts`, in place; returns the mean seconds per step.

    English rows are drawn `english_weight` times as often as the others. AdamW, a linear warm-up over a tenth of the
    steps and a cosine to zero; the model's own balance loss is on, or a few experts would take everything.
    """
    texts = base_texts(world)
    rows = [
        ids
        for (language, _), ids in zip(texts, encode(tokenizer, [text for _, text in texts]), strict=True)
        for _ in range(settings.english_weight if language == ANCHOR else 1)
    ]
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.01)
    warm = max(1, settings.steps // 10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, step - warm) / max(1, settings.steps - warm))
        ),
    )
    model.train()
    queue: list[list[int]] = []
    start = time.perf_counter()
    for step in range(settings.steps):
        if len(queue) < settings.batch:
            queue = rng.sample(rows, len(rows))
        batch, queue = queue[: settings.batch], queue[settings.batch :]
        ids, mask = pad(batch, tokenizer.pad_token_id)
        labels = ids.masked_fill(mask == 0, -100)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, output_router_logits=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(step, loss.item())
    model.train(False)
    return (time.perf_counter() - start) / settings.steps
