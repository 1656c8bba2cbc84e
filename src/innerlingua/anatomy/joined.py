"""Rows that lie end to end in one: does a model keep them apart?

Attention does, by position ids that start again or by the limits that flash attention takes; but some families of
transformers (5.23: gpt-oss, Afmoe) do not hand the position ids to what makes the mask, and without flash attention
their rows see each other in silence. Layers with a state of their own (Mamba, linear attention) need kernels that are
told where a row begins; some of the plain versions carry the state of one row into the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from innerlingua.anatomy.check import evaluation_mode
from innerlingua.anatomy.sharding import check_present, resharded
from innerlingua.errors import ModelError

__all__ = ["check_joined_rows"]

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Any]]

_TOKENS = 12
_LIMIT = {torch.float32: 1e-4, torch.float64: 1e-4}  # of the mean size; coarser types: two digits
_REMEDY = "train it with padding (packing off, padding_free=False)"


def check_joined_rows(model: nn.Module, collate: Collate) -> None:
    """Raise `ModelError` when what `model` computes for a row depends on the row that lies before it.

    `collate` makes a batch of rows (`input_ids`, `labels`), end to end, as the training will. A few tokens are sent
    through the model, in evaluation mode and without gradient: the second row after two different first rows, which
    must make no difference, and by itself, which must not either. Where parameters are sharded, every process must take
    part.
    """
    check_present(model)
    embeddings = next(model.get_input_embeddings().parameters())  # type: ignore[operator]  # transformers' method
    device, vocabulary = embeddings.device, embeddings.shape[0]
    first, other, second = torch.randint(vocabulary, (3, _TOKENS), generator=torch.Generator().manual_seed(0)).tolist()

    def last_row(*rows: Sequence[int]) -> Tensor:
        batch = dict(collate([{"input_ids": list(row), "labels": list(row)} for row in rows]))
        del batch["labels"]
        there = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        end = _TOKENS * len(rows)
        output: Tensor = model(**there, use_cache=False).logits
        return output[0, end - _TOKENS : end].float()

    with resharded(model), evaluation_mode(model), torch.no_grad():
        try:
            joined, after_another, alone = last_row(first, second), last_row(other, second), last_row(second)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ModelError(
                f"{type(model).__name__} cannot take rows that lie end to end ({' '.join(str(error).split())}): "
                f"{_REMEDY}"
            ) from error
    limit = _LIMIT.get(embeddings.dtype, 2e-2)
    size = alone.abs().mean()
    if not torch.isfinite(size):
        raise ModelError(
            f"{type(model).__name__} gives values that are not finite for {_TOKENS} tokens: look for such values among "
            "its weights"
        )
    for compared, what in (
        (after_another, "another row before it"),
        (alone, "no row before it"),
    ):
        gap = float((joined - compared).abs().mean() / size)
        if not gap <= limit:
            raise ModelError(
                f"{type(model).__name__} does not keep rows apart that lie end to end: with {what} a row gives other "
                f"values (by {gap:.1%} of their mean size). Load it with flash attention (attn_implementation: "
                "flash_attention_2) where only attention mixes tokens; layers with a state (Mamba, linear attention) "
                f"need their own kernels (mamba-ssm, causal-conv1d, flash-linear-attention); or {_REMEDY}"
            )
