"""What a routing profile costs beside a bare forward pass of the backbone over the same batches.

    python benchmarks/routing_profile.py [--pairs 40] [--output runs/benchmarks/routing_profile.json]

A step is one window of sentences. A: the backbone alone, no gradient, over batches that lie ready. B: all that a
profile does with the window: tokenising, batching, the forward passes with the routing taken inside, and every measure
with its 200 bootstrap replicates. Alternating order A B B A in one process; the figure is the median of the ratios of
neighbouring steps with a 95 % bootstrap interval. An A/A row says how far a ratio strays when there is nothing to find.
The limit, a throughput of 0.9 of the bare pass, is met when the upper end of the ratio of times, less the half-width of
A/A, is at most 1 / 0.9.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

from innerlingua.anatomy import find_moe_layers
from innerlingua.routing.profile import read_sides
from innerlingua.routing.profile.stream import measure_window
from innerlingua.routing.profile.totals import Totals
from innerlingua.routing.profile.windows import Skipped, batches_of, windows_of

LANGUAGES = ("swh_Latn", "hin_Deva", "ben_Beng", "tel_Telu", "npi_Deva", "yor_Latn", "deu_Latn", "spa_Latn")
REPLICATES = 200
LIMIT = 1 / 0.9


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and a 95 % bootstrap interval of it."""

    median: float
    low: float
    high: float
    seconds_a: float
    seconds_b: float
    pairs: int


def texts(ids: int, words: int) -> Dataset:
    """Random parallel text: sentences of `words` / 2 to `words` * 3 / 2 words of one to seven letters."""
    generator = np.random.default_rng(0)

    def sentence() -> str:
        length = generator.integers(words // 2, words * 3 // 2 + 1)
        letters = generator.integers(97, 123, (length, 7)).astype(np.uint8)
        sizes = generator.integers(1, 8, length)
        return " ".join(bytes(word[:size]).decode() for word, size in zip(letters, sizes, strict=True))

    rows = [{"id": str(at), "text": {code: sentence() for code in ("eng_Latn", *LANGUAGES)}} for at in range(ids)]
    return Dataset.from_list(rows)


def tokenizer_of(rows: Dataset) -> PreTrainedTokenizerFast:
    """A byte-level BPE learned on the text, two to three tokens a word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for row in rows for text in row["text"].values()), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def compare(a: Callable[[], float], b: Callable[[], float], *, pairs: int, title: str) -> Ratio:
    """Steps in the order A B B A A B B A ...; the ratio of B to A in each neighbouring pair."""
    a(), b()
    seconds: list[tuple[float, float]] = []
    for number in track(range(pairs), description=title):
        if number % 2 == 0:
            first = a()
            seconds.append((first, b()))
        else:
            second = b()
            seconds.append((a(), second))
    table = np.array(seconds)
    ratios = table[:, 1] / table[:, 0]
    draws = np.random.default_rng(0).choice(ratios, (10_000, pairs))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    median_a, median_b = np.median(table, axis=0)
    return Ratio(float(np.median(ratios)), float(low), float(high), float(median_a), float(median_b), pairs)


def timed(step: Callable[[], None]) -> Callable[[], float]:
    def run() -> float:
        _synchronise()
        start = time.perf_counter()
        step()
        _synchronise()
        return time.perf_counter() - start

    return run


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of steps (default 40)")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--expert-width", type=int, default=64)
    parser.add_argument("--words", type=int, default=20, help="mean words of a sentence, two to three tokens each")
    parser.add_argument("--ids", type=int, default=16, help="sentences of a step, each in nine languages")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--experts-implementation", default="eager")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/routing_profile.json"))
    args = parser.parse_args()

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = texts(args.ids, args.words)
    tokenizer = tokenizer_of(rows)
    config = Qwen3MoeConfig(
        vocab_size=8192,
        hidden_size=args.hidden,
        intermediate_size=2 * args.hidden,
        moe_intermediate_size=args.expert_width,
        num_hidden_layers=args.layers,
        num_attention_heads=max(1, args.hidden // 32),
        num_key_value_heads=max(1, args.hidden // 96),
        head_dim=32,
        num_experts=args.experts,
        num_experts_per_tok=args.top_k,
        norm_topk_prob=True,
    )
    config._experts_implementation = args.experts_implementation
    model = Qwen3MoeForCausalLM(config).eval().to(device)
    layers = find_moe_layers(model)
    backbone = layers[0].backbone
    sides = read_sides(rows)
    pad = tokenizer.pad_token_id
    (window,) = windows_of(sides, tokenizer, Skipped(), max_length=None, size=10**9)
    ready = [
        (batch.input_ids.to(device), batch.attention_mask.to(device))
        for batch in batches_of(window, batch_tokens=args.batch_tokens, pad_token_id=pad)
    ]
    totals = Totals(
        languages=len(LANGUAGES) + 1,
        layers=len(layers),
        experts=args.experts,
        top_k=args.top_k,
        replicates=REPLICATES,
        seed=0,
        device=device,
    )

    def bare() -> None:
        for input_ids, mask in ready:
            backbone(input_ids=input_ids, attention_mask=mask, use_cache=False)

    def profile() -> None:
        for read in windows_of(sides, tokenizer, Skipped(), max_length=None, size=10**9):
            measured = measure_window(read, layers, score=None, batch_tokens=args.batch_tokens, pad_token_id=pad)
            totals.add(read, measured)

    ratios = {
        "A/A (bare against bare)": compare(timed(bare), timed(bare), pairs=args.pairs, title="A/A"),
        "profile / bare": compare(timed(bare), timed(profile), pairs=args.pairs, title="profile / bare"),
    }
    aa, measured = ratios.values()
    bound = measured.high - (aa.high - aa.low) / 2
    tokens = sum(len(ids) for ids in window.token_ids)
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in vars(args).items() if name != "output")
    result = {
        "schema": 1,
        "command": f"python benchmarks/routing_profile.py {options}",
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "device": device.type},
        "versions": {name: version(name) for name in ("torch", "transformers", "innerlingua")},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sentences": len(window.token_ids),
        "tokens": tokens,
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items()},
        "bound": bound,
        "limit": LIMIT,
        "throughput": 1 / measured.median,
        "met": bound <= LIMIT,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console = Console()
    table = Table(
        "step", "ratio of time", "95 % interval", "seconds", title=f"{result['parameters'] / 1e6:.1f} M parameters"
    )
    for name, ratio in ratios.items():
        seconds = f"{ratio.seconds_b:.3f} / {ratio.seconds_a:.3f}"
        table.add_row(name, f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", seconds)
    console.print(table)
    console.print(
        f"{len(window.token_ids)} sentences, {tokens} tokens a step; upper end less the half-width of A/A: {bound:.3f}"
    )
    verdict = "met" if bound <= LIMIT else "missed"
    console.print(f"throughput {1 / measured.median:.3f} of the bare pass; limit {LIMIT:.3f} {verdict}")


if __name__ == "__main__":
    main()
