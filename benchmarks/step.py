"""What a training step with a stored prior costs beside a plain `trl.SFTTrainer` step, in time and in memory.

    python benchmarks/step.py [--pairs 40] [--output runs/benchmarks/step.json]

Time. Two trainers with copies of one model take the same batches in alternating order A B B A in one process; the
figure is the median of the ratios of neighbouring steps with a 95 % bootstrap interval. An A/A row (a plain trainer
against another plain trainer) says how far a ratio strays when there is nothing to find. Each step is a whole
`training_step` with optimizer.

Memory. Counted bytes, never the process's size: what the forward pass saves for the backward pass, each storage once,
and what the capture leaves alive afterwards. On a GPU the allocator's peak is reported as well.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM
from trl import SFTConfig, SFTTrainer

from innerlingua import RoutingAlignment, RoutingPrior, Trainer

VOCABULARY = 8192


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and a 95 % bootstrap interval of it."""

    median: float
    low: float
    high: float
    seconds_a: float
    seconds_b: float
    pairs: int


def model_of(args: argparse.Namespace) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 2,
        moe_intermediate_size=args.hidden // 2,
        num_hidden_layers=args.layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=args.hidden // 8,
        num_experts=args.experts,
        num_experts_per_tok=4,
        norm_topk_prob=True,
    )
    return Qwen3MoeForCausalLM(config)


def rows_of(args: argparse.Namespace) -> Dataset:
    generator = np.random.default_rng(0)
    rows = []
    for index in range(args.batch * 4):
        target = generator.integers(3, VOCABULARY, args.tokens).tolist()
        anchor = generator.integers(3, VOCABULARY, args.tokens).tolist()
        rows.append(
            {
                "id": str(index),
                "language": "swh_Latn",
                "input_ids": target,
                "labels": target,
                "anchor_input_ids": anchor,
                "anchor_labels": anchor,
            }
        )
    return Dataset.from_list(rows)


def trainer_of(args: argparse.Namespace, base: PreTrainedModel, rows: Dataset, tokenizer: Any, terms: list[Any]) -> Any:
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.batch,
        max_steps=10_000,
        max_length=None,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        report_to="none",
        gradient_checkpointing=args.checkpointing,
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    kwargs = {"model": copy.deepcopy(base), "args": config, "train_dataset": rows, "processing_class": tokenizer}
    trainer = Trainer(**kwargs, terms=terms) if terms else SFTTrainer(**kwargs)
    trainer.create_optimizer_and_scheduler(num_training_steps=10_000)
    if args.checkpointing:
        trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
    return trainer


def step_of(trainer: Any, batches: list[dict[str, Any]]) -> Callable[[int], float]:
    def step(number: int) -> float:
        batch = dict(batches[number % len(batches)])
        _synchronise()
        start = time.perf_counter()
        # As the Trainer's own loop does it, with one micro-batch per step.
        samples, items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
        trainer.current_gradient_accumulation_steps = 1
        trainer.accelerator.gradient_state._set_sync_gradients(True)
        trainer.training_step(trainer.model, samples[0], items)
        trainer.optimizer.step()
        trainer.model.zero_grad()
        _synchronise()
        return time.perf_counter() - start

    return step


def compare(a: Callable[[int], float], b: Callable[[int], float], *, pairs: int, title: str) -> Ratio:
    """Steps in the order A B B A A B B A ...; the ratio of B to A in each neighbouring pair."""
    for number in range(3):
        a(number)
        b(number)
    seconds: list[tuple[float, float]] = []
    for number in track(range(pairs), description=title):
        if number % 2 == 0:
            first = a(number)
            seconds.append((first, b(number)))
        else:
            second = b(number)
            seconds.append((a(number), second))
    table = np.array(seconds)
    ratios = table[:, 1] / table[:, 0]
    draws = np.random.default_rng(0).choice(ratios, (10_000, pairs))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    median_a, median_b = np.median(table, axis=0)
    return Ratio(float(np.median(ratios)), float(low), float(high), float(median_a), float(median_b), pairs)


def saved_bytes(trainer: Any, batch: dict[str, Any]) -> int:
    """Bytes that one forward pass saves for the backward pass, each storage once; parameters are not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    trainer.model.train()
    samples, items = trainer.get_batch_samples(iter([dict(batch)]), 1, trainer.args.device)
    trainer.current_gradient_accumulation_steps = 1
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(samples[0]), num_items_in_batch=items)
    total = sum(storage.nbytes() for storage in kept.values())
    del loss
    return total


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of steps (default 40)")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of a row")
    parser.add_argument("--batch", type=int, default=8, help="rows of a step")
    parser.add_argument("--checkpointing", action="store_true", help="with (non-reentrant) gradient checkpointing")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/step.json"))
    args = parser.parse_args()

    from tokenizer import tiny_tokenizer  # beside this file

    tokenizer = tiny_tokenizer()
    base, rows = model_of(args), rows_of(args)
    low, high = round(args.layers * 0.15), round(args.layers * 0.72)
    # In the numeric type of the steps below.
    with torch.autocast(base.device.type, torch.bfloat16, enabled=torch.cuda.is_available()):
        prior = RoutingPrior.compute(base, rows, tokenizer, layers=range(low, high + 1))
    aligned = trainer_of(args, base, rows, tokenizer, [RoutingAlignment(anchor=prior)])
    plain, other = trainer_of(args, base, rows, tokenizer, []), trainer_of(args, base, rows, tokenizer, [])
    plain_batches = list(plain.get_train_dataloader())
    aligned_batches = list(aligned.get_train_dataloader())
    for left, right in zip(plain_batches, aligned_batches, strict=True):
        assert torch.equal(left["input_ids"], right["input_ids"]), "the trainers must see the same batches"

    steps = {
        "A/A (plain against plain)": (step_of(plain, plain_batches), step_of(other, plain_batches)),
        "stored prior / plain": (step_of(plain, plain_batches), step_of(aligned, aligned_batches)),
    }
    ratios = {name: compare(*pair, pairs=args.pairs, title=name) for name, pair in steps.items()}
    memory = {
        "plain": saved_bytes(plain, plain_batches[0]),
        "stored prior": saved_bytes(aligned, aligned_batches[0]),
        "one (tokens, experts) tensor per aligned layer": len(prior.layers)
        * args.batch
        * args.tokens
        * args.experts
        * 4,
        "pooled routing of the batch": len(prior.layers) * args.batch * args.experts * 4,
    }
    aa = ratios["A/A (plain against plain)"]
    result = {
        "schema": 1,
        "command": " ".join(["python", "benchmarks/step.py", *sys.argv[1:]]),
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.is_available(),
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "innerlingua")},
        "parameters": sum(parameter.numel() for parameter in base.parameters()),
        "aligned_layers": prior.layers,
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items()},
        "bound": ratios["stored prior / plain"].high - (aa.high - aa.low) / 2,
        "saved_bytes": memory,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _show(result, ratios)


def _show(result: dict[str, Any], ratios: dict[str, Ratio]) -> None:
    console = Console()
    table = Table("step", "ratio", "95 % interval", "seconds", title=f"{result['parameters'] / 1e6:.1f} M parameters")
    for name, ratio in ratios.items():
        seconds = f"{ratio.seconds_b:.3f} / {ratio.seconds_a:.3f}"
        table.add_row(name, f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", seconds)
    console.print(table)
    console.print(f"upper end less the half-width of A/A: {result['bound']:.3f}")
    saved = result["saved_bytes"]
    extra = saved["stored prior"] - saved["plain"]
    console.print(
        f"saved for backward: plain {saved['plain']:,} bytes, with the term {saved['stored prior']:,} ({extra:+,}); "
        f"one (tokens, experts) tensor per aligned layer is {saved['one tensor per layer']:,}"
    )


if __name__ == "__main__":
    main()
