"""Pairs of a low-resource text and its high-resource anchor: reading, checking, tokenising, splitting.

`read_pairs` reads JSON Lines, Parquet and datasets; `read_parallel` reads rows that hold one meaning in many languages;
`tokenize_pairs` makes token ids and labels of both sides as TRL makes them of one; `pack_rows` lays tokenised rows end
to end, anchors kept; `split_by_group` splits without tearing a document apart. Importing this room imports neither
torch nor datasets; both come when they are used.
"""

from __future__ import annotations

from innerlingua.data.languages import ENGLISH, LANGUAGES, check_language, known_languages
from innerlingua.data.packing import pack_rows
from innerlingua.data.pairs import Pairs, read_pairs
from innerlingua.data.parallel import PACK_VARIABLE, pack_dir, read_parallel, split_by_group
from innerlingua.data.tokenize import TokenizedPairs, tokenize_pairs

__all__ = [
    "ENGLISH",
    "LANGUAGES",
    "PACK_VARIABLE",
    "Pairs",
    "TokenizedPairs",
    "check_language",
    "known_languages",
    "pack_dir",
    "pack_rows",
    "read_pairs",
    "read_parallel",
    "split_by_group",
    "tokenize_pairs",
]
