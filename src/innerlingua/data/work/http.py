"""JSON over HTTP to a server that may be slow, busy, broken or not what it was taken for.

What may go well another time raises `Retryable`, what never will for this request `Refused`, and what will for none
(the key, the address) ends the work as `DataError`. A reply is read as it comes: one that is larger than any answer, or
that trickles in for longer than the timeout, is given up. The key follows to no other host and into no message.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import time
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from innerlingua.data.work.engine import Refused, Retryable
from innerlingua.data.work.keys import ApiKey
from innerlingua.errors import DataError

__all__ = ["CONNECT", "JsonClient", "check_url", "import_httpx"]

LARGEST: Final = 16 * 2**20
"""Bytes of the largest reply that is read: a hundred times what the longest answers of today's models take."""

CONNECT: Final = 10.0
"""Seconds until connecting counts as failed: time for three packets that get lost."""

_CONGESTED: Final = frozenset((408, 429, 502, 503, 504))
_KEY_REFUSED: Final = frozenset((401, 403))
_AGAIN: Final = frozenset((409, 425))
_QUOTED: Final = 300


def import_httpx() -> Any:
    """The HTTP library, which comes with the extra `data`.

    Raises:
        DataError: it is not installed.
    """
    try:
        import httpx2
    except ImportError as error:
        raise DataError("servers need the library httpx2; install it with: pip install 'innerlingua[data]'") from error
    return httpx2


def check_url(url: str, option: str) -> None:
    """Refuse what is no address of a server, and one that carries a secret, which is not repeated.

    Raises:
        DataError: with the `option` that the address came from.
    """
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets without an address in them, a port beyond 65535
        named, parts = False, None
    if parts is not None and (parts.username or parts.password or parts.query or parts.fragment):
        keys = f"{option.replace('url', 'key-env')} or {option.replace('url', 'key-file')}"
        raise DataError(f"{option}: an address with a password, a query or a fragment; keys belong in {keys}")
    if not named:
        raise DataError(f"{option} {url!r}: not an address; write it as http://127.0.0.1:8000/v1")


class JsonClient:
    """Posts JSON to one server. An asynchronous context manager; connections are kept and shared.

    Args:
        key: sent with every request.
        timeout: seconds until a request counts as lost, from looking the server up to the last byte of the reply.
        limit: the most connections.
        mend_key: how a refused key is mended, for the message.
        mend_url: how a wrong address is.
        connect: seconds of these until the server must be found and have taken the connection.
    """

    def __init__(
        self, *, key: ApiKey, timeout: float, limit: int, mend_key: str, mend_url: str, connect: float = CONNECT
    ) -> None:
        if not timeout > 0:
            raise DataError(f"--timeout {timeout}: seconds above 0")
        self._key = key
        self._timeout = timeout
        self._connect = connect
        self._limit = limit
        self._mend_key = mend_key
        self._mend_url = mend_url
        self._httpx = import_httpx()
        self._client: Any = None

    async def __aenter__(self) -> Self:
        try:
            self._client = self._httpx.AsyncClient(
                headers={**self._key.headers(), "Content-Type": "application/json"},
                timeout=self._httpx.Timeout(None, connect=self._connect),  # one clock for the whole request, below
                limits=self._httpx.Limits(max_connections=self._limit, max_keepalive_connections=self._limit),
                follow_redirects=False,  # a key must not follow to another host
            )
        except (ImportError, ValueError) as error:
            raise DataError(f"the proxy that the environment names cannot be used: {error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def post(self, url: str, body: Any) -> Any:
        """POST JSON and return the JSON of a good reply.

        Raises:
            Retryable: it may go well another time: too many requests, a server's fault, a broken or endless reply.
            Refused: this request will never be answered.
            DataError: none will: the key is refused, or there is nothing at this address.
        """
        try:
            async with asyncio.timeout(self._timeout), self._client.stream("POST", url, json=body) as response:
                data = await self._read(response)
        except TimeoutError as error:
            raise Retryable(f"no answer in {self._timeout:g} s", congested=True) from error
        except self._httpx.InvalidURL as error:
            raise DataError(f"{url!r} is no address: {error}. {self._mend_url}") from error
        except self._httpx.ConnectTimeout as error:
            raise Retryable(f"cannot connect to {url} in {self._connect:g} s", congested=True) from error
        except self._httpx.ConnectError as error:
            raise Retryable(f"cannot connect to {url}: {self.told(str(error))}", congested=True) from error
        except self._httpx.RequestError as error:
            raise Retryable(
                f"broken answer: {self.told(str(error) or type(error).__name__)}", congested=True
            ) from error
        if response.status_code != 200:
            self._refused(url, response.status_code, response.headers.get("retry-after"), data)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Retryable(f"the answer is no JSON: {self.told(_text(data))}") from error

    async def _read(self, response: Any) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                raise Retryable(f"the answer is larger than {LARGEST // 2**20} MiB")
        return b"".join(parts)

    def _refused(self, url: str, status: int, retry_after: str | None, data: bytes) -> None:
        told = f"{status}: {self.told(_text(data))}"
        if status in _KEY_REFUSED:
            raise DataError(f"{url} refuses the key ({told}). It came from {self._key.origin}; {self._mend_key}")
        if status == 404 or 300 <= status < 400:
            raise DataError(f"{url}: {told}. {self._mend_url}")
        if status in _CONGESTED or status >= 500 or status in _AGAIN:
            raise Retryable(
                f"status {told}", congested=status in _CONGESTED, wait=_seconds(retry_after) if retry_after else None
            )
        raise Refused(f"status {told}")

    def redact(self, text: str) -> str:
        """A server's words without the key."""
        return self._key.redact(text)

    def told(self, text: str) -> str:
        """A server's words for a message: short, one line, without the key."""
        words = " ".join(self.redact(text).split())
        return words if len(words) <= _QUOTED else words[:_QUOTED] + "..."


def _text(data: bytes) -> str:
    return data[: 100 * _QUOTED].decode("utf-8", "replace")


def _seconds(retry_after: str) -> float | None:
    """Seconds from a Retry-After header: a number, or an HTTP date; None when it is neither."""
    if re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", retry_after):
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
