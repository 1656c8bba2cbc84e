"""Which tokens of a row are pooled, for both sides of a pair alike, and the pass that pools many texts.

| pooling | the segment of a row |
|---|---|
| sequence | all tokens that are not padding, prompt and template included (the paper's choice) |
| completion | the tokens that the loss is taken over |
| prompt | the others |
| spans | one segment for each aligned span of the pair |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from innerlingua.anatomy import RoutingTap, resharded
from innerlingua.anatomy.check import evaluation_mode
from innerlingua.data.encode import IGNORED
from innerlingua.errors import DataError, RecipeError, nearest
from innerlingua.progress import LineProgress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["POOLINGS", "PooledText", "batch_texts", "check_pooling", "pad_token_id", "pool_texts", "segment_ids"]

POOLINGS = ("sequence", "completion", "prompt", "spans")


def check_pooling(pooling: str) -> str:
    """`pooling` itself, or `RecipeError` for an unknown word."""
    if pooling not in POOLINGS:
        raise RecipeError(f"unknown pooling {pooling!r}{nearest(str(pooling), POOLINGS)}")
    return pooling


@dataclass(frozen=True)
class PooledText:
    """One tokenised text that is to be pooled: its name in messages, token ids, and the local segment of each token."""

    name: str
    token_ids: Sequence[int]
    segments: Sequence[int]


def segment_ids(row: Mapping[str, Any], pooling: str, *, prefix: str = "") -> list[int]:
    """The local segment of each token of one side of a tokenised row, -1 for tokens that are left out.

    `prefix` is `""` for the target and `"anchor_"` for the anchor. Raises `DataError` when no token is left to pool
    over.
    """
    token_ids = row[f"{prefix}input_ids"]
    if pooling == "sequence":
        return [0] * len(token_ids)
    if pooling == "spans":
        segments = list(row[f"{prefix}span_ids"])
    else:
        supervised = pooling == "completion"
        segments = [0 if (label != IGNORED) == supervised else -1 for label in row[f"{prefix}labels"]]
    if max(segments, default=-1) < 0:
        side = "anchor" if prefix else "target"
        raise DataError(f"row {row['id']!r}: its {side} has no token to pool over with pooling '{pooling}'")
    return segments


def pool_texts(
    tap: RoutingTap, texts: Sequence[PooledText], *, batch_size: int, pad_token_id: int, progress: str | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Send `texts` through the backbone and yield (position, pooled routing (segments, layers, experts)) of each.

    Evaluation mode, no gradient, no language-model head. Texts of similar length share a batch, so the order of the
    results is not that of `texts`. `progress` is the title of a progress bar; None shows none.
    """
    order = sorted(range(len(texts)), key=lambda position: len(texts[position].token_ids), reverse=True)
    backbone = tap.layers[0].backbone
    device = next(backbone.get_input_embeddings().parameters()).device
    with (
        LineProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            disable=progress is None,
            transient=True,
        ) as bar,
        resharded(tap.root),
        evaluation_mode(backbone),
    ):
        task = bar.add_task(progress or "", total=len(texts))
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            input_ids, attention_mask, segments = batch_texts([texts[position] for position in chunk], pad_token_id)
            # Around the pass alone: a caller that stops early must not be left without gradients.
            with torch.no_grad(), tap.capture(segments=segments.to(device)) as routing:
                tap.run(input_ids.to(device), attention_mask.to(device))
            counts = [max(texts[position].segments) + 1 for position in chunk]
            yield from zip(chunk, torch.split(routing.pooled.cpu(), counts), strict=True)
            bar.advance(task, len(chunk))


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What to pad with. Any id does, since the mask leaves padding out."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(candidate, int):
            return candidate
    return 0


def batch_texts(texts: Sequence[PooledText], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded token ids, attention mask and segments (unique in the batch) of `texts`, each (rows, tokens)."""
    width = max(len(text.token_ids) for text in texts)
    input_ids = torch.full((len(texts), width), pad_token_id)
    attention_mask = torch.zeros((len(texts), width), dtype=torch.long)
    segments = torch.full((len(texts), width), -1)
    offset = 0
    for row, text in enumerate(texts):
        length = len(text.token_ids)
        input_ids[row, :length] = torch.tensor(text.token_ids)
        attention_mask[row, :length] = 1
        local = torch.tensor(text.segments)
        segments[row, :length] = torch.where(local >= 0, local + offset, -1)
        offset += int(local.max()) + 1
    return input_ids, attention_mask, segments
