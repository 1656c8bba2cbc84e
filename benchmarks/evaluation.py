"""What `innerlingua evaluate` costs beside lm-evaluation-harness itself, on the same tasks and the same backend.

    python benchmarks/evaluation.py [--pairs 40] [--output runs/benchmarks/evaluation.json]

A step is a whole evaluation of one benchmark in two languages. A: the harness alone, one call of its `evaluate` for
all languages on its own `HFLM`, no samples kept. B: all that `innerlingua evaluate` does between loading the model and
the last file: one call per language on the watched backend, statuses, every sample and summary written to disk. Both
start from tasks that are built and a model that is loaded. Two benchmarks: `choices` (loglikelihood) and `answers`
(generation).

The harness sorts all requests of a call by length before it makes batches, so of few questions per language (24, say)
B makes batches with more padding: some percent, which is gone at the hundred and more that real benchmarks have.

Alternating order A B B A in one process; the figure is the median of the ratios of neighbouring steps with a 95 %
bootstrap interval. An A/A row (the harness against itself) says how far a ratio strays when there is nothing to find.
The limit is met when the upper end of the interval, less the half-width of A/A, is at most 1.03.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

from innerlingua.evaluation.backend_hf import WatchedHF
from innerlingua.evaluation.benchmarks import Chosen, choose
from innerlingua.evaluation.running import run_unit, silent, summary_of
from innerlingua.evaluation.settings import Settings
from innerlingua.evaluation.store import write_results, write_samples
from innerlingua.evaluation.tasks import build_unit

LANGUAGES = ("eng_Latn", "swh_Latn")
LIMIT = 1.03
CPU_TIME = False


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and a 95 % bootstrap interval of it."""

    median: float
    low: float
    high: float
    seconds_a: float
    seconds_b: float
    pairs: int


def write_data(folder: Path, *, questions: int, words: int) -> None:
    """Two benchmarks of random text: `choices`, and `answers` to be generated."""
    generator = np.random.default_rng(0)

    def text(count: int) -> str:
        sizes = generator.integers(2, 8, count)
        return " ".join("".join(chr(97 + code) for code in generator.integers(0, 26, size)) for size in sizes)

    choices, answers = [], []
    for number in range(questions):
        items = {
            code: {"passage": text(words), "question": text(8), "choices": [text(3) for _ in range(4)]}
            for code in LANGUAGES
        }
        choices.append({"id": f"c{number}", "answer": number % 4, "items": items})
        asked = {code: text(words // 2) for code in LANGUAGES}
        answers.append({"id": f"a{number}", "answer": str(number), "question": asked})
    for name, rows in (("choices", choices), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def save_model(folder: Path, texts: list[str], *, hidden: int, layers: int) -> None:
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bare.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="</s>")
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 2,
        moe_intermediate_size=hidden // 2,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=hidden // 8,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def units_of(chosen: Chosen, settings: Settings) -> list[Any]:
    ((benchmark, languages),) = chosen.benchmarks
    return [
        build_unit(benchmark, code, num_fewshot=0, max_new_tokens=settings.max_new_tokens, limit=None)
        for code in languages
    ]


def the_harness(model: HFLM, chosen: Chosen, settings: Settings) -> Callable[[], float]:
    tasks = {name: task for unit in units_of(chosen, settings) for name, task in unit.tasks.items()}

    def step() -> float:
        start = clock()
        with silent(), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its bars of progress
            evaluate(lm=model, task_dict={"tasks": tasks}, bootstrap_iters=0, log_samples=False)
        return clock() - start

    return step


def ours(model: WatchedHF, chosen: Chosen, settings: Settings, folder: Path) -> Callable[[], float]:
    units = units_of(chosen, settings)
    ((benchmark, _),) = chosen.benchmarks

    def step() -> float:
        shutil.rmtree(folder, ignore_errors=True)
        start = clock()
        summaries = []
        for unit in units:
            rows = run_unit(model, unit, settings)
            write_samples(folder, unit.benchmark, unit.language, rows)
            summaries.append(summary_of(benchmark, unit.language, rows, chosen.anchor, 0.0))
            write_results(folder, summaries)
        return clock() - start

    return step


def clock() -> float:
    return time.process_time() if CPU_TIME else time.perf_counter()


def compare(a: Callable[[], float], b: Callable[[], float], *, pairs: int) -> Ratio:
    """Steps in the order A B B A A B B A ...; the ratio of B to A in each neighbouring pair."""
    a()
    b()
    seconds: list[tuple[float, float]] = []
    for number in range(pairs):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of steps (default 40)")
    parser.add_argument("--questions", type=int, default=128, help="of each benchmark and language")
    parser.add_argument("--words", type=int, default=20, help="of a passage")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="this process's own seconds, on a machine in use")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/evaluation.json"))
    args = parser.parse_args()
    global CPU_TIME
    CPU_TIME = args.cpu_time
    torch.set_num_threads(args.threads)
    settings = Settings(batch_size=str(args.batch_size), max_new_tokens=args.new_tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, questions=args.questions, words=args.words)
        texts = (folder / "choices.jsonl").read_text(encoding="utf-8").splitlines()
        save_model(folder / "model", texts, hidden=args.hidden, layers=args.layers)
        options = {"pretrained": str(folder / "model"), "device": device, "batch_size": args.batch_size}
        with silent():
            plain = HFLM(**options)
            # The same weights in the same place of memory: only what is around them differs.
            shared = {**options, "pretrained": plain.model, "tokenizer": plain.tokenizer}
            watched = WatchedHF(**shared, quiet=True)
        for task in ("choices", "answers"):
            chosen = choose([task], None, data=folder)
            with silent():
                a, other = the_harness(plain, chosen, settings), the_harness(plain, chosen, settings)
                b = ours(watched, chosen, settings, folder / "out")
            found[f"{task}: harness against harness"] = compare(a, other, pairs=args.pairs)
            found[f"{task}: innerlingua against harness"] = compare(a, b, pairs=args.pairs)
    report(found, args)


def report(found: dict[str, Ratio], args: argparse.Namespace) -> None:
    table = Table("benchmark", "ratio", "95 %", "seconds A", "seconds B", "limit")
    limits = {}
    for name, ratio in found.items():
        task, _, what = name.partition(": ")
        word = ""
        if what.startswith("innerlingua"):
            noise = found[f"{task}: harness against harness"]
            limits[task] = bool(ratio.high - (noise.high - noise.low) / 2 <= LIMIT)
            word = "met" if limits[task] else "not met"
        interval = f"{ratio.low:.4f} to {ratio.high:.4f}"
        table.add_row(name, f"{ratio.median:.4f}", interval, f"{ratio.seconds_a:.3f}", f"{ratio.seconds_b:.3f}", word)
    Console().print(table)
    result = {
        "machine": platform.processor() or platform.machine(),
        "versions": {package: version(package) for package in ("lm_eval", "torch", "transformers")},
        "arguments": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
        "ratios": {name: asdict(ratio) for name, ratio in found.items()},
        "limit": LIMIT,
        "met": limits,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
