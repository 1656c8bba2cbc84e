"""From character spans to tokens.

A span link says that characters [a, b) of the target mean what characters [c, d) of the anchor mean. Pooling works on
tokens, and a token may reach over the edge of a span (subwords take a space along, scripts without spaces merge across
words). Each token goes to the span that holds most of its characters, the earlier one when two hold as many, and to
none (-1) when no span touches it. A span that gets no token on one of the sides cannot be compared; it is taken out on
both, and counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["link_tokens", "token_spans"]


def token_spans(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token, the index of its span, or -1.

    Args:
        offsets: [start, end) in characters per token; empty for tokens that stand for no text.
        spans: [start, end) in the same characters, non-empty and without overlap, in any order.

    Returns:
        One index into `spans` (or -1) per token. O((tokens + spans) log spans).
    """
    order = sorted(range(len(spans)), key=lambda index: spans[index])
    starts = [spans[index][0] for index in order]
    owners = []
    for start, end in offsets:
        best, most = -1, 0
        # The last span that starts at or before the token may reach into it; those before that one end earlier.
        at = max(bisect_right(starts, start) - 1, 0)
        while at < len(order) and starts[at] < end:
            first, last = spans[order[at]]
            overlap = min(end, last) - max(start, first)
            if overlap > most:
                best, most = order[at], overlap
            at += 1
        owners.append(best)
    return owners


def link_tokens(target: Sequence[int], anchor: Sequence[int], count: int) -> tuple[list[int], list[int], int]:
    """Keep the spans that own a token on both sides, numbered anew from 0 without a gap.

    Args:
        target: span index or -1 per target token.
        anchor: the same for the anchor.
        count: how many spans the row has.

    Returns:
        The two sides with new numbers (the same span has the same number on both), and how many spans were lost.
    """
    kept = sorted(set(target) & set(anchor) - {-1})
    number = {old: new for new, old in enumerate(kept)}
    return [number.get(i, -1) for i in target], [number.get(i, -1) for i in anchor], count - len(kept)
