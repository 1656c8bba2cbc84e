"""Training on one GPU at the size of real models: tokens per second, MFU, peak memory, and the share of the alignment.

    python benchmarks/gpu.py [--model qwen3-30b-a3b] [--tokens 4096]

| model | architecture | training |
|---|---|---|
| qwen3-30b-a3b | that of Qwen3-30B-A3B | LoRA on attention and experts, routers trained whole; base in bfloat16 |
| one-billion | a Qwen3-MoE of 1.2 billion parameters | full fine-tuning; weights in float32, autocast to bfloat16 |

Weights and tokens are random; the routing is the routers' own (no forced balance), and how unbalanced it is stands in
the result. First the experts backends of transformers are tried, and the fastest is used for everything after. Then
`Trainer.train()` runs plain, with a stored prior and with live anchors, in the order A B C C B A: 20 steps to warm up
and 50 timed ones each. An optimizer's step is in it, reading and collating the rows, too.

MFU counts the operations of the mathematics alone, no recomputation: a forward pass of 2 per active parameter and token
and causal attention (half the square), twice as much again for a backward pass of full fine-tuning, once as much for
LoRA, whose frozen weights need no gradient of their own.

The result goes to `benchmarks/results/<name of the GPU>.json`, one entry a model. Without a GPU this refuses;
`--tiny --device cpu` walks the whole path with a model of nothing, for the tests.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from datasets import Dataset
from peft import get_peft_model
from protocol import interval, write_result
from rich.console import Console
from rich.table import Table
from tokenizer import tiny_tokenizer  # beside this file
from torch import nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from innerlingua import RoutingAlignment, RoutingPrior, Trainer
from innerlingua.recipe.model import adapter_config
from innerlingua.recipe.schema import PeftSection

BACKENDS = ("grouped_mm", "sonicmoe", "deepgemm", "batched_mm", "eager")
# Dense bfloat16 with float32 accumulation, TFLOP/s, as the maker states it. The first part that the name holds counts.
PEAK_TFLOPS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "GH200": 989, "B200": 2250, "A100": 312, "L40S": 362}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3-30b-a3b": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    },
    "one-billion": {
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "moe_intermediate_size": 512,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 32,
        "num_experts_per_tok": 4,
    },
}
TINY = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}
ALIGNED = {"qwen3-30b-a3b": range(7, 35), "one-billion": range(2, 12)}
VARIANTS = ("plain", "prior", "live")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a row (default 4096)")
    parser.add_argument("--batch", type=int, default=1, help="rows of a step (default 1)")
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50, help="timed steps of a run (default 50)")
    parser.add_argument("--repeats", type=int, default=1, help="times A B C C B A (default 1: two runs of each)")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations (TRL recomputes them)")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, where this file does not know it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of nothing: the path, no figures")
    parser.add_argument("--output", type=Path, help="default benchmarks/results/<name of the GPU>.json")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        refuse("torch sees no GPU here, and this benchmark measures one: run it where there is one")
    if args.device == "cpu" and not args.tiny:
        refuse("--device cpu is for --tiny alone: a model of this size says nothing on a processor")
    output = args.output or output_of(args)
    kept: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))["models"] if output.exists() else {}
    console = Console(width=130)
    for name in args.model:
        kept[name] = measure(args, name, console)
        write_result(output, {"models": kept})
        gc.collect()
        if args.device == "cuda":
            torch.cuda.empty_cache()
    console.print(f"written: {output}")


def refuse(reason: str) -> None:
    print(f"gpu.py: {reason}", file=sys.stderr)
    raise SystemExit(2)


def output_of(args: argparse.Namespace) -> Path:
    if args.device == "cpu" or args.tiny:
        return Path("runs/benchmarks/gpu_tiny.json")
    name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    return Path(__file__).parent / "results" / f"{name}.json"


# -- the model and the rows -------------------------------------------------------------------------------------------


def empty_model(args: argparse.Namespace, name: str) -> PreTrainedModel:
    """Made without memory, then drawn at random where it will run."""
    sizes = TINY if args.tiny else MODELS[name]
    config = Qwen3MoeConfig(**sizes, norm_topk_prob=True, max_position_embeddings=max(4096, args.tokens))
    adapters = name == "qwen3-30b-a3b"
    config.dtype = torch.bfloat16 if adapters else torch.float32
    with torch.device("meta"):
        model = Qwen3MoeForCausalLM(config).to(config.dtype)
    model.to_empty(device=args.device)
    torch.manual_seed(0)
    with torch.no_grad():
        model.initialize_weights()
    return model


def with_adapters(base: PreTrainedModel) -> nn.Module:
    """As a recipe trains them: routers whole."""
    model: nn.Module = get_peft_model(base, adapter_config(PeftSection(router="train"), base))
    return model


@contextmanager
def trained_in_float32(model: nn.Module) -> Iterator[None]:
    """What is trained is float32 while it is trained, as a recipe has it; afterwards as before."""
    short = [(p, p.dtype) for p in model.parameters() if p.requires_grad and p.dtype != torch.float32]
    for parameter, _ in short:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in short:
            parameter.grad = None
            parameter.data = parameter.data.to(dtype)


def rows_of(args: argparse.Namespace, vocabulary: int) -> Dataset:
    generator = np.random.default_rng(0)
    rows = []
    for number in range(args.batch * 8):
        target, anchor = generator.integers(3, vocabulary, (2, args.tokens)).tolist()
        sides = {"input_ids": target, "labels": target, "anchor_input_ids": anchor, "anchor_labels": anchor}
        rows.append({"id": str(number), "language": "swh_Latn"} | sides)
    return Dataset.from_list(rows)


def arguments_of(args: argparse.Namespace, steps: int) -> SFTConfig:
    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.batch,
        max_steps=steps,
        max_length=None,
        learning_rate=1e-6,  # so that the routing stays what it is
        use_cpu=args.device == "cpu",
        bf16=True,
        report_to="none",
        gradient_checkpointing=not args.no_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=args.device == "cuda",
    )


# -- measuring --------------------------------------------------------------------------------------------------------


class Clock(TrainerCallback):
    """Seconds of each step, from the end of one to the end of the next, and the peak of memory after the warm-up."""

    def __init__(self, device: str, warm_up: int) -> None:
        self.device, self.warm_up = device, warm_up
        self.ends: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
            if state.global_step == self.warm_up:
                torch.cuda.reset_peak_memory_stats()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> np.ndarray:
        return np.diff(self.ends)[self.warm_up - 1 :]


def train(
    args: argparse.Namespace, model: nn.Module, rows: Dataset, terms: list[Any], *, warm_up: int, steps: int
) -> tuple[np.ndarray, dict[str, int]]:
    """Seconds of each timed step, and the allocator's peaks in bytes."""
    clock = Clock(args.device, warm_up)
    kwargs = {
        "model": model,
        "args": arguments_of(args, warm_up + steps),
        "train_dataset": rows,
        "processing_class": tiny_tokenizer(),
        "callbacks": [clock],
    }
    trainer = Trainer(**kwargs, terms=terms) if terms else SFTTrainer(**kwargs)
    trainer.remove_callback(PrinterCallback)
    with trained_in_float32(model):
        trainer.train()
    uncast(model)
    peaks = {}
    if args.device == "cuda":
        peaks = {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    del trainer, kwargs
    model.zero_grad(set_to_none=True)
    gc.collect()
    return clock.seconds, peaks


def uncast(model: nn.Module) -> None:
    """Take accelerate's casting off the forward: the next trainer puts its own there, around a forward of its own."""
    extract_model_from_parallel(model, keep_fp32_wrapper=False)
    if hasattr(model, "_is_accelerate_prepared"):
        del model._is_accelerate_prepared


def fastest_backend(args: argparse.Namespace, base: PreTrainedModel, model: nn.Module, rows: Dataset) -> dict[str, Any]:
    """The median seconds of a few plain steps with each experts backend, or why it does not run here."""
    tried: dict[str, Any] = {}
    for backend in args.backends:
        try:
            base.set_experts_implementation(backend)
            seconds, _ = train(args, model, rows, [], warm_up=2, steps=3)
            tried[backend] = float(np.median(seconds))
        except (
            RuntimeError,
            ImportError,
            ValueError,
            NotImplementedError,
            TypeError,
            AttributeError,
            OSError,
        ) as error:
            lines = str(error).strip().splitlines()
            tried[backend] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
            uncast(model)
            model.zero_grad(set_to_none=True)
            gc.collect()
        if args.device == "cuda":
            torch.cuda.empty_cache()
    timed = {backend: value for backend, value in tried.items() if isinstance(value, float)}
    if not timed:
        raise RuntimeError(f"no experts backend ran: {tried}")
    used = min(timed, key=lambda backend: timed[backend])
    base.set_experts_implementation(used)
    return {"tried": tried, "used": used}


def measure(args: argparse.Namespace, name: str, console: Console) -> dict[str, Any]:
    adapters = name == "qwen3-30b-a3b"
    base = empty_model(args, name)
    rows = rows_of(args, base.config.vocab_size)
    layers = list(range(1, 3)) if args.tiny else list(ALIGNED[name])
    parameters = sum(parameter.numel() for parameter in base.parameters())
    started = time.perf_counter()
    prior = RoutingPrior.compute(
        base, rows, tiny_tokenizer(), args=arguments_of(args, 1), layers=layers, batch_size=1, progress=False
    )
    prior_seconds = time.perf_counter() - started
    load = busiest(base, rows, args)
    model: nn.Module = with_adapters(base) if adapters else base
    backend = fastest_backend(args, base, model, rows)
    console.print(f"{name}: experts backends {backend['tried']}; used: {backend['used']}")

    terms: dict[str, Callable[[], list[Any]]] = {
        "plain": list,
        "prior": lambda: [RoutingAlignment(anchor=prior, verify_weights=False)],
        "live": lambda: [RoutingAlignment(anchor="live", layers=layers)],
    }
    seconds: dict[str, list[np.ndarray]] = {variant: [] for variant in VARIANTS}
    peaks: dict[str, dict[str, int]] = {}
    for _ in range(args.repeats):
        for variant in (*VARIANTS, *reversed(VARIANTS)):
            taken, peak = train(args, model, rows, terms[variant](), warm_up=args.warm_up, steps=args.steps)
            seconds[variant].append(taken)
            peaks[variant] = {key: max(value, peaks.get(variant, {}).get(key, 0)) for key, value in peak.items()}
    result = {
        "sizes": TINY if args.tiny else MODELS[name],
        "parameters": parameters,
        "trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "training": "LoRA and whole routers" if adapters else "full",
        "tokens_of_a_row": args.tokens,
        "rows_of_a_step": args.batch,
        "supervised_share": 1.0,
        "routing": "the routers' own, random weights and tokens",
        "busiest_expert_over_mean": load,
        "attention": base.config._attn_implementation,
        "gradient_checkpointing": not args.no_checkpointing,
        "experts_backends": backend,
        "aligned_layers": layers,
        "prior_seconds": {"rows": len(rows), "seconds": prior_seconds, "with": "the backend that transformers picks"},
        "attention_rule": "causal: half the square counts; recomputation does not",
        "warm_up": args.warm_up,
        "steps": args.steps,
        "runs": {variant: run_of(args, base, seconds[variant], peaks[variant], adapters) for variant in VARIANTS},
        "share_of_the_alignment": {variant: share(seconds, variant) for variant in VARIANTS[1:]},
        "aa": aa(seconds["plain"]),
    }
    show(console, name, result)
    return result


def busiest(model: PreTrainedModel, rows: Dataset, args: argparse.Namespace) -> float:
    """Tokens of the busiest expert of a layer over the mean of its experts, the mean over layers, on one row."""
    ids = torch.tensor([rows[0]["input_ids"]], device=args.device)
    with torch.no_grad():
        logits = model.base_model(input_ids=ids, use_cache=False, output_router_logits=True).router_logits
    config, ratios = model.config, []
    for layer in logits:
        chosen = layer.topk(config.num_experts_per_tok, dim=-1).indices.flatten()
        counts = torch.bincount(chosen, minlength=config.num_experts).float()
        ratios.append(float(counts.max() / counts.mean()))
    return float(np.mean(ratios))


def step_flops(config: Qwen3MoeConfig, *, tokens: int, batch: int, adapters: bool) -> float:
    """Operations of the mathematics of one step; see the head of this file."""
    hidden, width = config.hidden_size, config.head_dim * config.num_attention_heads
    attention = hidden * (2 * width + 2 * config.head_dim * config.num_key_value_heads)
    experts = 3 * hidden * config.moe_intermediate_size * config.num_experts_per_tok
    router = hidden * config.num_experts
    active = config.num_hidden_layers * (attention + experts + router) + hidden * config.vocab_size
    causal = config.num_hidden_layers * 2 * 2 * width * tokens / 2
    return (2.0 * active + causal) * tokens * batch * (2 if adapters else 3)


def peak_of(args: argparse.Namespace) -> float | None:
    if args.peak_tflops is not None:
        return float(args.peak_tflops) * 1e12
    if args.device == "cpu":
        return None
    name = torch.cuda.get_device_name()
    known = [value for part, value in PEAK_TFLOPS.items() if all(word in name for word in part.split())]
    return known[0] * 1e12 if known else None


def run_of(
    args: argparse.Namespace,
    base: PreTrainedModel,
    seconds: list[np.ndarray],
    peaks: dict[str, int],
    adapters: bool,
) -> dict[str, Any]:
    every = np.concatenate(seconds)
    median = float(np.median(every))
    five, ninety_five = np.quantile(every, [0.05, 0.95])
    operations = step_flops(base.config, tokens=args.tokens, batch=args.batch, adapters=adapters)
    peak = peak_of(args)
    return {
        "seconds": median,
        "spread": [float(five), float(ninety_five)],
        "medians_of_runs": [float(np.median(run)) for run in seconds],
        "tokens_per_second": args.tokens * args.batch / median,
        "tflops": operations / median / 1e12,
        "mfu": None if peak is None else operations / median / peak,
        "peak_bytes": peaks,
    }


def share(seconds: dict[str, list[np.ndarray]], variant: str) -> dict[str, Any]:
    """The ratio of the variant's steps to the plain ones of the same repeat and place, with its interval."""
    ratios = np.concatenate([b / a for a, b in zip(seconds["plain"], seconds[variant], strict=True)])
    return {"median": float(np.median(ratios)), "interval": interval(ratios)}


def aa(plain: list[np.ndarray]) -> dict[str, Any]:
    """The plain run against the other plain run."""
    ratios = np.concatenate([b / a for a, b in zip(plain[::2], plain[1::2], strict=True)])
    return {"median": float(np.median(ratios)), "interval": interval(ratios)}


def show(console: Console, name: str, result: dict[str, Any]) -> None:
    title = f"{name}, {result['training']}, {result['rows_of_a_step']} x {result['tokens_of_a_row']} tokens"
    table = Table("run", "seconds", "5-95 %", "tokens/s", "MFU", "allocated", "reserved", "/ plain", title=title)
    for variant, run in result["runs"].items():
        ratio = result["share_of_the_alignment"].get(variant)
        low, high = run["spread"]
        table.add_row(
            variant,
            f"{run['seconds']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{run['tokens_per_second']:,.0f}",
            "" if run["mfu"] is None else f"{run['mfu']:.1%}",
            *(
                f"{run['peak_bytes'][key] / 2**30:.1f} GiB" if run["peak_bytes"] else ""
                for key in ("allocated", "reserved")
            ),
            ""
            if ratio is None
            else f"{ratio['median']:.3f} ({ratio['interval'][0]:.3f} to {ratio['interval'][1]:.3f})",
        )
    console.print(table)
    console.print(f"busiest expert / mean: {result['busiest_expert_over_mean']:.2f}; A/A {result['aa']['median']:.3f}")


if __name__ == "__main__":
    main()
