"""How many requests are under way at once: additive increase, multiplicative decrease, within a limit.

As TCP does it (Chiu and Jain 1989; slow start as in RFC 5681): the window grows by one per answer until the first sign
of congestion, so it doubles in each round; after that by one per window of answers. A sign of congestion (429, 503, a
timeout, a broken connection) halves it, once per round: requests sent before the last halving say nothing new.
`Retry-After` stops all sending until then.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque

__all__ = ["Pace", "backoff"]

_START = 32
_SPREAD = 0.25


class Pace:
    """The window of requests under way.

    Args:
        limit: the most at once, set by the user.
        start: the first window.
    """

    def __init__(self, limit: int, *, start: int = _START) -> None:
        self.width = float(min(limit, start))
        self.inflight = 0
        self._limit = limit
        self._slow_start = True
        self._round = 0
        self._paused_until = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> int:
        """Wait for a place in the window; returns the round, which `leave` wants back."""
        while True:
            wait = self._paused_until - asyncio.get_running_loop().time()
            if wait > 0:
                # A spread, or all that waited would come at the same instant.
                await asyncio.sleep(wait + random.uniform(0, _SPREAD))
            elif self.inflight < int(self.width):
                self.inflight += 1
                return self._round
            else:
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn

    def leave(self, entered: int, *, congested: bool | None) -> None:
        """Give the place back: `congested` says what the answer showed; None when it showed nothing."""
        self.inflight -= 1
        if congested and entered == self._round:
            self.width = max(1.0, self.width / 2)
            self._slow_start = False
            self._round += 1
        elif congested is False:
            self.width = min(float(self._limit), self.width + (1.0 if self._slow_start else 1.0 / self.width))
        free = int(self.width) - self.inflight
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def pause(self, seconds: float) -> None:
        """Send nothing for this long."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)


def backoff(attempt: int, *, base: float = 0.5, most: float = 60.0) -> float:
    """Seconds before the next attempt: uniform in [0, base 2^attempt], at most `most` ("full jitter")."""
    return random.uniform(0, min(most, base * 2 ** min(attempt, 16)))
