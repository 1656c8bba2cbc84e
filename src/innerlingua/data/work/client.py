"""A client for chat completions of any OpenAI-compatible server, which takes servers as they are.

One request per sample, because some servers ignore `n` without a word; no list of models is asked for, because some
fail on it; a reply's model is compared up to the first `@`, because some add a revision there (`transformers serve`
5.23 does all three). What a reply must have: a choice with text, and the model that was asked for where it names one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from innerlingua.data.work.engine import Retryable
from innerlingua.data.work.http import CONNECT, JsonClient, check_url
from innerlingua.data.work.keys import ApiKey
from innerlingua.errors import DataError

__all__ = ["ChatClient", "Endpoint", "Reply"]

_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
_CUT: Final = frozenset(("length", "content_filter"))


@dataclass(frozen=True)
class Endpoint:
    """A server and what is asked of it.

    Args:
        url: up to and with the version, such as `http://127.0.0.1:8000/v1`; without keys.
        model: the name that requests carry.
        key: see `read_key`.
        timeout: seconds until a request counts as lost.
        reply_model: the name that replies carry, when the server calls the model otherwise.
        connect: seconds of these until the server must be found and have taken the connection.
    """

    url: str
    model: str
    key: ApiKey
    timeout: float = 120.0
    reply_model: str | None = None
    connect: float = CONNECT

    def __post_init__(self) -> None:
        check_url(self.url, "--url")
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
    """One answer: its text, why it ended, and the model's own name.

    `finish` is `stop`, `length` when it was cut off (also by a filter), or None when the server does not say; `model`
    is None when it does not say.
    """

    text: str
    finish: str | None
    model: str | None


class ChatClient:
    """Asks one server for completions. An asynchronous context manager; connections are kept and shared.

    Args:
        endpoint: the server.
        limit: the most connections.
    """

    def __init__(self, endpoint: Endpoint, *, limit: int) -> None:
        self._endpoint = endpoint
        self._path = endpoint.url.rstrip("/") + "/chat/completions"
        self._http = JsonClient(
            key=endpoint.key,
            timeout=endpoint.timeout,
            connect=endpoint.connect,
            limit=limit,
            mend_key="name another by --key-env or --key-file.",
            mend_url=f"Check --url (most end with /v1) and --model {endpoint.model!r}.",
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

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
        return self._reply(await self._http.post(self._path, body))

    def _reply(self, answer: Any) -> Reply:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise Retryable(f"the answer holds no choices[0].message: {self._http.told(str(answer))}")
        finish = choice.get("finish_reason")
        finish = finish if isinstance(finish, str) else None
        text = message.get("content")
        if text is None and finish in _CUT:
            text = ""  # cut off before the answer began, as by servers that keep the reasoning apart
        if not isinstance(text, str):
            raise Retryable(f"the answer holds no choices[0].message.content: {self._http.told(str(answer))}")
        if _HALF_PAIR.search(text):
            raise Retryable("the answer holds half a surrogate pair, which is not a character")
        model = answer.get("model")
        if isinstance(model, str) and _bare(model) != self._endpoint.expected:
            name = self._http.told(_bare(model))
            raise DataError(
                f"{self._endpoint.url} answers as {self._http.told(model)!r} where {self._endpoint.expected!r} was "
                f"asked for. If that is the model you mean, say so by --reply-model {name!r}; otherwise mend --model "
                "or the server."
            )
        # What is kept goes into rows and the journal: a server that repeats the key puts it there as well.
        model = self._http.redact(model) if isinstance(model, str) else None
        ended = "length" if finish in _CUT else self._http.redact(finish) if finish else None
        return Reply(self._http.redact(text), ended, model)


def _bare(model: str) -> str:
    return model.split("@", 1)[0]
