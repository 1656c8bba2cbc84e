"""Word n-grams as 64-bit hashes, many texts at a time.

A text becomes words: case folded, runs of letters, digits and marks; in scripts that put no space between words each
character, with the marks on it, is a word. A word becomes a hash, and n words in a row become one by a polynomial over
2^64, so that a million rows cost array operations and no string is kept. With a million distinct grams, two different
ones meet with probability below 1e-7.

The words of many texts are found and hashed together, over their code points: sum_i c_i M^i modulo 2^64 for the
characters c_i of a word and an odd M, from differences of one cumulative sum, then mixed.

Shapes: C code points and N words in all texts together, one row of `lengths` per text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from innerlingua.data.scripts import Points, code_points, word_classes

__all__ = ["Words", "hash_words", "shares_of_runs", "windows"]

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_BASE: Final = 0xD1342543DE82EF95
_INVERSE: Final = pow(_BASE, -1, 2**64)
_CHUNK: Final = 1 << 20  # code points that are worked on together


@dataclass(frozen=True)
class Words:
    """The words of several texts as hashes: `hashes` (N,) uint64, `lengths` (texts,) words per text."""

    hashes: NDArray[np.uint64]
    lengths: NDArray[np.int64]

    @property
    def owner(self) -> NDArray[np.int64]:
        """(N,) the text that each word belongs to."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def select(self, texts: NDArray[np.bool_]) -> Words:
        """The words of some of the texts."""
        return Words(self.hashes[np.repeat(texts, self.lengths)], self.lengths[texts])

    def joined(self, owner: NDArray[np.int64], texts: int) -> Words:
        """The words of texts that are put together from these: `owner` (texts of these,) ascending names the whole."""
        return Words(self.hashes, np.bincount(owner, weights=self.lengths, minlength=texts).astype(np.int64))


def hash_words(texts: Sequence[str], *, folded: bool = False) -> Words:
    """The words of every text; `folded` when case is folded already. O(C) time, in pieces of a million code points."""
    given = texts if folded else [text.casefold() for text in texts]
    parts = [_hashed(code_points(chunk)) for chunk in _chunks(given)] or [_hashed(code_points([]))]
    if len(parts) == 1:
        return parts[0]
    return Words(np.concatenate([part.hashes for part in parts]), np.concatenate([part.lengths for part in parts]))


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start = size = 0
    for end, text in enumerate(texts):
        size += len(text)
        if size > _CHUNK:
            yield texts[start : end + 1]
            start, size = end + 1, 0
    if start < len(texts):
        yield texts[start:]


def _hashed(points: Points) -> Words:
    codes, starts = points.codes, points.starts
    word, single, mark = word_classes(codes)
    begins = np.zeros(len(codes), dtype=bool)
    begins[starts[starts < len(codes)]] = True
    # A mark belongs to the character before it, and with it to that word, or to that character that is a word alone.
    own = single | ~mark | begins
    alone = single[np.maximum.accumulate(np.where(own, np.arange(len(codes)), 0))] & word
    inside = ~begins
    inside[1:] &= word[:-1]
    after_alone = inside.copy()
    after_alone[1:] &= alone[:-1]
    first = word & (~inside | (single & ~(mark & after_alone)) | (after_alone & ~mark))
    at = np.flatnonzero(first)
    powers, inverses = _powers(len(codes))
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    # What is in no word adds nothing, so that a word may end where the next one begins.
    np.cumsum(codes * word * powers[: len(codes)], out=sums[1:])
    ends = np.r_[at[1:], len(codes)]
    hashes = _mix((sums[ends] - sums[at]) * inverses[at]) if len(at) else np.empty(0, dtype=np.uint64)
    return Words(hashes, np.diff(np.searchsorted(at, np.r_[starts, len(codes)])))


def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """M^0 ... M^(count - 1) and their inverses, modulo 2^64."""
    return _geometric(_BASE, _rounded(count)), _geometric(_INVERSE, _rounded(count))


def _rounded(count: int) -> int:
    return max(1 << 12, 1 << (count - 1).bit_length())


@cache
def _geometric(base: int, count: int) -> NDArray[np.uint64]:
    factors = np.full(count, np.uint64(base), dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread values over 64 bits: the finaliser of splitmix64 (Steele et al. 2014)."""
    values = values + _MULTIPLIER
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


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


def shares_of_runs(words: Words, others: Words, partners: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """(texts,) the share of each text's runs of `n` words that stand in its partner; 0 without a run or a partner.

    Args:
        words: the texts.
        others: the partners of some of them.
        partners: (partners,) the text that each of `others` belongs to.
        n: words in a run.
    """
    grams, owner = windows(words, n)
    other_grams, other_owner = windows(others, n)
    known = np.sort(_of_text(other_grams, partners[other_owner]))
    shares = np.zeros(len(words.lengths))
    if len(known) and len(grams):
        asked = _of_text(grams, owner)
        shared = known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
        total = np.bincount(owner, minlength=len(shares))
        np.divide(np.bincount(owner, weights=shared, minlength=len(shares)), total, out=shares, where=total > 0)
    return shares


def _of_text(grams: NDArray[np.uint64], texts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One number for (gram, text), so that sets of many texts are compared at once."""
    return grams ^ (texts.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
