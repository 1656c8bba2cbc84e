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

__all__ = [
    "POOLINGS",
    "PooledText",
    "batch_texts",
    "batches_by_length",
    "check_pooling",
    "pad_token_id",
    "padding_share",
    "pool_batches",
    "pool_texts",
    "segment_ids",
]

POOLINGS = ("sequence", "completion", "prompt", "spans")

# Positions that keep a processor busy, and how much shorter than its longest row a batch takes rows from there on.
_WORTH_A_PASS = 1024
_LIKE = 0.8


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


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Places of `lengths` in batches of like length, the longest first.

    The longest text decides what a batch may hold: `batch_size` rows of its length, so many positions with padding. As
    many of the shorter ones go together as fill that, since a pass over a few short texts leaves the hardware idle;
    but what is much shorter than the first row of a batch waits for the next, once a batch is worth a pass. Memory is
    at its most in the first batch, so what does not fit shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda place: lengths[place], reverse=True)
    positions = batch_size * lengths[order[0]] if order else 0
    batches: list[list[int]] = []
    width = 0
    for place in order:
        rows = len(batches[-1]) if batches else 0
        full = (rows + 1) * width > positions
        waits = rows * width >= _WORTH_A_PASS and lengths[place] < _LIKE * width
        if not batches or full or waits:
            batches.append([])
            width = lengths[place]
        batches[-1].append(place)
    return batches


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of the positions of `batches` that is padding, in [0, 1)."""
    positions = sum(len(batch) * max(lengths[place] for place in batch) for batch in batches if batch)
    tokens = sum(lengths[place] for batch in batches for place in batch)
    return 1 - tokens / positions if positions else 0.0


def pool_texts(
    tap: RoutingTap, texts: Sequence[PooledText], *, batch_size: int, pad_token_id: int, progress: str | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Send `texts` through the backbone and yield (position, pooled routing (segments, layers, experts)) of each.

    Evaluation mode, no gradient, no language-model head. Texts of similar length share a batch (`batches_by_length`),
    so the order of the results is not that of `texts`. `progress` is the title of a progress bar; None shows none.
    """
    batches = batches_by_length([len(text.token_ids) for text in texts], batch_size)
    for batch, pooled in pool_batches(tap, texts, batches, pad_token_id=pad_token_id, progress=progress):
        counts = [max(texts[place].segments) + 1 for place in batch]
        yield from zip(batch, torch.split(pooled, counts), strict=True)


def pool_batches(
    tap: RoutingTap,
    texts: Sequence[PooledText],
    batches: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    progress: str | None = None,
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """As `pool_texts`, for `batches` of places in `texts`: yields each batch and what was pooled of it on the CPU,
    (segments, layers, experts), the segments of its texts one after the other.

    An empty batch is a pass over one token that is thrown away: where parameters are sharded every process must make as
    many passes as the others.
    """
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
        task = bar.add_task(progress or "", total=sum(map(len, batches)))
        waiting: tuple[Sequence[int], _OnItsWay] | None = None
        for batch in batches:
            rows = [texts[place] for place in batch] or [_NOTHING]
            input_ids, attention_mask, segments = batch_texts(rows, pad_token_id)
            # Around the pass alone: a caller that stops early must not be left without gradients.
            with torch.no_grad(), tap.capture(segments=segments.to(device)) as routing:
                tap.run(input_ids.to(device), attention_mask.to(device))
            pooled = _OnItsWay(routing.pooled)
            # One batch late, so that a GPU has the next one to compute while this one is read.
            if waiting is not None:
                yield waiting[0], waiting[1].arrived()
                bar.advance(task, len(waiting[0]))
            waiting = (batch, pooled) if batch else None
        if waiting is not None:
            yield waiting[0], waiting[1].arrived()
            bar.advance(task, len(waiting[0]))


class _OnItsWay:
    """A tensor that is being copied to the CPU while its device goes on."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.to("cpu", non_blocking=tensor.is_cuda)
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own is not
            self._event.record(torch.cuda.current_stream(tensor.device))

    def arrived(self) -> Tensor:
        """The copy, once it is whole."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy


_NOTHING = PooledText("", [0], [0])


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
