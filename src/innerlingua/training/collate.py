"""Batches for a trainer with terms: TRL's own collation, and each term's entries beside it.

Numbers with a fraction travel as the integers that have the same bits. Under DeepSpeed the Trainer casts every
floating-point tensor of a batch to the type of the weights, and a prior would lose two thirds of its digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerlingua.errors import DataError
from innerlingua.training.terms import Term

__all__ = ["TermCollator", "split_batch"]

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
        """One batch of tokenised rows."""
        batch = self.base(rows)
        width = int(batch["input_ids"].shape[1])
        for term in self.terms:
            missing = [column for column in term.columns if column not in rows[0]]
            if missing:
                # Only rows given to `evaluate` or `predict` get here unseen, and TRL tokenises their targets alone.
                raise DataError(
                    f"the rows lack the columns {missing} that the term {term.name} reads: make them with "
                    "tokenize_pairs"
                )
            for key, value in term.collate(rows, width).items():
                batch |= _packed(f"{_PREFIX}{term.name}.{key}", value)
        return batch


def split_batch(batch: Mapping[str, Any], terms: Sequence[Term]) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """A batch as (what the model's forward takes, the entries of each term under their own keys)."""
    inputs = {key: value for key, value in batch.items() if not key.startswith(_PREFIX)}
    entries = []
    for term in terms:
        prefix = f"{_PREFIX}{term.name}."
        entries.append(
            dict(_unpacked(key.removeprefix(prefix), value) for key, value in batch.items() if key.startswith(prefix))
        )
    return inputs, entries


def _packed(key: str, value: Tensor) -> dict[str, Tensor]:
    bits = _BITS.get(value.dtype)
    if bits is None:
        return {key: value}
    return {f"{key}.{str(value.dtype).removeprefix('torch.')}": value.view(bits)}


def _unpacked(key: str, value: Tensor) -> tuple[str, Tensor]:
    name, _, kind = key.rpartition(".")
    return (name, value.view(_TYPES[kind])) if name else (key, value)
