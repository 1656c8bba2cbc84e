"""Words for counts in messages."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `2 rows`, `1,000 rows`; `plural` for nouns that do not take an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
