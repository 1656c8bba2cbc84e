"""Batches for a trainer with terms: TRL's own collation, and each term's entries beside it.

A batch is padded, one row below the other, or padding-free: all rows end to end in a single one, told apart by position
ids that start again. Terms know padded rows alone; what they give is joined here in the same way.

Numbers with a fraction travel as the integers that have the same bits. Under DeepSpeed the Trainer casts every
floating-point tensor of a batch to the type of the weights, and a prior would lose two thirds of its digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerlingua.data.packing import unpack_rows
from innerlingua.errors import DataError
from innerlingua.training.terms import Term

__all__ = ["TermCollator", "rows_in", "split_batch"]

# Where a term's entries stand in a batch: "term.<name>.<key>", and "term.<name>.<key>.<type>" for bits of a type.
_PREFIX = "term."
_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
_TYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _BITS}


@dataclass(frozen=True)
class TermCollator:
    """Collates with `base` and adds the terms' entries.

    `base` is TRL's collator, so that the fine-tuning part of a batch is exactly TRL's.
    """

    base: Callable[[list[dict[str, Any]]], dict[str, Any]]
    terms: tuple[Term, ...]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch of tokenised rows, packed or not."""
        batch = self.base(rows)
        width = int(batch["input_ids"].shape[1])
        rows = list(unpack_rows(rows))
        lengths = torch.tensor([len(row["input_ids"]) for row in rows]) if _is_joined(batch) else None
        for term in self.terms:
            missing = [column for column in term.columns if column not in rows[0]]
            if missing:
                # Only rows given to `evaluate` or `predict` get here unseen, and TRL tokenises their targets alone.
                raise DataError(
                    f"the rows lack the columns {missing} that the term {term.name} reads: make them with "
                    "tokenize_pairs"
                )
            entries = term.collate(rows, width if lengths is None else int(lengths.max()))
            if lengths is not None:
                entries = _joined(entries, lengths, width)
            for key, value in entries.items():
                batch |= _as_bits(f"{_PREFIX}{term.name}.{key}", value)
        return batch


def rows_in(batch: Mapping[str, Any]) -> int:
    """How many rows a collated batch holds: one below the other, or end to end."""
    if _is_joined(batch):
        # Every row has a second token, and padding at the end has none: there each token starts anew.
        return int((batch["position_ids"] == 1).sum())
    return len(batch["input_ids"])


def split_batch(batch: Mapping[str, Any], terms: Sequence[Term]) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """A batch as (what the model's forward takes, the entries of each term under their own keys)."""
    inputs = {key: value for key, value in batch.items() if not key.startswith(_PREFIX)}
    entries = []
    for term in terms:
        prefix = f"{_PREFIX}{term.name}."
        entries.append(
            dict(_from_bits(key.removeprefix(prefix), value) for key, value in batch.items() if key.startswith(prefix))
        )
    return inputs, entries


def _is_joined(batch: Mapping[str, Any]) -> bool:
    return "position_ids" in batch and "attention_mask" not in batch


def _joined(entries: Mapping[str, Tensor], lengths_B: Tensor, width: int) -> dict[str, Tensor]:
    """A term's entries for padded rows as those of the same rows end to end, in one row of `width` tokens.

    Padding at the end (`pad_to_multiple_of`) belongs to no segment. The anchors' tokens are joined, too.
    """
    joined = dict(entries)
    inside_BT = torch.arange(int(lengths_B.max())) < lengths_B[:, None]
    segments_BT = entries.get("segments")
    if segments_BT is None:  # the rows are the segments
        segments_BT = torch.arange(len(lengths_B))[:, None].expand_as(inside_BT)
    segments_1T = torch.full((1, width), -1)
    segments_1T[0, : int(lengths_B.sum())] = segments_BT[inside_BT]
    joined["segments"] = segments_1T
    mask_AT = joined.pop("anchor_attention_mask", None)
    if mask_AT is not None:
        for key in ("anchor_input_ids", "anchor_segments"):
            joined[key] = entries[key][mask_AT == 1][None]
        joined["anchor_position_ids"] = (mask_AT.cumsum(dim=1) - 1)[mask_AT == 1][None]
    return joined


def _as_bits(key: str, value: Tensor) -> dict[str, Tensor]:
    bits = _BITS.get(value.dtype)
    if bits is None:
        return {key: value}
    return {f"{key}.{str(value.dtype).removeprefix('torch.')}": value.view(bits)}


def _from_bits(key: str, value: Tensor) -> tuple[str, Tensor]:
    name, _, kind = key.rpartition(".")
    return (name, value.view(_TYPES[kind])) if name else (key, value)
