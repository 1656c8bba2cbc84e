"""A small HTTP server on loopback whose answers are a function of the request, and whose faults follow a script."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

Answer = Callable[[dict[str, Any]], str]
Script = Callable[[int, int], str | None]
"""(number of this request, how often this body came before) -> a fault, or None for a good answer."""


def digest_answer(body: dict[str, Any]) -> str:
    """A text that only the request decides."""
    asked = json.dumps([body["messages"], body.get("seed")], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()


class FaultServer:
    """Serve chat completions in a thread.

    Faults: `429` (Retry-After 0.05), `500`, `503`, `400`, `401` (repeats the Authorization header), `hang`, `truncate`,
    `not_json`, `no_choices`, `wrong_model`, `no_model`, `drop` (closes without an answer), `trickle` (a byte now and
    then, for ever), `flood` (more than any answer holds), `wait_long` (429, Retry-After 901), `gzip` (says that the
    body is compressed, and it is not), `surrogate` (half a character).
    """

    def __init__(
        self,
        *,
        answer: Answer = digest_answer,
        script: Script = lambda number, seen: None,
        latency: float = 0.0,
        slots: int | None = None,
        reply_model: str | None = None,
    ) -> None:
        self._answer = answer
        self._script = script
        self._latency = latency
        self._slots = slots
        self._reply_model = reply_model
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.requests = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.faults: Counter[str] = Counter()
        self.most_at_once = 0
        self.times: list[float] = []
        self._at_once = 0
        self._seen: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._places = asyncio.Semaphore(self._slots) if self._slots else None
        server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512))
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-length")
                )
                body = json.loads(await reader.readexactly(length))
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    keep = await self._respond(head, body, writer)
                finally:
                    self._at_once -= 1
                if not keep:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _respond(self, head: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        key = json.dumps(body, sort_keys=True)
        number, seen = self.requests, self._seen[key]
        self.requests += 1
        self._seen[key] += 1
        self.bodies.append(body)
        self.headers.append(head)
        self.times.append(self._loop.time())
        fault = self._script(number, seen)
        if fault:
            self.faults[fault] += 1
        if self._places is not None:
            async with self._places:
                await asyncio.sleep(self._latency)
        elif self._latency:
            await asyncio.sleep(self._latency)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "drop":
            return False
        if fault in ("400", "401", "404", "429", "500", "503"):
            told = next((x for x in head.split("\r\n") if x.lower().startswith("authorization")), "")
            extra = "Retry-After: 0.05\r\n" if fault == "429" else ""
            self._send(writer, fault, json.dumps({"error": f"fault {fault}; {told}"}).encode(), extra)
            return True
        if fault == "wait_long":
            self._send(writer, "429", b"{}", "Retry-After: 901\r\n")
            return True
        if fault == "gzip":
            self._send(writer, "200", b"{}", "Content-Encoding: gzip\r\n")
            return True
        if fault == "trickle":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
            return False
        if fault == "flood":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" " * 2**20)
                await writer.drain()
            return False
        if fault == "not_json":
            self._send(writer, "200", b"<html>busy</html>")
            return True
        if fault == "no_choices":
            self._send(writer, "200", b'{"choices": []}')
            return True
        model = "another" if fault == "wrong_model" else self._reply_model or f"{body['model']}@main"
        text = "a\ud800" if fault == "surrogate" else self._answer(body)
        answer = {
            "model": None if fault == "no_model" else model,
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        }
        data = json.dumps(answer, ensure_ascii=fault == "surrogate").encode()
        if fault == "truncate":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data[: len(data) // 2])
            await writer.drain()
            return False
        self._send(writer, "200", data)
        return True

    @staticmethod
    def _send(writer: asyncio.StreamWriter, status: str, data: bytes, extra: str = "") -> None:
        head = (
            f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
