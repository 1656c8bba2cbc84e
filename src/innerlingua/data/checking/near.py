"""Near-duplicates by MinHash (Broder 1997) and banding (Leskovec et al., Mining of Massive Datasets, chapter 3).

Two texts are alike when the Jaccard index of their sets of word 5-grams is high. A signature holds, for 64 random
functions, the least value over a text's grams; the share of equal places estimates the index (standard error
sqrt(J (1 - J) / 64), at most 0.063). Texts that agree on one of 16 bands of 4 places are compared by their whole
signatures: at J = 0.7 that finds 98.7 % of the pairs.

Ours and not a library's: the libraries give flags or Python integers where groups with their first member are needed,
and on arrays of hashed words this is thirty lines. 256 bytes a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from innerlingua.data.checking.grams import Words, windows

__all__ = ["GRAM", "group_alike", "signatures"]

GRAM = 5
"""Words in a gram for likeness: one changed word in forty leaves an index of about 0.76."""

_PLACES, _BANDS = 64, 16
_RNG = np.random.default_rng(20260101)
_FACTORS = _RNG.integers(1, 2**63, size=_PLACES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_SHIFTS = _RNG.integers(0, 2**63, size=_PLACES, dtype=np.uint64)


def signatures(words: Words) -> NDArray[np.uint32]:
    """MinHash signatures, (texts, 64). A text shorter than a gram is one gram; one without words gets all ones."""
    grams, owner = windows(words, GRAM)
    for length in range(1, GRAM):
        short = np.flatnonzero(words.lengths == length)
        if len(short):
            hashes, texts = windows(words, length)
            kept = np.isin(texts, short)
            grams, owner = np.concatenate([grams, hashes[kept]]), np.concatenate([owner, texts[kept]])
    result = np.full((len(words.lengths), _PLACES), np.iinfo(np.uint32).max, dtype=np.uint32)
    if not len(grams):
        return result
    order = np.argsort(owner, kind="stable")
    grams, owner = grams[order], owner[order]
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    for place in range(_PLACES):
        values = ((grams * _FACTORS[place] + _SHIFTS[place]) >> np.uint64(32)).astype(np.uint32)
        result[owner[starts], place] = np.minimum.reduceat(values, starts)
    return result


def group_alike(signed: NDArray[np.uint32], threshold: float) -> NDArray[np.int64]:
    """For each text, the first text of the group of texts that it is alike with; itself when it is alone.

    Args:
        signed: (texts, 64) from `signatures`, all of one language.
        threshold: least share of equal places for two texts to be alike.

    Groups are closed under likeness: a like b and b like c puts the three together. O(texts log texts).
    """
    parent = np.arange(len(signed), dtype=np.int64)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    width = _PLACES // _BANDS
    for band in range(_BANDS):
        part = np.ascontiguousarray(signed[:, band * width : (band + 1) * width]).view(np.uint64)
        # The four places as one number: two bands that differ meet in it once in 2^64, and are compared whole after.
        keys = part[:, 0] * _FACTORS[0] ^ part[:, 1] * _FACTORS[1]
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        if not same.any():
            continue
        run = np.r_[True, ~same]
        heads = order[np.maximum.accumulate(np.where(run, np.arange(len(order)), 0))]
        later = np.flatnonzero(~run)
        # Each text of a run against the run's first and against its neighbour: linear, where all pairs would not be.
        for first, second in ((heads[later], order[later]), (order[later - 1], order[later])):
            apart = parent[first] != parent[second]  # what earlier bands have joined needs no look
            for a, b in _alike(signed, first[apart], second[apart], threshold):
                x, y = root(a), root(b)
                if x != y:
                    parent[max(x, y)] = min(x, y)
            parent = _flat(parent)
    return parent


def _flat(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every node's root, where `parent` names a node nearer to it."""
    while not np.array_equal(nearer := parent[parent], parent):
        parent = nearer
    return parent


def _alike(
    signed: NDArray[np.uint32], first: NDArray[np.int64], second: NDArray[np.int64], threshold: float
) -> list[tuple[int, int]]:
    found = []
    for start in range(0, len(first), 100_000):
        a, b = first[start : start + 100_000], second[start : start + 100_000]
        close = (signed[a] == signed[b]).mean(axis=1) >= threshold
        found += list(zip(a[close].tolist(), b[close].tolist(), strict=True))
    return found
