"""What computing a routing prior costs beside a bare forward pass, and what reading a large stored one costs.

    python benchmarks/prior.py [--pairs 40] [--output runs/benchmarks/prior.json]

A step is one set of anchors, from short to long. A: the backbone alone, no gradient, no hooks, over batches that lie
ready, padded. B: the same batches cut, padded and sent through with the routing pooled inside, the rows kept and stored
on disk. The order and the interval are those of `protocol.py`. The limit, 0.95 of the bare pass's tokens per second, is
met when the upper end of the ratio of times, less the half-width of A/A, is at most 1 / 0.95. All layers are captured,
which is the most that there can be. With `--fixed-rows` batches of a fixed number of rows are held against those that
are filled by length. What `RoutingPrior.compute` does once before the pass is timed by itself: the model's fingerprint,
and gathering and hashing 10,000 anchors.

Reading: a prior of 100,000 anchors, 48 layers and 128 experts (2.5 GB) is written piece by piece; a fresh process opens
it and reads the rows of some batches, once with the file thrown out of the page cache before.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Dataset
from protocol import CLOCKS, bound, compare, row_of, timed, write_result  # beside this file
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from innerlingua.anatomy import RoutingTap
from innerlingua.routing import RoutingPrior
from innerlingua.routing.fingerprint import hash_tokens, model_fingerprint
from innerlingua.routing.pooling import PooledText, batch_texts, batches_by_length, padding_share
from innerlingua.routing.prior import anchor_texts
from innerlingua.routing.prior_files import TENSORS, record_text, write_prior
from innerlingua.routing.prior_pass import prior_pass
from innerlingua.routing.processes import ALONE

VOCABULARY = 8192
LIMIT = 1 / 0.95
BATCHES, ROWS = 64, 8  # what is read of the large prior


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
    return Qwen3MoeForCausalLM(config).eval().to("cuda" if torch.cuda.is_available() else "cpu")


def lengths_of(args: argparse.Namespace, generator: np.random.Generator) -> list[int]:
    """Log-normal around `--tokens`, as the lengths of instructions are."""
    drawn = generator.lognormal(np.log(args.tokens), 0.6, args.anchors)
    return [int(length) for length in np.clip(drawn, 8, 8 * args.tokens)]


def anchors_of(args: argparse.Namespace) -> list[list[int]]:
    """Random token ids of such lengths."""
    generator = np.random.default_rng(0)
    lengths = lengths_of(args, generator)
    return [generator.integers(3, VOCABULARY, length).tolist() for length in lengths]


def rows_of(anchors: Sequence[list[int]]) -> Dataset:
    rows = [
        {"id": f"{place:06d}", "language": "swh_Latn", "input_ids": ids, "anchor_input_ids": ids}
        for place, ids in enumerate(anchors)
    ]
    return Dataset.from_list(rows)


def batches_of(lengths: Sequence[int], args: argparse.Namespace) -> dict[str, list[list[int]]]:
    """The batches that a pass makes, and those of a fixed number of rows."""
    filled = [list(batch) for batch in batches_by_length(lengths, args.batch)]
    order = [place for batch in filled for place in batch]
    fixed = [order[start : start + args.batch] for start in range(0, len(order), args.batch)]
    return {"filled by length": filled, "of a fixed number of rows": fixed}


def padding_of(lengths: Sequence[int], batches: dict[str, list[list[int]]]) -> dict[str, Any]:
    return {name: {"number": len(some), "padding": padding_share(lengths, some)} for name, some in batches.items()}


def measure_pass(args: argparse.Namespace) -> dict[str, Any]:
    model = model_of(args)
    tap = RoutingTap(model)
    backbone = tap.layers[0].backbone
    texts = [PooledText(f"{place:06d}", ids, [0] * len(ids)) for place, ids in enumerate(anchors_of(args))]
    lengths = [len(text.token_ids) for text in texts]
    batches = batches_of(lengths, args)
    filled, fixed = batches.values()

    def ready(batches: Sequence[Sequence[int]]) -> list[tuple[Tensor, Tensor]]:
        padded = [batch_texts([texts[place] for place in batch], 0)[:2] for batch in batches]
        return [(ids.to(backbone.device), mask.to(backbone.device)) for ids, mask in padded]

    by_length, by_rows = ready(filled), ready(fixed)

    def forward(batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        with torch.no_grad():
            for input_ids, mask in batches:
                backbone(input_ids=input_ids, attention_mask=mask, use_cache=False)

    def bare(number: int) -> None:
        forward(by_length)

    def bare_rows(number: int) -> None:
        forward(by_rows)

    payload = record_text(
        ids=[text.name for text in texts],
        texts=["" for _ in texts],
        layers=[layer.index for layer in tap.layers],
        experts=args.experts,
        pooling="sequence",
        score="softmax",
        fingerprint={},
    )

    def only_pass(number: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            prior_pass(
                tap,
                texts,
                payload,
                batch_size=args.batch,
                pad_token_id=0,
                processes=ALONE,
                present=True,
                folder=Path(folder),
                title=None,
                say=lambda text: None,
            )

    aa = compare(timed(bare, args.clock), timed(bare, args.clock), pairs=args.pairs, title="A/A")
    passed = compare(timed(bare, args.clock), timed(only_pass, args.clock), pairs=args.pairs, title="pass / bare")
    ratios = {"A/A: bare / bare": row_of(aa), "prior pass / bare": row_of(passed, aa, LIMIT)}
    if args.fixed_rows:
        rows = compare(timed(bare, args.clock), timed(bare_rows, args.clock), pairs=args.pairs, title="fixed rows")
        ratios["bare, fixed rows / bare, filled"] = row_of(rows, aa)
    tokens = sum(lengths)
    many = rows_of([list(texts[place % len(texts)].token_ids) for place in range(10_000)])
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "anchors": len(texts),
        "tokens": tokens,
        "batches": padding_of(lengths, batches),
        "once": {
            "the model's fingerprint, seconds": timed(lambda number: model_fingerprint(model))(0),
            "10,000 anchors gathered and hashed, seconds": timed(lambda number: hashed(many))(0),
        },
        "clock": args.clock,
        "ratios": ratios,
        "throughput": {
            "share of the bare pass": 1 / passed.median,
            "lower bound": 1 / bound(passed, aa),
            "tokens per second": tokens / passed.seconds_b,
            "bare tokens per second": tokens / passed.seconds_a,
        },
    }


def hashed(rows: Dataset) -> list[str]:
    return [hash_tokens([*text.token_ids, *text.segments]) for text in anchor_texts(rows)]


def large_rows(args: argparse.Namespace) -> Iterator[tuple[range, Tensor]]:
    piece = torch.softmax(torch.randn((256, 48, 128), generator=torch.Generator().manual_seed(0)), dim=-1)
    for start in range(0, args.stored, len(piece)):
        places = range(start, min(start + len(piece), args.stored))
        yield places, piece[: len(places)]


def measure_reading(args: argparse.Namespace) -> dict[str, Any]:
    """The large prior on disk, and what two fresh processes say of it, the first with nothing in the page cache."""
    with tempfile.TemporaryDirectory(dir=args.disk) as name:
        folder = Path(name)
        payload = record_text(
            ids=[f"instruction-{place:06d}" for place in range(args.stored)],
            texts=[f"{place:016x}" for place in range(args.stored)],
            layers=range(48),
            experts=128,
            pooling="sequence",
            score="softmax",
            fingerprint={
                "weights": {f"model.layers.{place}.weight": "float32 [1] " + "0" * 16 for place in range(600)},
                "compute": "bfloat16",
            },
        )
        memory = psutil.Process().memory_info().rss
        start = time.perf_counter()
        write_prior(folder, payload, large_rows(args))
        written = time.perf_counter() - start
        grown = psutil.Process().memory_info().rss - memory
        found = {}
        for state in ("cold", "warm"):
            if state == "cold":
                for path in folder.iterdir():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            done = subprocess.run(
                [sys.executable, __file__, "--read", name], capture_output=True, text=True, check=True
            )
            found[state] = json.loads(done.stdout)
        return {
            "anchors": args.stored,
            "bytes": (folder / TENSORS).stat().st_size,
            "record_bytes": len(payload.encode()),
            "write_seconds": written,
            "write_memory_bytes": grown,
            **found,
        }


def read(folder: str) -> dict[str, Any]:
    """Open the prior in `folder` and read some batches of rows from it, in this process."""
    torch.zeros(1)  # torch's own first touch of memory is none of the prior's
    process = psutil.Process()
    memory, read_bytes = process.memory_info().rss, process.io_counters().read_bytes
    start = time.perf_counter()
    prior = RoutingPrior.open(folder)
    opened = time.perf_counter() - start
    after_open = process.memory_info().rss
    generator = np.random.default_rng(0)
    batches = [[prior.ids[place] for place in generator.integers(0, len(prior), ROWS)] for _ in range(BATCHES)]
    start = time.perf_counter()
    for batch in batches:
        prior.rows(batch)
    rows = time.perf_counter() - start
    return {
        "open_seconds": opened,
        "open_memory_bytes": after_open - memory,
        "seconds_per_batch": rows / BATCHES,
        "rows_memory_bytes": process.memory_info().rss - after_open,
        "read_bytes": process.io_counters().read_bytes - read_bytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - memory,
        "pickled_bytes": len(pickle.dumps(prior)),
    }


def show(result: dict[str, Any]) -> None:
    console = Console()
    if "ratios" in result:
        table = Table("step", "ratio of time", "95 % interval", "seconds", title=f"{result['tokens']:,} tokens a step")
        for name, row in result["ratios"].items():
            seconds = f"{row['seconds_b']:.3f} / {row['seconds_a']:.3f}"
            table.add_row(name, f"{row['median']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", seconds)
        console.print(table)
        for what, seconds in result["once"].items():
            console.print(f"once: {what}: {seconds:.2f}")
        through = result["throughput"]
        met = "met" if result["ratios"]["prior pass / bare"]["met"] else "missed"
        console.print(
            f"tokens per second: {through['share of the bare pass']:.3f} of the bare pass (limit 0.95: {met}); "
            f"padding {result['batches']['filled by length']['padding']:.1%}"
        )
    if "reading" in result:
        stored = result["reading"]
        console.print(
            f"a prior of {stored['anchors']:,} anchors, {stored['bytes'] / 1e9:.2f} GB, written in "
            f"{stored['write_seconds']:.1f} s with {stored['write_memory_bytes'] / 1e6:.0f} MB"
        )
        for state in ("cold", "warm"):
            found = stored[state]
            console.print(
                f"{state}: opened in {found['open_seconds']:.3f} s with {found['open_memory_bytes'] / 1e6:.0f} MB; "
                f"{ROWS} rows in {found['seconds_per_batch'] * 1e3:.2f} ms; {found['read_bytes'] / 1e6:.1f} MB read"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of steps (default 40)")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--anchors", type=int, default=64, help="anchors of a step")
    parser.add_argument("--tokens", type=int, default=64, help="median tokens of an anchor")
    parser.add_argument("--batch", type=int, default=8, help="batch_size: rows of the longest anchor's length")
    parser.add_argument("--fixed-rows", action="store_true", help="also batches of a fixed number of rows")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor's time, for a busy machine")
    parser.add_argument("--stored", type=int, default=100_000, help="anchors of the large stored prior")
    parser.add_argument("--disk", type=Path, help="where to put the large prior for a while (default: temporary files)")
    parser.add_argument("--only", choices=("pass", "reading", "padding"), help="a part; padding is counted alone")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/prior.json"))
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read)))
        return
    result: dict[str, Any] = {}
    if args.only == "padding":
        lengths = lengths_of(args, np.random.default_rng(0))
        for name, found in padding_of(lengths, batches_of(lengths, args)).items():
            print(f"{args.anchors:,} anchors, {name}: {found['number']:,} batches, padding {found['padding']:.2%}")
        return
    if args.only != "reading":
        result |= measure_pass(args)
    if args.only != "pass":
        result["reading"] = measure_reading(args)
    write_result(args.output, result, packages=("torch", "transformers", "safetensors", "innerlingua"))
    show(result)


if __name__ == "__main__":
    main()
