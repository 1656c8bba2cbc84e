"""Writing systems: which script a language code asks for, how much of a text is in it, and digits of any script.

The script is the second half of a FLORES-200 code (ISO 15924). Letters are counted by their Unicode script property;
digits by their decimal value, so that ३, ৩ and 3 are one number.

Many texts at once are arrays of code points, and a class of characters is a table over them.
Shapes: C code points in all texts together.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import regex
from numpy.typing import NDArray

__all__ = [
    "SCRIPTS",
    "UNSPACED",
    "Points",
    "ascii_digits",
    "code_points",
    "script_of",
    "script_share",
    "script_shares",
    "word_classes",
]

SCRIPTS: Final[dict[str, tuple[str, ...]]] = {
    "Hans": ("Hani",),
    "Hant": ("Hani",),
    "Jpan": ("Hani", "Hira", "Kana"),
    "Hang": ("Hang", "Hani"),
    "Kore": ("Hang", "Hani"),
}
"""ISO 15924 codes that stand for other or several Unicode scripts; all others are their own."""

UNSPACED: Final = ("Hani", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")
"""Scripts that put no space between words."""


def script_of(language: str) -> str | None:
    """The script in a language code (`hin_Deva` -> `Deva`); None where the code names none."""
    tail = language.rpartition("_")[2]
    return tail if len(tail) == 4 and tail.istitle() and tail.isascii() else None


def script_share(text: str, script: str) -> float | None:
    """The share of the letters of `text` that are in `script`, from 0 to 1; None without a letter or a known script.

    Letters that every script shares (Unicode Common and Inherited) are not counted.
    """
    patterns = _patterns(script)
    if patterns is None:
        return None
    inside = len(patterns[0].findall(text))
    letters = len(_LETTER.findall(text))
    return inside / letters if letters else None


_LETTERS: Final = r"[\p{L}--\p{Script=Common}--\p{Script=Inherited}]"
_LETTER = regex.compile(_LETTERS, regex.V1)


@cache
def _patterns(script: str) -> tuple[regex.Pattern[str]] | None:
    pattern = _class_of(script)
    return None if pattern is None else (regex.compile(pattern, regex.V1),)


def _class_of(script: str) -> str | None:
    """The letters of a script as a class of a regular expression; None for a code that Unicode does not know."""
    classes = "".join(rf"\p{{Script={name}}}" for name in SCRIPTS.get(script, (script,)))
    pattern = rf"[\p{{L}}&&[{classes}]]"
    try:
        regex.compile(pattern, regex.V1)
    except regex.error:  # nothing can be said of it
        return None
    return pattern


@dataclass(frozen=True)
class Points:
    """Several texts as code points: `codes` (C,) uint32, `lengths` (texts,)."""

    codes: NDArray[np.uint32]
    lengths: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """(texts,) where each text begins."""
        return np.cumsum(self.lengths) - self.lengths


def code_points(texts: Sequence[str]) -> Points:
    """The texts as one array of code points."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return Points(codes, np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))


def word_classes(codes: NDArray[np.uint32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """(C,) three times: whether a code point can stand in a word, is in a script without spaces, is a mark.

    In a word stand letters, marks, digits, and all of the scripts without spaces.
    """
    classes = _word_table()[np.minimum(codes, _LAST)]
    return (classes & 1) != 0, (classes & 2) != 0, (classes & 4) != 0


def script_shares(points: Points, script: str) -> NDArray[np.float64]:
    """(texts,) `script_share` of every text; nan where that is None."""
    shares = np.full(len(points.lengths), np.nan)
    pattern = _class_of(script)
    if pattern is not None and len(shares):
        codes = np.minimum(points.codes, _LAST)
        edges = np.r_[points.starts, len(codes)]
        inside, letters = (np.diff(_before(_table(name)[codes])[edges]) for name in (pattern, _LETTERS))
        np.divide(inside, letters, out=shares, where=letters > 0)
    return shares


def _before(hits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(C + 1,) how many hits lie before each place."""
    counts = np.zeros(len(hits) + 1, dtype=np.int64)
    np.cumsum(hits, out=counts[1:])
    return counts


_LAST: Final = 0x40000  # code points from here on are private, tags or none: in no class
_UNSPACED: Final = "".join(rf"\p{{Script={name}}}" for name in UNSPACED)


@cache
def _word_table() -> NDArray[np.uint8]:
    word, unspaced, mark = (_table(p) for p in (rf"[\p{{L}}\p{{M}}\p{{Nd}}{_UNSPACED}]", rf"[{_UNSPACED}]", r"\p{M}"))
    classes: NDArray[np.uint8] = word * np.uint8(1) + unspaced * np.uint8(2) + mark * np.uint8(4)
    return classes


@cache
def _table(pattern: str) -> NDArray[np.bool_]:
    """(_LAST + 1,) whether each code point matches the pattern of one character."""
    table = np.zeros(_LAST + 1, dtype=np.bool_)
    for match in regex.compile(rf"(?:{pattern})+", regex.V1).finditer(_every_character()):
        table[match.start() : match.end()] = True
    return table


@cache
def _every_character() -> str:
    # Half pairs are no characters, and stand as blanks.
    return "".join(" " if 0xD800 <= code < 0xE000 else chr(code) for code in range(_LAST))


_DIGITS: Final = {
    code: str(unicodedata.decimal(chr(code)))
    for code in range(0x80, 0x1FBFA)
    if unicodedata.category(chr(code)) == "Nd"
}


def ascii_digits(text: str) -> str:
    """`text` with the decimal digits of every script written as 0 to 9; nothing else changes."""
    return text if text.isascii() else text.translate(_DIGITS)
