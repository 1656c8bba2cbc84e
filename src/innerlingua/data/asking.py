"""Which model is asked, how, and with what settings: one description for `verify` and `translate`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from innerlingua.data.sources import Source
from innerlingua.data.work import ApiKey, ChatClient, Endpoint, Outcome, Reply
from innerlingua.errors import DataError

__all__ = ["Backend", "ModelSpec", "Sampling", "hash_of", "require_whole", "rows_hash"]


class Backend(Protocol):
    """Something that completes conversations; an asynchronous context manager."""

    async def __aenter__(self) -> Self:
        """Make it ready."""

    async def __aexit__(self, *error: Any) -> None:
        """Let go of what it holds."""

    async def complete(self, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> Reply:
        """One completion; raises `Retryable`, `Refused` or an `InnerlinguaError`."""


@dataclass(frozen=True)
class Sampling:
    """How text is drawn. `seed` grows by one per sample and per attempt."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 2048
    seed: int = 42

    def fields(self, draw: int) -> dict[str, Any]:
        """The fields of a request for draw number `draw`."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed + draw,
        }


@dataclass(frozen=True)
class ModelSpec:
    """A model on a server (`url`), or in this process.

    Args:
        model: its name on the server, or a folder or hub name for this process.
        url: the server's address up to the version; None for this process.
        revision: of the model; told to the hub in this process, recorded for a server.
        reply_model: the name in the server's replies, where it is another.
        key: of the server.
        concurrency: the most requests at once.
        batch_size: conversations per forward pass in this process.
        timeout: seconds per request.
        attempts: tries per request in one run.
        patience: seconds without a success after which the run stops.
    """

    model: str
    url: str | None = None
    revision: str | None = None
    reply_model: str | None = None
    key: ApiKey = field(default_factory=lambda: ApiKey("", "no key"))
    concurrency: int = 64
    batch_size: int = 8
    timeout: float = 120.0
    attempts: int = 8
    patience: float = 120.0

    def open(self, *, languages: tuple[str, str] | None = None) -> Backend:
        """The backend; nothing is loaded or connected yet."""
        if self.concurrency < 1:
            raise DataError(f"--concurrency {self.concurrency}: at least 1")
        if self.url is not None:
            endpoint = Endpoint(self.url, self.model, self.key, self.timeout, self.reply_model)
            return ChatClient(endpoint, limit=self.concurrency)
        from innerlingua.data.local import LocalModel

        return LocalModel(self.model, revision=self.revision, batch_size=self.batch_size)

    @property
    def at_once(self) -> int:
        """Requests under way at once."""
        return self.concurrency if self.url is not None else 2 * self.batch_size


def hash_of(files: Sequence[Source]) -> dict[str, str]:
    """File name -> SHA-256, for what a job was begun with; a data set in memory has only its name."""
    hashes = {}
    for source in files:
        path = Path(source.name)
        if path.is_file():
            with path.open("rb") as stream:
                hashes[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
        else:
            hashes[path.name] = rows_hash(source)
    return hashes


def rows_hash(source: Source) -> str:
    """SHA-256 over the rows of a source that is no file."""
    digest = hashlib.sha256()
    for number, row in source.rows():
        digest.update(repr((number, sorted(row.items()))).encode())
    return digest.hexdigest()


def require_whole(outcome: Outcome, total: int, *, partial: bool) -> None:
    """Refuse to write a result that lacks rows, unless that was asked for.

    Raises:
        DataError: tasks failed; the message says how many and why, and that the same command goes on from here.
    """
    missing = total - outcome.done
    if missing and not partial:
        reasons = "; ".join(f"{count} times {reason}" for reason, count in outcome.failures.most_common(3))
        raise DataError(
            f"{missing} of {total} requests failed ({reasons}). Nothing was written; what is done is kept. Run the "
            "same command again to retry them, or with --partial to write the rest."
        )
