"""The two files of a routing prior: `prior.safetensors` and `prior.json`.

The record (`prior.json`) says what the rows are: ids, layers, pooling, score, a digest of each anchor, the fingerprint.
The tensor file carries the digest of its record, so that halves of two priors never pass for one. Rows are written
one after the other and read by a memory map, so neither needs the whole tensor in memory.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from innerlingua.errors import PriorError
from innerlingua.routing.fingerprint import hash_text

__all__ = [
    "RECORD",
    "SCHEMA",
    "TENSORS",
    "StoredRows",
    "no_distributions",
    "read_record",
    "record_text",
    "renamed",
    "write_prior",
]

TENSORS, RECORD = "prior.safetensors", "prior.json"
SCHEMA = 2
_FLOAT32 = 4
_SUM_TOLERANCE = 1e-3  # of a float32 mean of distributions that may be computed in 16 bits


def record_text(
    *,
    ids: Sequence[str],
    texts: Sequence[str],
    layers: Sequence[int],
    experts: int,
    pooling: str,
    score: str,
    fingerprint: Mapping[str, Any],
) -> str:
    """What `prior.json` holds; `texts` are the digests of the anchors."""
    record = {
        "schema": SCHEMA,
        "layers": list(layers),
        "experts": experts,
        "pooling": pooling,
        "score": score,
        "fingerprint": fingerprint,
        "ids": list(ids),
        "texts": list(texts),
    }
    return json.dumps(record, ensure_ascii=False)


def write_prior(folder: Path, payload: str, rows: Iterable[tuple[Sequence[int], Tensor]]) -> None:
    """Write the record `payload` and all its rows into `folder`, whole or not at all.

    `rows` are pieces, each the places of its rows and their routing (rows, layers, experts), in any order; every place
    must come. A write that is killed leaves no prior, the earlier one, or two halves that `read_record` refuses.
    """
    record = json.loads(payload)
    shape = [len(record["ids"]), len(record["layers"]), record["experts"]]
    folder.mkdir(parents=True, exist_ok=True)
    with renamed(folder / TENSORS) as temporary:
        _write_tensor(temporary, shape, hash_text(payload), rows)
    with renamed(folder / RECORD) as temporary:
        temporary.write_text(payload, encoding="utf-8")


@contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes `path` when the block ends well; what a failed block wrote is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_tensor(path: Path, shape: list[int], digest: str, rows: Iterable[tuple[Sequence[int], Tensor]]) -> None:
    """A file of safetensors with the float32 tensor `prior`, row by row: `save_file` wants the whole of it in memory.

    The format is a header's length (8 bytes, little-endian), the header (JSON, padded to 8 bytes) and the numbers.
    """
    size = _FLOAT32 * shape[1] * shape[2]
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, shape[0] * size]}
    header = json.dumps({"__metadata__": {"record": digest}, "prior": tensor}).encode()
    header += b" " * (-len(header) % 8)
    missing = set(range(shape[0]))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for places, piece in rows:
            table = piece.contiguous().numpy().astype("<f4", copy=False)
            for place, row in zip(places, table, strict=True):
                file.seek(8 + len(header) + place * size)
                file.write(row.data)
            missing.difference_update(places)
        file.flush()
        os.fsync(file.fileno())
    if missing:
        raise PriorError(
            f"{len(missing)} of {shape[0]} rows of the routing prior are not there: processes that compute it together "
            f"make their calls with split=True, and {path.parent} must be a folder that all of them share"
        )


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the prior in `folder`. Raises `PriorError` for one that is missing or damaged."""
    path = folder / RECORD
    if not path.is_file() or not (folder / TENSORS).is_file():
        raise PriorError(f"no routing prior in {folder}: `innerlingua routing prior RECIPE` computes it")
    try:
        payload = path.read_text(encoding="utf-8")
        record: dict[str, Any] = json.loads(payload)
        with safe_open(folder / TENSORS, framework="pt") as tensors:
            digest = (tensors.metadata() or {}).get("record")
            stored = tensors.get_slice("prior")
            shape, kind = stored.get_shape(), stored.get_dtype()
        expected = [len(record["ids"]), len(record["layers"]), record["experts"]]
        _check_values(record, kind)
    except (ValueError, SafetensorError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PriorError(
            f"the routing prior in {folder} is damaged ({error}): delete the folder and compute it anew"
        ) from error
    if record.get("schema") != SCHEMA or digest != hash_text(payload) or shape != expected:
        raise PriorError(
            f"the routing prior in {folder} is damaged (its two files do not belong together): compute it anew"
        )
    return record


class StoredRows:
    """The rows of the prior in `folder`, through a memory map: what is read of the disk are the rows asked for."""

    def __init__(self, folder: Path) -> None:
        with (folder / TENSORS).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            entry = json.loads(file.read(length))["prior"]
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        shape = entry["shape"]
        self._start = 8 + length + entry["data_offsets"][0]
        self._size = _FLOAT32 * shape[1] * shape[2]
        numbers = np.frombuffer(self._map, dtype="<f4", count=math.prod(shape), offset=self._start)
        self._table = numbers.reshape(shape)
        # Rows are asked for in any order. Left to itself, the kernel reads a large piece of the file around each.
        if hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)

    def read(self, rows: Sequence[int]) -> Tensor:
        """A copy of `rows`, (len(rows), layers, experts)."""
        if hasattr(mmap, "MADV_WILLNEED"):
            for row in rows:  # so that a disk is asked for all of them at once
                first = self._start + row * self._size
                aligned = first - first % mmap.PAGESIZE
                self._map.madvise(mmap.MADV_WILLNEED, aligned, first + self._size - aligned)
        return torch.from_numpy(self._table[list(rows)])


def no_distributions(rows: Tensor) -> Tensor:
    """Which of `rows` (rows, layers, experts) no computation gives, (rows,): in each layer the numbers of the experts
    must be finite and at least 0, and sum to 1.
    """
    sums = (rows.sum(dim=-1) - 1).abs() < _SUM_TOLERANCE  # false for a sum that is NaN or infinite
    return ~((rows >= 0).all(dim=-1) & sums).all(dim=-1)


def _check_values(record: Mapping[str, Any], kind: str) -> None:
    """Raise `ValueError` unless every value of a record has the form that `record_text` writes, and the rows too."""
    ids, texts, layers, fingerprint = (record[key] for key in ("ids", "texts", "layers", "fingerprint"))
    listed = all(isinstance(values, list) for values in (ids, texts, layers))
    if not listed or not all(isinstance(name, str | int) for name in ids) or len(set(ids)) < len(ids):
        raise ValueError("ids must be a list of names without repeats, texts and layers lists")
    if len(texts) != len(ids) or not all(isinstance(text, str) for text in texts):
        raise ValueError("texts must have a digest for each id")
    if not layers or not all(type(layer) is int and layer >= 0 for layer in layers):
        raise ValueError("layers must be whole numbers")
    if not isinstance(record["pooling"], str) or not isinstance(record["score"], str):
        raise ValueError("pooling and score must be words")
    weights = fingerprint["weights"] if isinstance(fingerprint, dict) else None
    if not isinstance(weights, dict) or not isinstance(fingerprint["compute"], str):
        raise ValueError("the fingerprint must tell the weights and the numeric type")
    if kind != "F32":
        raise ValueError(f"the rows are {kind}, not F32")
