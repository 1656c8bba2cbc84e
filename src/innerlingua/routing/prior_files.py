"""The two files of a routing prior: `prior.safetensors` and `prior.json`.

The record (`prior.json`) says what the rows are: ids, layers, pooling, score, a digest of each anchor, the fingerprint.
The tensor file carries the digest of its record, so that halves of two priors never pass for one. Rows are written
one after the other and read by a memory map, so neither needs the whole tensor in memory.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from innerlingua.errors import PriorError
from innerlingua.routing.fingerprint import hash_text

__all__ = ["RECORD", "SCHEMA", "TENSORS", "read_record", "record_text", "renamed", "write_prior"]

TENSORS, RECORD = "prior.safetensors", "prior.json"
SCHEMA = 2
_FLOAT32 = 4


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
            f"{len(missing)} of {shape[0]} rows of the routing prior are not there: where several machines compute it, "
            f"{path.parent} must be a folder that all of them share"
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
            shape = tensors.get_slice("prior").get_shape()
        expected = [len(record["ids"]), len(record["layers"]), record["experts"]]
    except (ValueError, SafetensorError, KeyError, TypeError) as error:
        raise PriorError(
            f"the routing prior in {folder} is damaged ({error}): delete the folder and compute it anew"
        ) from error
    if record.get("schema") != SCHEMA or digest != hash_text(payload) or shape != expected:
        raise PriorError(
            f"the routing prior in {folder} is damaged (its two files do not belong together): compute it anew"
        )
    return record
