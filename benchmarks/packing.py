"""Padding: the same rows trained padded, length-grouped, padding-free and packed; tokens per second beside padded.

    INNERLINGUA_DATA=... python benchmarks/packing.py [--pairs 40]

The lengths are those of real instructions (rows of `instruct/english_instructions` under Apache-2.0), tokenised by a
byte-level BPE that is trained on them. A block is 32 of these rows, drawn anew for each pair and trained with forward,
backward and one optimizer step, with a stored prior:

- padded: micro-batches of 8 rows in random order, as long as the longest of them;
- grouped: the same, from rows sorted by length (what `train_sampling_strategy: group_by_length` comes near to);
- padding-free: micro-batches of 8 rows, end to end;
- packed: rows packed to 1,024 tokens, one packed row a micro-batch.

All do the work of the same tokens, so the ratio of times is that of tokens per second. The sum of the losses of a block
is compared, too: every way must give the same.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from protocol import compare, row_of, timed, write_result  # beside this file
from rich.console import Console
from rich.table import Table
from tokenizer import tiny_tokenizer
from tokenizers import ByteLevelBPETokenizer

from innerlingua import Trainer
from innerlingua.data import PACK_VARIABLE, pack_rows
from training import VOCABULARY, add_model_arguments, arguments_of, model_of, optimizer_of, prior_of, stored

ROWS, BATCH, PACKED = 32, 8, 1024
Rows = list[dict[str, Any]]


def read_rows(folder: Path) -> Rows:
    """Instructions and answers as token ids; those longer than a packed row are left out."""
    with gzip.open(folder / "instruct" / "english_instructions.jsonl.gz", "rt", encoding="utf-8") as stream:
        read = [json.loads(line) for line in stream]
    texts = [
        "\n".join(filter(None, (row["instruction"], row.get("input"), row["output"])))
        for row in read
        if row["license"] == "Apache-2.0"
    ]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=VOCABULARY - 3, show_progress=False)
    rows = []
    for place, text in enumerate(texts):
        ids = [token + 3 for token in bpe.encode(text).ids]
        if 2 <= len(ids) <= PACKED:
            rows.append(
                {
                    "id": str(place),
                    "language": "swh_Latn",
                    "input_ids": ids,
                    "labels": ids,
                    "anchor_input_ids": ids[::-1],  # another text of the same length
                    "anchor_labels": ids[::-1],
                }
            )
    return rows


def padded(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def grouped(rows: Rows) -> Iterator[Rows]:
    yield from padded(sorted(rows, key=lambda row: len(row["input_ids"])))


def packed(rows: Rows) -> Iterator[Rows]:
    for row in pack_rows(Dataset.from_list(rows), PACKED):
        yield [row]


class Blocks:
    """Trains the blocks in one way. All ways share a model and an optimizer."""

    def __init__(self, trainer: Trainer, blocks: list[Rows], way: Callable[[Rows], Iterator[Rows]]) -> None:
        self.trainer = trainer
        self.batches = [[trainer.data_collator(rows) for rows in way(block)] for block in blocks]
        self.losses: dict[int, float] = {}

    def __call__(self, number: int) -> None:
        trainer = self.trainer
        number %= len(self.batches)
        batches = [dict(batch) for batch in self.batches[number]]
        batches, items = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
        trainer.current_gradient_accumulation_steps = len(batches)
        total = 0.0
        for place, batch in enumerate(batches):
            trainer.accelerator.gradient_state._set_sync_gradients(place == len(batches) - 1)
            total += float(trainer.training_step(trainer.model, batch, items))
        self.losses[number] = total
        trainer.optimizer.step()
        trainer.model.zero_grad()

    def share_of_padding(self, tokens: int) -> float:
        return 1 - tokens / sum(batch["input_ids"].numel() for block in self.batches for batch in block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of blocks for each row of the table (40)")
    add_model_arguments(parser, hidden=128, layers=4, experts=32, top_k=4, tokens=PACKED, batch=BATCH)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/packing.json"))
    args = parser.parse_args()
    if not os.environ.get(PACK_VARIABLE):
        sys.exit(f"this benchmark takes its lengths from the data pack: set {PACK_VARIABLE}")

    rows = read_rows(Path(os.environ[PACK_VARIABLE]))
    generator = np.random.default_rng(0)
    blocks = [[rows[place] for place in generator.choice(len(rows), ROWS, replace=False)] for _ in range(args.pairs)]
    model = model_of(args)
    model.config.router_aux_loss_coef = 0.0  # a mean over each micro-batch, which differs between the ways by itself
    optimizer = optimizer_of(model)
    data = Dataset.from_list(list({row["id"]: row for block in blocks for row in block}.values()))
    prior = prior_of(args, model, data)

    def way(name: str, arrange: Callable[[Rows], Iterator[Rows]], *, joined: bool) -> Blocks:
        options = arguments_of(args)
        options.padding_free = joined
        options.router_aux_loss_coef = 0.0
        trainer = stored(prior)(
            model=model,
            args=options,
            train_dataset=data,
            processing_class=tiny_tokenizer(),
            optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)),
        )
        return Blocks(trainer, blocks, arrange)

    base, again = way("padded", padded, joined=False), way("padded", padded, joined=False)
    others = {
        "length-grouped / padded": way("grouped", grouped, joined=False),
        "padding-free / padded": way("padding-free", padded, joined=True),
        "packed / padded": way("packed", packed, joined=True),
    }
    tokens = sum(len(row["input_ids"]) for block in blocks for row in block)
    aa = compare(timed(base), timed(again), pairs=args.pairs, title="A/A")
    result: dict[str, Any] = {
        "rows": len(rows),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_of_a_row": [float(q) for q in np.quantile([len(r["input_ids"]) for r in rows], [0, 0.5, 0.9, 1])],
        "tokens_of_a_block": tokens / len(blocks),
        "ratios": {"A/A: padded / padded": row_of(aa)},
        "ways": {"A/A: padded / padded": {"padding": base.share_of_padding(tokens)}},
    }
    for name, blocks_of in others.items():
        result["ratios"][name] = row_of(compare(timed(base), timed(blocks_of), pairs=args.pairs, title=name), aa)
        gaps = [abs(blocks_of.losses[number] / base.losses[number] - 1) for number in base.losses]
        padding = blocks_of.share_of_padding(tokens)
        result["ways"][name] = {"padding": padding, "difference_of_loss": max(gaps)}
    write_result(args.output, result)
    show(result)


def show(result: dict[str, Any]) -> None:
    table = Table("way", "time", "95 % interval", "tokens/s", "padding", "difference of loss")
    for name, row in result["ratios"].items():
        way = result["ways"][name]
        gap = way.get("difference_of_loss")
        table.add_row(
            name,
            f"{row['median']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{result['tokens_of_a_block'] / row['seconds_b']:,.0f}",
            f"{way['padding']:.1%}",
            "" if gap is None else f"{gap:.1e}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
