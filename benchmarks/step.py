"""What the alignment adds to a training step, in time and in memory.

    python benchmarks/step.py [--pairs 40] [--output runs/benchmarks/step.json]

For full fine-tuning and for LoRA (routers trained whole), without and with gradient checkpointing:

| row | limit |
|---|---|
| A/A: plain `trl.SFTTrainer` against itself | |
| stored prior / plain | 1.02 |
| live anchors / plain | 1 + operations of the headless anchor pass / operations of a plain step, + 0.03 |
| live anchors / (plain, then a bare headless pass over the anchors) | 1.03 |
| straightforward / stored prior, both with the model's own head | 1.3 at least |
| straightforward / stored prior, as they come | 1.3 at least |
| straightforward / live anchors, both with the model's own head | |
| straightforward / live anchors, as they come | |
| straightforward / the same without alignment | |

The pass over the anchors is as deep as the last aligned layer. The straightforward way is `straightforward.py`, with
live anchors; that its loss is ours is asserted before anything is timed. It takes the model's own head and loss where
ours takes TRL's fused ones, so there are two comparisons: as they come, and with ours on that head, too, where the
alignment alone is left between them. What either adds to memory is held against the same trainer without alignment.

How a ratio is measured says `protocol.py`. Memory is counted bytes: what a forward pass saves for the backward pass,
and the most that is alive at once during forward and backward; parameters, gradients and the optimizer's state are in
neither. Limits of the peak: 1.01 of the plain one for the stored prior, and half of what the straightforward way adds.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from counted import flops, peak_bytes, saved_bytes
from protocol import CLOCKS, Ratio, compare, row_of, timed, write_result
from rich.console import Console
from rich.table import Table
from straightforward import ModelHeadTrainer, SameHeadTrainer, StraightforwardTrainer
from tables import TITLES

from training import (
    WEIGHT,
    Subject,
    add_model_arguments,
    aligned_layers,
    anchor_pass,
    live,
    model_of,
    optimizer_of,
    plain,
    prior_of,
    rows_of,
    set_checkpointing,
    stored,
    subject_of,
    with_adapters,
)

STORED_TIME, STORED_PEAK, LIVE_SLACK, GAIN, EXTRA = 1.02, 1.01, 0.03, 1.3, 0.5
TUNINGS = ("full", "lora")
# What is timed as (A, B); the ratio is that of B to A.
AGAINST = {
    "stored": ("plain", "stored"),
    "live": ("plain", "live"),
    "live_and_bare": ("plain_and_bare", "live"),
    "same_head_stored": ("stored_same_head", "straightforward"),
    "straightforward_stored": ("stored", "straightforward"),
    "same_head_live": ("live_same_head", "straightforward"),
    "straightforward_live": ("live", "straightforward"),
    "straightforward_alone": ("straightforward_without", "straightforward"),
}

# Not looked at for memory.
UNWEIGHED = ("stored_same_head", "live_same_head")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of steps (default 40)")
    parser.add_argument("--tuning", nargs="+", choices=TUNINGS, default=list(TUNINGS))
    parser.add_argument("--checkpointing", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument(
        "--rows", nargs="*", choices=AGAINST, default=list(AGAINST), help="ratios beside A/A (default all)"
    )
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor's time, for a busy machine")
    parser.add_argument("--micro-batches", type=int, default=1, help="batches of an optimizer's step (default 1)")
    add_model_arguments(parser, hidden=512, layers=8, experts=16, top_k=4, tokens=128, batch=4)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/step.json"))
    args = parser.parse_args()

    console = Console(width=130)
    result: dict[str, Any] = {"sizes": sizes_of(args), "clock": args.clock, "configurations": {}}
    for tuning in args.tuning:
        for checkpointing in args.checkpointing:
            name = f"{tuning}, checkpointing {checkpointing}"
            measured: dict[str, Any] = {}
            result["configurations"][name] = measured
            for part in measure(args, tuning=tuning, checkpointing=checkpointing == "on", name=name):
                measured |= part
                write_result(args.output, result)  # what is measured so far is kept
            show(console, name, measured)
            gc.collect()


def sizes_of(args: argparse.Namespace) -> dict[str, Any]:
    model = model_of(args)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "experts_implementation": model.config._experts_implementation,
        "aligned_layers": aligned_layers(args.layers),
        "micro_batches": args.micro_batches,
        "target_tokens": args.micro_batches * args.batch * args.tokens,
        "anchor_tokens": args.micro_batches * args.batch * args.tokens,
    }


def measure(args: argparse.Namespace, *, tuning: str, checkpointing: bool, name: str) -> Iterator[dict[str, Any]]:
    """One configuration, part by part."""
    base, rows = model_of(args), rows_of(args)
    prior = prior_of(args, base, rows)
    model = with_adapters(base) if tuning == "lora" else base
    optimizer = optimizer_of(model)

    makers: dict[str, Callable[..., Any]] = {
        "plain": plain,
        "other": plain,
        "stored": stored(prior),
        "live": live(prior.layers),
        "straightforward": partial(StraightforwardTrainer, layers=prior.layers, weight=WEIGHT),
        "straightforward_without": ModelHeadTrainer,
        "stored_same_head": stored(prior, SameHeadTrainer),
        "live_same_head": live(prior.layers, SameHeadTrainer),
    }
    subjects = {key: subject_of(args, model, rows, optimizer, make) for key, make in makers.items()}
    set_checkpointing(model, checkpointing)

    losses = {key: float(subject.forward_and_backward(0)) for key, subject in subjects.items()}
    model.zero_grad()
    for ours in ("stored", "live", "stored_same_head", "live_same_head"):
        gap = abs(losses[ours] - losses["straightforward"]) / abs(losses["straightforward"])
        assert gap < 1e-5, f"the losses differ: {losses}"
    assert abs(losses["plain"] - losses["straightforward_without"]) < 1e-5 * losses["plain"], f"differ: {losses}"
    subjects["plain"].step(0)  # the optimizer makes its state
    memory = memory_of({key: subject for key, subject in subjects.items() if key not in UNWEIGHED})
    bare = anchor_pass(subjects["live"], model, prior.layers)
    share = anchor_share(subjects["plain"], bare, base)

    def plain_and_bare(number: int) -> None:
        subjects["plain"].step(number)
        bare(number)

    yield {"losses": losses, "memory": memory, "anchor_share_of_operations": share}
    steps = {key: timed(subject.step, args.clock) for key, subject in subjects.items()}
    steps["plain_and_bare"] = timed(plain_and_bare, args.clock)
    aa = compare(steps["plain"], steps["other"], pairs=args.pairs, title=f"{name}: A/A")
    limits = {"stored": STORED_TIME, "live": 1 + share + LIVE_SLACK, "live_and_bare": 1 + LIVE_SLACK}
    ratios: dict[str, Any] = {"aa": row_of(aa)}
    yield {"ratios": ratios}
    for key in args.rows:
        a, b = AGAINST[key]
        ratio = compare(steps[a], steps[b], pairs=args.pairs, title=f"{name}: {TITLES[key]}")
        gain = key in ("same_head_stored", "straightforward_stored")
        ratios[key] = gain_of(ratio, aa) if gain else row_of(ratio, aa, limits.get(key))
        yield {"ratios": ratios}


def gain_of(ratio: Ratio, aa: Ratio) -> dict[str, Any]:
    """A ratio that must be large: its lower end, more the half-width of A/A, is held against the limit."""
    lower = ratio.low + aa.half_width
    return row_of(ratio) | {"bound": lower, "limit": GAIN, "met": lower >= GAIN}


def memory_of(subjects: dict[str, Subject]) -> dict[str, Any]:
    """Counted bytes of one forward, and of one forward and backward pass.

    For the peak the gradients are there already, as in every micro-batch but the first: with full fine-tuning the bytes
    of new gradients would hide what else is alive.
    """
    found: dict[str, Any] = {}
    for key, subject in subjects.items():
        model = subject.trainer.model
        saved = saved_bytes(partial(subject.forward, 0), model.parameters())
        subject.forward_and_backward(0)
        found[key] = {"saved": saved, "peak": peak_bytes(partial(subject.forward_and_backward, 0))}
        model.zero_grad()
    ratio = found["stored"]["peak"] / found["plain"]["peak"]
    found["stored / plain"] = {"peak": ratio, "limit": STORED_PEAK, "met": ratio <= STORED_PEAK}
    for kind in ("saved", "peak"):
        theirs = found["straightforward"][kind] - found["straightforward_without"][kind]
        for key in ("stored", "live"):
            ours = found[key][kind] - found["plain"][kind]
            row = {"added": ours, "added_by_straightforward": theirs, "share": ours / theirs}
            judged = {"limit": EXTRA, "met": ours <= EXTRA * theirs} if kind == "peak" else {}
            found[f"{key}, {kind}"] = row | judged
    return found


def anchor_share(subject: Subject, bare: Callable[[int], None], base: Any) -> float:
    """Operations of a headless forward pass over the anchors of a step, as a share of those of a plain step."""
    before = base.config._experts_implementation
    base.set_experts_implementation("eager")
    try:
        step = flops(lambda: subject.forward_and_backward(0))
        anchors = flops(lambda: bare(0))
    finally:
        base.set_experts_implementation(before)
        subject.trainer.model.zero_grad()
    return anchors / step


def show(console: Console, name: str, measured: dict[str, Any]) -> None:
    table = Table("step", "ratio", "95 % interval", "5-95 % of pairs", "seconds", "bound", "limit", title=name)
    for key, row in measured["ratios"].items():
        bound = f"{row['bound']:.3f}" if "bound" in row else ""
        limit = f"{row['limit']:.3f} {'met' if row['met'] else 'missed'}" if "limit" in row else ""
        low, high = row["spread"]
        table.add_row(
            TITLES[key],
            f"{row['median']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{row['seconds_b']:.3f} / {row['seconds_a']:.3f}",
            bound,
            limit,
        )
    console.print(table)
    for key, row in measured["memory"].items():
        verdict = ("met" if row["met"] else "missed") if "met" in row else ""
        numbers = ", ".join(f"{kind} {value:,}" for kind, value in row.items() if kind != "met")
        console.print(f"  {key}: {numbers} {verdict}")
    console.print(f"  anchor pass / plain step in operations: {measured['anchor_share_of_operations']:.3f}")


if __name__ == "__main__":
    main()
