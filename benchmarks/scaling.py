"""How the cost of the alignment grows with each size of a step.

    python benchmarks/scaling.py [--pairs 40] [--output runs/benchmarks/scaling.json]

Timed is what the alignment adds and nothing beside it: a Qwen3-MoE whose attention and experts do nothing (its routers,
norms and embeddings stay) makes a forward and backward pass without and with the term, in the order A B B A; the cost
is the median difference of neighbours. With the term means all of it: its collation with the look-up in the stored
prior, the capture, the loss, and its way back through the routers.

One size at a time is doubled four times:

| size | what |
|---|---|
| tokens | tokens of a row |
| layers | aligned layers |
| experts | experts of a layer |
| batch | rows of a step, each a pair |
| spans | pairs within a row (aligned spans), rows and tokens as they are |
| prior | pairs in the data set, and so in the prior |

The slope is that of log(seconds) over log(size), by least squares; its 95 % interval is a bootstrap over the pairs of
steps. 1 is in proportion; below 1 there is a part that does not grow.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from protocol import CLOCKS, interval, pairs_of, timed, write_result
from rich.console import Console
from rich.table import Table
from tokenizer import tiny_tokenizer  # beside this file
from torch import Tensor
from transformers import PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from innerlingua import RoutingAlignment, RoutingPrior

VOCABULARY = 64
HIDDEN = 16
DOUBLINGS = 4
EXPLAINED_ABOVE = 1.1


@dataclass(frozen=True)
class Sizes:
    """A step of the size from which one at a time is doubled; `spans` 0 stands for whole rows."""

    tokens: int = 128
    layers: int = 4
    experts: int = 64
    batch: int = 4
    spans: int = 0
    prior: int = 0  # at least the rows of a step

    def times(self, name: str, factor: int) -> Sizes:
        return replace(self, **{name: (getattr(self, name) or self.first(name)) * factor})

    def first(self, name: str) -> int:
        return {"spans": 1, "prior": 1024}[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of steps of each size (default 40)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor's time, for a busy machine")
    names = ("tokens", "layers", "experts", "batch", "spans", "prior")
    parser.add_argument("--sizes", nargs="+", choices=names, default=list(names))
    parser.add_argument("--doublings", type=int, default=DOUBLINGS)
    parser.add_argument("--base", type=int, nargs=4, metavar=("TOKENS", "LAYERS", "EXPERTS", "BATCH"))
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/scaling.json"))
    args = parser.parse_args()

    start = Sizes(*args.base) if args.base else Sizes()
    rows: dict[str, Any] = {}
    for name in args.sizes:
        steps = [start.times(name, 2**power) for power in range(args.doublings + 1)]
        seconds = [
            measure(sizes, pairs=args.pairs, clock=args.clock, title=f"{name} {getattr(sizes, name)}")
            for sizes in steps
        ]
        rows[name] = row_of([getattr(sizes, name) for sizes in steps], seconds)
    write_result(args.output, {"start": asdict(start), "clock": args.clock, "hidden": HIDDEN, "slopes": rows})
    show(rows)


def measure(sizes: Sizes, *, pairs: int, clock: str, title: str) -> np.ndarray:
    """Seconds without and with the term, (pairs, 2)."""
    model = router_model(sizes)
    term, batch_of = (whole_rows if sizes.spans == 0 else spans)(sizes, model)
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, VOCABULARY, (sizes.batch, sizes.tokens), generator=generator)
    inputs = {"input_ids": input_ids.to(model.device), "use_cache": False}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def without(number: int) -> None:
        loss = model.base_model(**inputs).last_hidden_state.mean()
        torch.autograd.grad(loss, parameters, allow_unused=True)

    def with_term(number: int) -> None:
        batch = {key: value.to(model.device) for key, value in batch_of(number).items()}
        with term.capture(model, batch) as captured:
            loss = model.base_model(**inputs).last_hidden_state.mean()
        total, count = term.loss(captured, batch)
        torch.autograd.grad(loss + total / count, parameters, allow_unused=True)

    return pairs_of(timed(without, clock), timed(with_term, clock), pairs=pairs, title=title, warm_up=3)


def router_model(sizes: Sizes) -> PreTrainedModel:
    """A Qwen3-MoE in which attention and experts do nothing."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        moe_intermediate_size=1,
        num_hidden_layers=sizes.layers,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=HIDDEN,
        num_experts=sizes.experts,
        num_experts_per_tok=2,
        max_position_embeddings=max(4096, sizes.tokens),
    )
    model = Qwen3MoeForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu").train()
    for layer in model.model.layers:
        layer.self_attn.forward = lambda hidden_states, **kwargs: (torch.zeros_like(hidden_states), None)
        layer.mlp.experts.forward = lambda hidden_states, index, weights: hidden_states
    return model


Batches = Callable[[int], dict[str, Tensor]]


def whole_rows(sizes: Sizes, model: PreTrainedModel) -> tuple[RoutingAlignment, Batches]:
    """Each row a pair, its anchor in a stored prior of `sizes.prior` entries."""
    count = max(sizes.prior, sizes.batch)
    ids = [str(number) for number in range(count)]
    two = {f"{side}{column}": [3, 4] for side in ("", "anchor_") for column in ("input_ids", "labels")}
    anchors = Dataset.from_list([{"id": name, "language": "swh_Latn"} | two for name in ids])
    prior = RoutingPrior.compute(model, anchors, tiny_tokenizer(), batch_size=256, progress=False)
    model.train()
    term = RoutingAlignment(anchor=prior)
    rows = [{"id": name, "input_ids": [3] * sizes.tokens} for name in ids]
    generator = np.random.default_rng(0)

    def batch_of(number: int) -> dict[str, Tensor]:
        chosen = generator.choice(count, sizes.batch, replace=False)
        return term.collate([rows[place] for place in chosen], sizes.tokens)

    return term, batch_of


def spans(sizes: Sizes, model: PreTrainedModel) -> tuple[RoutingAlignment, Batches]:
    """`sizes.spans` pairs in each row; their anchors' routing is given, so no pass over anchors is made."""
    term = RoutingAlignment(anchor="live", layers=range(sizes.layers), pooling="spans")
    local = torch.arange(sizes.tokens) * sizes.spans // sizes.tokens
    segments = torch.stack([local + row * sizes.spans for row in range(sizes.batch)])
    count = sizes.batch * sizes.spans
    prior = torch.rand((count, sizes.layers, sizes.experts), generator=torch.Generator().manual_seed(0)).softmax(-1)
    batch = {"segments": segments, "pair_index": torch.arange(count), "prior": prior}
    return term, lambda number: dict(batch)


def row_of(sizes: list[int], seconds: list[np.ndarray]) -> dict[str, Any]:
    """The cost at each size, and the slope."""
    costs = [table[:, 1] - table[:, 0] for table in seconds]
    medians = [float(np.median(cost)) for cost in costs]
    generator = np.random.default_rng(0)
    drawn = np.array([np.median(generator.choice(cost, (2000, len(cost))), axis=1) for cost in costs]).clip(min=1e-9)
    slopes = np.polyfit(np.log2(sizes), np.log2(drawn), 1)[0]
    low, high = np.quantile(slopes, [0.025, 0.975])
    return {
        "sizes": sizes,
        "seconds": medians,
        "intervals": [interval(cost) for cost in costs],
        "seconds_without": [float(np.median(table[:, 0])) for table in seconds],
        "slope": float(np.polyfit(np.log2(sizes), np.log2(np.maximum(medians, 1e-9)), 1)[0]),
        "low": float(low),
        "high": float(high),
        "last_doubling": float(np.log2(max(medians[-1], 1e-9) / max(medians[-2], 1e-9))),
        "to_explain": bool(low > EXPLAINED_ABOVE),
    }


def show(rows: dict[str, Any]) -> None:
    console = Console(width=130)
    table = Table("size", "from", "to", "added ms", "slope", "95 % interval", "last doubling", "above 1.1")
    for name, row in rows.items():
        table.add_row(
            name,
            str(row["sizes"][0]),
            str(row["sizes"][-1]),
            ", ".join(f"{1000 * cost:.2f}" for cost in row["seconds"]),
            f"{row['slope']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"{row['last_doubling']:.2f}",
            "yes" if row["to_explain"] else "",
        )
    console.print(table)


if __name__ == "__main__":
    main()
