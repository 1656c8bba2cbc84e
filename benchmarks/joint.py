"""Live anchors under FSDP2: in a pass of their own, or in one pass with the targets.

    python benchmarks/joint.py [--pairs 40] [--output runs/benchmarks/joint.json]

Two processes on this machine share one model (`fully_shard`, gloo). A pass of their own for the anchors needs no graph,
no head and no activations, but gathers every layer once more. One pass for both gathers once, but the anchors' rows are
then in the graph of the targets: they are kept for the backward pass and go through it, although no gradient is wanted
from them. Both give one loss, which is asserted.

    A: `RoutingAlignment(anchor="live")` around the pass over the targets, as the package does it
    B: targets and anchors in one batch, the anchors' labels ignored, their pooled routing detached

The order and the interval are those of `protocol.py`; the seconds are those of the first process, which waits for the
other at every gather.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from protocol import compare, row_of, timed, write_result
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from innerlingua import RoutingAlignment
from innerlingua.anatomy import RoutingTap
from innerlingua.routing.divergence import js_unchecked
from training import VOCABULARY, WEIGHT, add_model_arguments, aligned_layers, model_of

PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of steps (default 40)")
    add_model_arguments(parser, hidden=256, layers=8, experts=16, top_k=4, tokens=128, batch=4)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/joint.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, args=(args, folder), nprocs=PROCESSES)


def work(rank: int, args: argparse.Namespace, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    model = HeadOfSomeRows(model_of(args))
    for layer in model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    steps = Steps(args, model, rank)
    losses = {name: float(getattr(steps, name)(0)) for name in ("own", "joint")}
    assert abs(losses["own"] - losses["joint"]) < 1e-5 * losses["own"], f"the losses differ: {losses}"
    aa = compare(timed(steps.plain), timed(steps.plain), pairs=args.pairs, title="A/A: plain / plain")
    own = compare(timed(steps.plain), timed(steps.own), pairs=args.pairs, title="own pass / plain")
    joint = compare(timed(steps.own), timed(steps.joint), pairs=args.pairs, title="one pass for both / own pass")
    if rank == 0:
        ratios = {"aa": asdict(aa), "own / plain": row_of(own, aa), "joint / own": row_of(joint, aa)}
        write_result(args.output, {"processes": PROCESSES, "losses": losses, "ratios": ratios})
        for name, ratio in (("A/A", aa), ("own pass / plain", own), ("one pass for both / own pass", joint)):
            Console().print(
                f"{name}: {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), "
                f"{ratio.seconds_b:.3f} / {ratio.seconds_a:.3f} s"
            )
    dist.barrier()
    dist.destroy_process_group()


class HeadOfSomeRows(nn.Module):
    """The root of the shards: the backbone on all rows, the head on the first `rows` of them alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        rows: int | None = None,
    ) -> tuple[Tensor]:
        hidden = self.model.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)
        kept = hidden.last_hidden_state[:rows, -logits_to_keep:]
        return (self.model.lm_head(kept),)


class Steps:
    """Forward and backward on one batch: without anchors, with a pass of their own, with one pass for both."""

    def __init__(self, args: argparse.Namespace, model: Any, rank: int) -> None:
        self.model, self.layers = model, aligned_layers(args.layers)
        generator = torch.Generator().manual_seed(rank)
        self.target, self.anchor = torch.randint(3, VOCABULARY, (2, args.batch, args.tokens), generator=generator)
        self.term = RoutingAlignment(anchor="live", layers=self.layers, weight=WEIGHT)
        self.tap = RoutingTap(model, self.layers)

    def plain(self, number: int) -> Tensor:
        return self._finish(self._entropy(self.target, self.target))

    def own(self, number: int) -> Tensor:
        rows = len(self.target)
        segments = torch.arange(rows)[:, None].expand_as(self.anchor)
        entries = {"pair_index": torch.arange(rows), "anchor_input_ids": self.anchor, "anchor_segments": segments}
        entries["anchor_attention_mask"] = torch.ones_like(self.anchor)
        with self.term.capture(self.model, entries) as captured:
            loss = self._entropy(self.target, self.target)
        total, pairs = self.term.loss(captured, entries)
        return self._finish(loss + WEIGHT * total / pairs)

    def joint(self, number: int) -> Tensor:
        rows = len(self.target)
        with self.tap.capture() as captured:
            loss = self._entropy(torch.cat([self.target, self.anchor]), self.target)
        target, anchor = captured.pooled.split(rows)
        return self._finish(loss + WEIGHT * js_unchecked(anchor.detach(), target).mean())

    def _entropy(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Over the rows of `labels`, which come first; the head sees these alone."""
        (logits,) = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), rows=len(labels))
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    def _finish(self, loss: Tensor) -> Tensor:
        loss.backward()
        self.model.zero_grad()
        return loss.detach()


if __name__ == "__main__":
    main()
