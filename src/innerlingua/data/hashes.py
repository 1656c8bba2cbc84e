"""SHA-256 of what was read and written: for cards, and to know whether work continues on the same input."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from innerlingua.data.sources import Source

__all__ = ["file_hash", "hash_of"]


def file_hash(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and hashes of its files."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path)} {file_hash(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_of(sources: Sequence[Source]) -> dict[str, str]:
    """Name -> SHA-256 of every source: its file name, or its whole path where two files have one name.

    What is no file or folder (one split of several, a dataset in memory) is hashed by its rows.
    """
    names = [Path(source.name).name for source in sources]
    hashes = {}
    for name, source in zip(names, sources, strict=True):
        path = Path(source.name)
        known = name if names.count(name) == 1 else source.name
        hashes[known] = file_hash(path) if path.exists() else _rows_hash(source)
    return hashes


def _rows_hash(source: Source) -> str:
    digest = hashlib.sha256()
    for number, row in source.rows():
        digest.update(repr((number, sorted(row.items()))).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
