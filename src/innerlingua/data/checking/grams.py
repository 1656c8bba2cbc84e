"""Word n-grams as 64-bit hashes, many texts at a time.

A text becomes words: case folded, runs of letters, digits and marks; in scripts that put no space between words each
character is a word. A word becomes a hash (xxh3), and n words in a row become one by a polynomial over 2^64, so that a
million rows cost array operations and no string is kept. With a million distinct grams, two different ones meet with
probability below 1e-7.

Shapes: N words in all texts together, one row of `lengths` per text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex
import xxhash
from numpy.typing import NDArray

from innerlingua.data.scripts import UNSPACED

__all__ = ["WordHasher", "Words", "windows"]

_ASCII = re.compile(r"[a-z0-9]+")
_CLASSES = "".join(rf"\p{{Script={name}}}" for name in UNSPACED)
_WORD = regex.compile(rf"[{_CLASSES}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{Nd}}]--[{_CLASSES}]]+", regex.V1)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_CACHED = 1_000_000


@dataclass(frozen=True)
class Words:
    """The words of several texts as hashes: `hashes` (N,) uint64, `lengths` (texts,) words per text."""

    hashes: NDArray[np.uint64]
    lengths: NDArray[np.int64]

    @property
    def owner(self) -> NDArray[np.int64]:
        """(N,) the text that each word belongs to."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


class WordHasher(dict[str, int]):
    """Texts to hashed words; remembers words, up to a million, because language repeats itself."""

    def __missing__(self, word: str) -> int:
        value = xxhash.xxh3_64_intdigest(word.encode())
        if len(self) >= _CACHED:
            self.clear()
        self[word] = value
        return value

    def __call__(self, texts: Sequence[str]) -> Words:
        """The words of every text."""
        flat: list[int] = []
        lengths = []
        for text in texts:
            folded = text.casefold()
            words = _ASCII.findall(folded) if folded.isascii() else _WORD.findall(folded)
            flat += [self[word] for word in words]
            lengths.append(len(words))
        return Words(np.array(flat, dtype=np.uint64), np.array(lengths, dtype=np.int64))


def windows(words: Words, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of all runs of `n` words that lie inside one text, and the text of each. O(N n) time."""
    count = len(words.hashes) - n + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    total = np.zeros(count, dtype=np.uint64)
    for shift in range(n):
        total *= _MULTIPLIER
        total += words.hashes[shift : shift + count]
    owner = words.owner
    inside = owner[:count] == owner[n - 1 :]
    return total[inside], owner[:count][inside]
