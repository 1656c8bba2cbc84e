"""How the tokens of a batch are pooled: from a mask or segments to the weights of one matrix product.

Shape letters as in `hooks.py`: B rows, T tokens of a row, S segments, K slots (most segments in one row). A slot is
the place of a segment in its row, so that rows with different numbers of segments share one tensor.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from innerlingua.errors import ModelError

__all__ = ["call_arguments", "pooling_weights"]


def call_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments of a call by name, or None when the tokens of the batch cannot be told from them."""
    named = dict(kwargs)
    if args:
        names = list(inspect.signature(module.forward).parameters.values())
        if any(name.kind is inspect.Parameter.VAR_POSITIONAL for name in names):
            return None
        named.update({name.name: value for name, value in zip(names, args, strict=False)})
    if named.get("input_ids") is None and named.get("inputs_embeds") is None:
        return None
    return named


def pooling_weights(
    inputs: Mapping[str, Any], *, mask: Tensor | None, segments: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The weight of each token in each slot, (B, K, T) float32, and the place of each segment among the B x K slots.

    The weights of a slot sum to one. The place is None when every row is one segment. `inputs` are the arguments of the
    call by name; errors are those of `capture_routing`.
    """
    tokens = inputs["input_ids"] if inputs.get("input_ids") is not None else inputs["inputs_embeds"]
    shape = (int(tokens.shape[0]), int(tokens.shape[1]))
    if segments is not None:
        return _segment_weights(_fitted(segments, shape, "segments").to(tokens.device))
    given = mask is not None
    if mask is None:
        mask = inputs.get("attention_mask")
        if mask is None:
            mask = torch.ones(shape, device=tokens.device)
        elif not isinstance(mask, Tensor) or mask.dim() != 2:
            raise ModelError(
                "the batch's attention mask is not a (batch, tokens) tensor, so it does not say which tokens count: "
                "pass `mask=` or `segments=` to the capture"
            )
        elif mask.shape[1] > shape[1]:
            mask = mask[:, -shape[1] :]  # decoding with a cache: the mask also covers the tokens before these
    if given and not bool(((mask == 0) | (mask == 1)).all()):
        raise ModelError(
            "`mask` has other values than 0 and 1: it says which tokens are pooled, and weighs none of them"
        )
    mask = (_fitted(mask, shape, "mask") != 0).to(tokens.device)
    if not given:
        _refuse_unmarked_packing(inputs.get("position_ids"), mask)
    counts_B = mask.sum(dim=1)
    if not bool((counts_B > 0).all()):
        empty = (counts_B == 0).nonzero().flatten().tolist()
        raise ModelError(f"rows {empty} of the batch have no token to pool over: their mask is all zero")
    return (mask / counts_B[:, None]).float().unsqueeze(1), None


def _fitted(given: Tensor, shape: tuple[int, int], name: str) -> Tensor:
    if tuple(given.shape) != shape:
        raise ModelError(f"`{name}` has shape {tuple(given.shape)}, but the batch is {shape} (batch, tokens)")
    return given


def _segment_weights(segments_BT: Tensor) -> tuple[Tensor, Tensor]:
    if segments_BT.is_floating_point():
        raise ModelError("`segments` must be integers: the segment of each token, -1 for none")
    rows, _ = segments_BT.shape
    inside_BT = segments_BT >= 0
    if not bool(inside_BT.any()):
        raise ModelError("`segments` names no segment: every token has a negative id")
    row_BT = torch.arange(rows, device=segments_BT.device)[:, None].expand_as(segments_BT)
    ids_N, rows_N = segments_BT[inside_BT].long(), row_BT[inside_BT]
    total = int(ids_N.max()) + 1
    if total > ids_N.numel():  # before anything of that size is made
        raise ModelError(
            f"`segments` has the id {total - 1}, but only {ids_N.numel()} tokens: ids run from 0 on, each used"
        )
    counts_S = torch.bincount(ids_N, minlength=total)
    if not bool((counts_S > 0).all()):
        raise ModelError(
            f"`segments` skips the ids {(counts_S == 0).nonzero().flatten().tolist()[:5]} of 0 to {total - 1}"
        )
    row_S = torch.zeros(total, dtype=torch.long, device=segments_BT.device).scatter_(0, ids_N, rows_N)
    if not bool((row_S[ids_N] == rows_N).all()):
        broken = sorted(set(ids_N[row_S[ids_N] != rows_N].tolist()))[:5]
        raise ModelError(f"the segments {broken} lie in more than one row: a segment is unique in the batch")
    # The slot of a segment: how many segments of the same row have a smaller id.
    order_S = torch.argsort(row_S, stable=True)
    per_row_B = torch.bincount(row_S, minlength=rows)
    first_B = per_row_B.cumsum(0) - per_row_B
    slot_S = torch.empty_like(row_S)
    slot_S[order_S] = torch.arange(total, device=row_S.device) - first_B[row_S[order_S]]
    slots = int(per_row_B.max())
    weight_BKT = torch.zeros((rows, slots, segments_BT.shape[1]), device=segments_BT.device)
    token_N = torch.arange(segments_BT.shape[1], device=row_S.device).expand_as(segments_BT)[inside_BT]
    weight_BKT[rows_N, slot_S[ids_N], token_N] = 1.0 / counts_S[ids_N]
    return weight_BKT, row_S * slots + slot_S


def _refuse_unmarked_packing(position_ids: Any, mask_BT: Tensor) -> None:
    if not isinstance(position_ids, Tensor) or position_ids.dim() != 2 or position_ids.shape[1] != mask_BT.shape[1]:
        return
    restarts = (position_ids[:, 1:] <= position_ids[:, :-1]).to(mask_BT.device)
    if bool((restarts & mask_BT[:, 1:] & mask_BT[:, :-1]).any()):
        raise ModelError(
            "the position ids start again inside a row, so several sequences are packed there, but no `segments` were "
            "given: the mean over the row would mix them"
        )
