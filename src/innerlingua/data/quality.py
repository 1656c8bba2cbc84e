"""A server that estimates how good a translation is: `POST {"src", "mt", "source_language", "target_language"}`.

It answers `{"score": number}` in a range of its own; what passes is the user's threshold. It has a key of its own: that
of the model's server is never sent to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from innerlingua.data.work import ApiKey, JsonClient, Retryable, check_url
from innerlingua.errors import DataError

__all__ = ["Quality", "QualityClient"]


@dataclass(frozen=True)
class Quality:
    """The server, and what passes.

    Args:
        url: of the request itself.
        least: the least score that passes.
        key: of this server.
    """

    url: str
    least: float
    key: ApiKey = field(default_factory=lambda: ApiKey("", "no key"))

    def __post_init__(self) -> None:
        check_url(self.url, "--quality-url")
        if not math.isfinite(self.least):
            raise DataError(f"--quality-min {self.least}: a number is needed")

    def settings(self) -> dict[str, Any]:
        """What decides the result, for journal and card; the key is no part of it."""
        return {"url": self.url, "least": self.least}


class QualityClient:
    """Asks a quality server for scores. An asynchronous context manager."""

    def __init__(self, quality: Quality, *, timeout: float, connect: float, limit: int) -> None:
        self._url = quality.url
        self._http = JsonClient(
            key=quality.key,
            timeout=timeout,
            connect=connect,
            limit=limit,
            mend_key="name another by --quality-key-env or --quality-key-file.",
            mend_url="Check --quality-url: it is the address of the request itself.",
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def score(self, source: str, text: str, language: str, target: str) -> float:
        """The score of one translation; raises as `JsonClient.post` does."""
        body = {"src": source, "mt": text, "source_language": language, "target_language": target}
        answer = await self._http.post(self._url, body)
        value = answer.get("score") if isinstance(answer, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Retryable(f"{self._url}: the answer holds no number 'score': {self._http.told(str(answer))}")
        return float(value)
