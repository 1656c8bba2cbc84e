"""The base of the study: a byte-level BPE and a small Qwen3-MoE, trained from scratch on the training split.

Rows are single sentences with an end-of-text token, the shape in which they are tuned and measured later; batches
gather rows of like length, so that little is padding. English-rich: three of four rows are English, the rest is
shared equally by the five targets, so that the base knows them a little, and badly. The balance loss is on (the
model's own coefficient).
"""

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from corpus import ANCHOR, TARGETS, Sentence
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

# Letters keep their marks: the usual byte-level pattern breaks Indic words at every vowel sign.
WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
END, PAD = "<|endoftext|>", "<|pad|>"


@dataclass(frozen=True)
class BaseScale:
    """Sizes of the base and of its training; the defaults are the study's."""

    vocabulary: int = 8192
    hidden: int = 192
    layers: int = 8
    heads: int = 6
    key_value_heads: int = 2
    head_dim: int = 32
    experts: int = 16
    top_k: int = 2
    expert_width: int = 64
    max_length: int = 160
    batch_tokens: int = 1536
    steps: int = 2300
    peak_rate: float = 2e-3
    warmup: int = 100
    english_share: float = 0.75


def train_tokenizer(sentences: Sequence[Sentence], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE on the training split; target sentences count three times against the English mass."""

    def texts() -> Iterator[str]:
        for sentence in sentences:
            for language, text in sentence.text.items():
                for _ in range(1 if language == ANCHOR else 3):
                    yield text

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD
    )


def make_model(scale: BaseScale, tokenizer: PreTrainedTokenizerFast) -> Qwen3MoeForCausalLM:
    """A Qwen3-MoE of the study's size with random weights (seed it first)."""
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=scale.hidden,
        intermediate_size=2 * scale.hidden,
        moe_intermediate_size=scale.expert_width,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.heads,
        num_key_value_heads=scale.key_value_heads,
        head_dim=scale.head_dim,  # type: ignore[call-arg]
        num_experts=scale.experts,
        num_experts_per_tok=scale.top_k,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        router_aux_loss_coef=0.01,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._experts_implementation = "grouped_mm"
    return Qwen3MoeForCausalLM(config)


def encode(
    sentences: Sequence[Sentence], tokenizer: PreTrainedTokenizerFast, *, max_length: int
) -> tuple[dict[str, list[list[int]]], dict[str, int]]:
    """Token ids by language, each row closed by the end token; overlong rows are left out and counted."""
    rows: dict[str, list[list[int]]] = {}
    overlong: dict[str, int] = {}
    for language in (ANCHOR, *TARGETS):
        texts = [sentence.text[language] for sentence in sentences if language in sentence.text]
        encoded = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]] if texts else []
        rows[language] = [ids for ids in encoded if len(ids) <= max_length]
        overlong[language] = len(encoded) - len(rows[language])
    return {language: found for language, found in rows.items() if found}, overlong


def row_stream(
    rows: dict[str, list[list[int]]], *, english_share: float, rng: random.Random
) -> Iterator[tuple[str, list[int]]]:
    """An endless stream of (language, ids): a language by its share, then its rows each once a turn."""
    targets = [language for language in rows if language != ANCHOR]
    waiting: dict[str, list[list[int]]] = {language: [] for language in rows}
    while True:
        language = ANCHOR if rng.random() < english_share else rng.choice(targets)
        if not waiting[language]:
            waiting[language] = rng.sample(rows[language], len(rows[language]))
        yield language, waiting[language].pop()


def batch_stream(
    stream: Iterator[tuple[str, list[int]]], *, tokens: int, rng: random.Random
) -> Iterator[list[tuple[str, list[int]]]]:
    """Batches of at most `tokens` padded positions, of rows of like length drawn from a window of 512 rows."""
    while True:
        window = sorted((next(stream) for _ in range(512)), key=lambda row: len(row[1]))
        batches: list[list[tuple[str, list[int]]]] = [[]]
        for row in window:
            if batches[-1] and (len(batches[-1]) + 1) * len(row[1]) > tokens:
                batches.append([])
            batches[-1].append(row)
        rng.shuffle(batches)
        yield from batches


def rate_at(step: int, scale: BaseScale) -> float:
    """Learning rate: linear warm-up, then a cosine down to a twentieth of the peak."""
    if step < scale.warmup:
        return scale.peak_rate * (step + 1) / scale.warmup
    progress = (step - scale.warmup) / max(1, scale.steps - scale.warmup)
    return scale.peak_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def train_base(sentences: Sequence[Sentence], folder: Path, *, scale: BaseScale, seed: int) -> dict[str, object]:
    """Train the tokenizer and the model and write them to `folder` in the Hugging Face layout.

    Returns the log: counts, token totals by language, losses, seconds. The folder appears whole or not at all.
    """
    started = time.perf_counter()
    tokenizer = train_tokenizer(sentences, vocabulary=scale.vocabulary)
    rows, overlong = encode(sentences, tokenizer, max_length=scale.max_length)
    mean_tokens = {language: round(sum(map(len, found)) / len(found), 1) for language, found in rows.items()}
    print("base rows:", {language: len(found) for language, found in rows.items()}, "overlong:", overlong, flush=True)
    print("tokens per row:", mean_tokens, flush=True)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = make_model(scale, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, {scale.steps} steps", flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=scale.peak_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    batches = batch_stream(
        row_stream(rows, english_share=scale.english_share, rng=rng), tokens=scale.batch_tokens, rng=rng
    )
    seen: dict[str, int] = dict.fromkeys(rows, 0)
    losses: list[tuple[int, float]] = []
    window: list[float] = []
    model.train()
    for step in range(scale.steps):
        batch = next(batches)
        width = max(len(ids) for _, ids in batch)
        input_ids = torch.full((len(batch), width), tokenizer.pad_token_id)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for index, (language, ids) in enumerate(batch):
            input_ids[index, : len(ids)] = torch.tensor(ids)
            mask[index, : len(ids)] = 1
            seen[language] += len(ids)
        labels = input_ids.masked_fill(mask == 0, -100)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, scale)
        output = model(
            input_ids=input_ids, attention_mask=mask, labels=labels, output_router_logits=True, use_cache=False
        )
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        window.append(output.loss.item() - model.router_aux_loss_coef * output.aux_loss.item())
        if (step + 1) % 50 == 0 or step + 1 == scale.steps:
            losses.append((step + 1, round(sum(window) / len(window), 4)))
            window.clear()
            seconds = time.perf_counter() - started
            print(
                f"step {step + 1}: loss {losses[-1][1]:.3f} balance {output.aux_loss.item():.3f} {seconds:.0f} s",
                flush=True,
            )
    seconds = time.perf_counter() - started
    log: dict[str, object] = {
        "scale": asdict(scale),
        "seed": seed,
        "parameters": parameters,
        "rows": {language: len(found) for language, found in rows.items()},
        "overlong": overlong,
        "tokens_per_row": mean_tokens,
        "tokens_seen": seen,
        "losses": losses,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    }
    whole = folder.with_name(folder.name + ".partial")
    model.save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    (whole / "base_log.json").write_text(json.dumps(log, indent=1) + "\n")
    whole.rename(folder)
    return log
