"""A client for chat completions of any OpenAI-compatible server, which takes servers as they are.

One request per sample, because some servers ignore `n` without a word; no list of models is asked for, because some
fail on it; a reply's model is compared up to the first `@`, because some add a revision there (`transformers serve`
5.23 does all three). What a reply must have: JSON, a choice with text, and the model that was asked for.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from innerlingua.data.work.engine import Refused, Retryable
from innerlingua.data.work.keys import ApiKey
from innerlingua.errors import DataError

__all__ = ["ChatClient", "Endpoint", "Reply", "import_httpx"]

_CONGESTED: Final = frozenset((408, 429, 502, 503, 504))
_KEY_REFUSED: Final = frozenset((401, 403))
_QUOTED: Final = 300


@dataclass(frozen=True)
class Endpoint:
    """A server and what is asked of it.

    Args:
        url: up to and with the version, such as `http://127.0.0.1:8000/v1`; without keys.
        model: the name that requests carry.
        key: see `read_key`.
        timeout: seconds until a request counts as lost.
        reply_model: the name that replies carry, when the server calls the model otherwise.
    """

    url: str
    model: str
    key: ApiKey
    timeout: float = 120.0
    reply_model: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(
                f"--url {self.key.redact(self.url)!r}: not an address; write it as http://127.0.0.1:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            raise DataError("--url: an address with a password or a query; keys belong in --key-env or --key-file")
        if not self.model.strip():
            raise DataError("--model: the name of the model that the server knows is needed")
        if not self.timeout > 0:
            raise DataError(f"--timeout {self.timeout}: seconds above 0")

    @property
    def expected(self) -> str:
        """The model name that replies must carry, without a revision."""
        return _bare(self.reply_model or self.model)


@dataclass(frozen=True)
class Reply:
    """One answer: its text, why it ended (`stop`, `length`, None if the server does not say), the model's own name."""

    text: str
    finish: str | None
    model: str | None


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


class ChatClient:
    """Asks one server for completions. An asynchronous context manager; connections are kept and shared.

    Args:
        endpoint: the server.
        limit: the most connections.
    """

    def __init__(self, endpoint: Endpoint, *, limit: int) -> None:
        self._endpoint = endpoint
        self._limit = limit
        self._path = endpoint.url.rstrip("/") + "/chat/completions"
        self._httpx = import_httpx()
        self._client: Any = None

    async def __aenter__(self) -> Self:
        self._client = self._httpx.AsyncClient(
            headers={**self._endpoint.key.headers(), "Content-Type": "application/json"},
            timeout=self._httpx.Timeout(self._endpoint.timeout),
            limits=self._httpx.Limits(max_connections=self._limit, max_keepalive_connections=self._limit),
            follow_redirects=False,  # a key must not follow to another host
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def complete(self, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> Reply:
        """One completion.

        Args:
            messages: the conversation so far.
            settings: further fields of the request, such as `temperature`, `max_tokens`, `seed`.

        Raises:
            Retryable: it may go well another time: too many requests, a server's fault, a broken or empty answer.
            Refused: this request will never be answered.
            DataError: none will: the key is refused, there is no such address or model, another model answers.
        """
        body = {"model": self._endpoint.model, "messages": list(messages), **settings}
        return self._reply(await self.post(self._path, body))

    async def post(self, url: str, body: Any) -> Any:
        """POST JSON and return the JSON of a good answer; raises as `complete` does."""
        try:
            response = await self._client.post(url, json=body)
        except self._httpx.TimeoutException as error:
            raise Retryable(f"no answer in {self._endpoint.timeout:g} s", congested=True) from error
        except self._httpx.ConnectError as error:
            raise Retryable(
                f"cannot connect to {self._endpoint.url}: {self._told(str(error))}", congested=True
            ) from error
        except self._httpx.TransportError as error:
            raise Retryable(
                f"broken answer: {self._told(str(error) or type(error).__name__)}", congested=True
            ) from error
        if response.status_code != 200:
            self._refused(response)
        try:
            return response.json()
        except ValueError as error:
            raise Retryable(f"the answer is no JSON: {self._told(response.text)}") from error

    def _refused(self, response: Any) -> None:
        status = response.status_code
        told = f"{status}: {self._told(response.text)}"
        if status in _KEY_REFUSED:
            raise DataError(
                f"{self._endpoint.url} refuses the key ({told}). It came from {self._endpoint.key.origin}; "
                "name another by --key-env or --key-file."
            )
        if status == 404 or 300 <= status < 400:
            raise DataError(
                f"{self._path}: {told}. Check --url (most end with /v1) and --model {self._endpoint.model!r}."
            )
        if status in _CONGESTED or status >= 500 or status in (409, 425):
            wait = _retry_after(response.headers.get("retry-after"))
            raise Retryable(f"status {told}", congested=status in _CONGESTED, wait=wait)
        raise Refused(f"status {told}")

    def _reply(self, answer: Any) -> Reply:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise Retryable(f"the answer holds no choices[0].message.content: {self._told(str(answer))}")
        model = answer.get("model")
        if isinstance(model, str) and _bare(model) != self._endpoint.expected:
            raise DataError(
                f"{self._endpoint.url} answers as {model!r} where {self._endpoint.expected!r} was asked for. If "
                f"that is the model you mean, say so by --reply-model {_bare(model)!r}; otherwise mend --model or "
                "the server."
            )
        finish = choice.get("finish_reason") if isinstance(choice, dict) else None
        return Reply(text, finish if isinstance(finish, str) else None, model if isinstance(model, str) else None)

    def _told(self, text: str) -> str:
        """A server's words for a message: short, one line, without the key."""
        words = " ".join(self._endpoint.key.redact(text).split())
        return words if len(words) <= _QUOTED else words[:_QUOTED] + "..."


def _bare(model: str) -> str:
    return model.split("@", 1)[0]


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number, or an HTTP date; None without one that can be read."""
    if value is None:
        return None
    if value.strip().replace(".", "", 1).isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
