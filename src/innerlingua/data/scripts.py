"""Writing systems: which script a language code asks for, how much of a text is in it, and digits of any script.

The script is the second half of a FLORES-200 code (ISO 15924). Letters are counted by their Unicode script property;
digits by their decimal value, so that ३, ৩ and 3 are one number.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final

import regex

__all__ = ["SCRIPTS", "UNSPACED", "ascii_digits", "script_of", "script_share"]

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


_LETTER = regex.compile(r"[\p{L}--\p{Script=Common}--\p{Script=Inherited}]", regex.V1)


@cache
def _patterns(script: str) -> tuple[regex.Pattern[str]] | None:
    names = SCRIPTS.get(script, (script,))
    try:
        classes = "".join(rf"\p{{Script={name}}}" for name in names)
        return (regex.compile(rf"[\p{{L}}&&[{classes}]]", regex.V1),)
    except regex.error:  # a code that Unicode does not know: nothing can be said of it
        return None


_DIGITS: Final = {
    code: str(unicodedata.decimal(chr(code)))
    for code in range(0x80, 0x1FBFA)
    if unicodedata.category(chr(code)) == "Nd"
}


def ascii_digits(text: str) -> str:
    """`text` with the decimal digits of every script written as 0 to 9; nothing else changes."""
    return text if text.isascii() else text.translate(_DIGITS)
