"""An event loop that looks host names up in threads that nobody waits for.

A resolver without an answer keeps its thread for half a minute, and nothing can end it before. asyncio looks names up
in the threads of its executor, which are waited for when the loop ends and again when Python does: a run that has given
up would stand still with its message unsaid. Here a lookup is one daemon thread, shared by all that ask for the same.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["LookupLoop"]


class LookupLoop(asyncio.SelectorEventLoop):
    """asyncio's loop for sockets, but for `getaddrinfo`."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: dict[tuple[Any, ...], asyncio.Future[list[Any]]] = {}

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  (asyncio's name)
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """As `socket.getaddrinfo`."""
        asked = (host, port, family, type, proto, flags)
        answer = self._under_way.get(asked)
        if answer is None:
            answer = self._under_way[asked] = self.create_future()
            answer.add_done_callback(lambda _: self._under_way.pop(asked))
            threading.Thread(target=self._look_up, args=(asked, answer), daemon=True).start()
        return await asyncio.shield(answer)  # one that gives up takes nothing from the others

    def _look_up(self, asked: tuple[Any, ...], answer: asyncio.Future[list[Any]]) -> None:
        tell: Callable[[Any], None] = answer.set_result
        found: Any
        try:
            found = socket.getaddrinfo(*asked)
        except Exception as error:  # for the thread that asked
            tell, found = answer.set_exception, error
        with suppress(RuntimeError):  # the loop is closed: nobody asks any longer
            self.call_soon_threadsafe(tell, found)
