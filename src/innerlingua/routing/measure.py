"""How far the routing of each language is from that of its anchors, measured on pairs.

The JS of a language at a layer is the mean over its pairs of `js_divergence(pooled target, pooled anchor)`, in nats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from innerlingua.anatomy import RoutingTap
from innerlingua.errors import DataError
from innerlingua.routing.divergence import js_divergence
from innerlingua.routing.inputs import check_batch_size, check_tokenizer, tokenised_rows
from innerlingua.routing.pooling import PooledText, pad_token_id, pool_texts
from innerlingua.routing.prior import anchor_texts

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = ["mean_divergence", "pair_divergence"]


def pair_divergence(
    model: nn.Module,
    dataset: Dataset | Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    layers: Sequence[int] | None = None,
    score: str | None = None,
    batch_size: int = 16,
    progress: bool = False,
) -> dict[str, Tensor]:
    """The divergence of every pair of `dataset`, by language: (pairs, layers), nats, whole sequences pooled.

    Both sides go through `model` as it is now. Rows without an anchor are passed over; `layers` are all MoE layers by
    default, in order of depth. Raises `DataError` when no row has an anchor.
    """
    check_tokenizer(tokenizer)
    check_batch_size(batch_size)
    dataset = tokenised_rows(dataset, tokenizer)
    tap = RoutingTap(model, layers, score=score)
    padding = pad_token_id(tokenizer)
    title = "Routing divergence" if progress else None
    absent = {"id", "language", "anchor_input_ids"} - set(dataset.column_names)
    if absent:
        raise DataError(f"the tokenised rows lack the columns {sorted(absent)}: tokenize_pairs makes them")
    rows = list(dataset.select_columns(["id", "language", "input_ids", "anchor_input_ids"]))
    rows = [row for row in rows if row["anchor_input_ids"] is not None]
    if not rows:
        raise DataError("no row of the dataset has an anchor, so there is no divergence to measure")
    anchors = anchor_texts(dataset)
    position = {text.name: index for index, text in enumerate(anchors)}
    anchor_pooled = _pooled(tap, anchors, batch_size=batch_size, pad_token_id=padding, progress=title)
    targets = [PooledText(row["id"], row["input_ids"], [0] * len(row["input_ids"])) for row in rows]
    target_pooled = _pooled(tap, targets, batch_size=batch_size, pad_token_id=padding, progress=title)
    divergence = js_divergence(anchor_pooled[[position[row["id"]] for row in rows]], target_pooled)
    by_language: defaultdict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_language[row["language"]].append(index)
    return {language: divergence[indices] for language, indices in by_language.items()}


def mean_divergence(divergence: dict[str, Tensor], layers: Sequence[int]) -> dict[str, dict[int, float]]:
    """`pair_divergence` as `{language: {decoder layer: mean JS in nats}}`."""
    return {
        language: dict(zip(layers, values.mean(dim=0).tolist(), strict=True)) for language, values in divergence.items()
    }


def _pooled(
    tap: RoutingTap, texts: Sequence[PooledText], *, batch_size: int, pad_token_id: int, progress: str | None
) -> Tensor:
    pooled = torch.empty((len(texts), len(tap.layers), tap.layers[0].num_experts))
    for row, value in pool_texts(tap, texts, batch_size=batch_size, pad_token_id=pad_token_id, progress=progress):
        pooled[row] = value[0]
    return pooled
