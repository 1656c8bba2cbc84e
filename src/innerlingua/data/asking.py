"""Which model is asked, how, and with what settings: one description for `verify` and `translate`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, TypeVar

from innerlingua.data.wording import counted
from innerlingua.data.work import CONNECT, ApiKey, ChatClient, Endpoint, Outcome, Reply, check_url
from innerlingua.errors import DataError

__all__ = ["Backend", "ModelSpec", "Sampling", "first_rows", "require_whole"]


_Row = TypeVar("_Row")
_MOST: Final = 10_000


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

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise DataError(f"--temperature {self.temperature}: 0 or more")
        if not 0 < self.top_p <= 1:
            raise DataError(f"--top-p {self.top_p}: above 0, up to 1")
        if self.max_tokens < 1:
            raise DataError(f"--max-tokens {self.max_tokens}: at least 1")

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

    def __post_init__(self) -> None:
        if self.url is not None:
            check_url(self.url, "--url")
        if not self.model.strip():
            raise DataError("--model: the name of a model is needed")
        for name in ("concurrency", "batch_size", "attempts"):
            if getattr(self, name) < 1:
                raise DataError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least 1")
        if self.concurrency > _MOST:
            raise DataError(f"--concurrency {self.concurrency}: at most {_MOST:,}, more than any server takes")
        for name in ("timeout", "patience"):
            if not getattr(self, name) > 0:
                raise DataError(f"--{name} {getattr(self, name)}: seconds above 0")

    def open(self) -> Backend:
        """The backend; nothing is loaded or connected yet."""
        if self.url is not None:
            endpoint = Endpoint(self.url, self.model, self.key, self.timeout, self.reply_model, self.connect)
            return ChatClient(endpoint, limit=self.concurrency)
        from innerlingua.data.local import LocalModel

        return LocalModel(self.model, revision=self.revision, batch_size=self.batch_size)

    @property
    def connect(self) -> float:
        """Seconds until a server must be found and have taken the connection; no longer than the patience lasts."""
        return min(CONNECT, self.timeout, self.patience)

    @property
    def at_once(self) -> int:
        """Requests under way at once."""
        return self.concurrency if self.url is not None else 2 * self.batch_size


def first_rows(rows: Iterable[_Row], limit: int | None) -> list[_Row]:
    """The first `limit` rows, or all; every row is read either way, so that a bad one is found before work begins.

    Raises:
        DataError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise DataError(f"--limit {limit}: at least 1")
    return list(rows)[:limit]


def require_whole(outcome: Outcome, total: int, *, partial: bool) -> None:
    """Refuse to write a result that lacks rows, unless that was asked for.

    Raises:
        DataError: tasks failed; the message says how many and why, and that the same command goes on from here.
    """
    missing = total - outcome.done
    if missing and not partial:
        reasons = "; ".join(f"{counted(n, 'time')} {reason}" for reason, n in outcome.failures.most_common(3))
        raise DataError(
            f"{missing:,} of {counted(total, 'request')} failed ({reasons}). Nothing was written; what is done is "
            "kept. Run the same command again to retry them, or with --partial to write the rest."
        )
