"""The finished rows of a prior that is being computed, so that a pass that is killed goes on where it was.

Rows are gathered in memory and written as a piece now and then: one file with the rows, their places, and two digests
in its header: the record's that the rows belong to, and that of the numbers. A piece gets its name when it is whole. So
at any moment there are whole pieces and perhaps a temporary file; what a crash of the machine has left of a file is
told by its digest and thrown away. Each process of a group writes pieces of its own.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from innerlingua.routing.prior_files import renamed

__all__ = ["PartialRows"]

# A piece is written when it is this large, or has waited this long: so much work is lost at most.
PIECE_BYTES: Final = 64 * 2**20
PIECE_SECONDS: Final = 20.0


class PartialRows:
    """Rows in `folder` that belong to the record with the digest `record`."""

    def __init__(self, folder: Path, record: str) -> None:
        self.folder = folder
        self.record = record
        self.written: list[str] = []
        self._places: list[int] = []
        self._rows: list[Tensor] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, places: Sequence[int], rows: Tensor) -> None:
        """Keep `rows` (rows, layers, experts), which belong at `places`."""
        self._places += places
        self._rows.append(rows)
        self._bytes += rows.nbytes
        if self._bytes >= PIECE_BYTES or time.monotonic() - self._since >= PIECE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is still in memory."""
        if self._places:
            self.folder.mkdir(parents=True, exist_ok=True)
            piece = {"places": torch.tensor(self._places), "rows": torch.cat(self._rows).contiguous()}
            name = f"{uuid.uuid4().hex}.safetensors"
            with renamed(self.folder / name) as temporary:
                save_file(piece, temporary, metadata={"record": self.record, "numbers": _digest(piece)})
            self.written.append(name)
        self._places, self._rows, self._bytes = [], [], 0
        self._since = time.monotonic()

    def take_up(self) -> tuple[dict[str, list[int]], int, int]:
        """The places that each whole piece of this record holds, by its name; other pieces are removed.

        Also how many pieces were of another record, and how many were broken.
        """
        found: dict[str, list[int]] = {}
        foreign = broken = 0
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            record, piece = _read(path)
            if piece is not None and record == self.record:
                found[path.name] = piece["places"].tolist()
            else:
                foreign += piece is not None
                broken += piece is None
                path.unlink()
        return found, foreign, broken

    def read(self, names: Iterable[str]) -> Iterator[tuple[list[int], Tensor]]:
        """The places and rows of the pieces `names`, those left out that cannot be read."""
        for name in names:
            record, piece = _read(self.folder / name)
            if piece is not None and record == self.record:
                yield piece["places"].tolist(), piece["rows"]

    def remove(self) -> None:
        """Remove the folder."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)


def _read(path: Path) -> tuple[str | None, dict[str, Tensor] | None]:
    """The record and the tensors of a piece; no tensors when it is none, or not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            piece = {name: file.get_tensor(name) for name in ("places", "rows")}
    except (SafetensorError, OSError):
        return None, None
    return metadata.get("record"), piece if metadata.get("numbers") == _digest(piece) else None


def _digest(piece: dict[str, Tensor]) -> str:
    digest = xxhash.xxh3_128()
    for name in ("places", "rows"):
        digest.update(piece[name].numpy().data)
    return digest.hexdigest()
