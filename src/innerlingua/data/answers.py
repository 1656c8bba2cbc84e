r"""Final answers: taken out of a model's text, and compared with the right one.

A boxed answer is the last `\boxed{...}` whose braces balance; a regular expression cannot find its end. Equality of
mathematical answers is that of the library `math-verify`, which parses both sides and compares them as sympy does;
plain numbers and equal spellings are settled before. It sets alarms against endless simplification, so it must run in
the main thread.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Final

from innerlingua.data.scripts import ascii_digits
from innerlingua.errors import DataError, nearest

__all__ = [
    "EXTRACTORS",
    "Extractor",
    "boxed_answers",
    "extract_boxed",
    "extract_choice",
    "extractor",
    "same_answer",
    "same_text",
]

Extractor = Callable[[str], str | None]
"""A model's text -> its final answer, or None when it gives none."""

_LONGEST: Final = 1000
"""Characters of the longest answer that is calculated with: a longer one is a text, and costs the parser minutes."""
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:/\d+)?")
_SAID = re.compile(r"answer\s*(?:is|:)\s*\(?\s*\**\(?([A-Z])\b", re.IGNORECASE)
_LETTER = re.compile(r"^\W*(?:\\text(?:bf)?\{)?\W*([A-Za-z])\W*(?:$|[.):}])")
_WRAP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


def boxed_answers(text: str) -> list[str]:
    r"""The contents of every balanced `\boxed{...}`, in order; escaped braces count for nothing."""
    found = []
    for match in _BOX.finditer(text):
        depth, at = 1, match.end()
        while at < len(text) and depth:
            if text[at] == "\\":
                at += 2
                continue
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        if not depth:
            found.append(text[match.end() : at - 1].strip())
    return found


def extract_boxed(text: str) -> str | None:
    r"""The content of the last balanced `\boxed{...}`."""
    found = boxed_answers(text)
    return found[-1] if found and found[-1] else None


def extract_choice(text: str) -> str | None:
    """The letter of a choice, in capitals: from the box; else from the last `answer is X`; else from a bare letter."""
    boxed = extract_boxed(text)
    if boxed is not None:
        match = _LETTER.match(boxed)
        return match[1].upper() if match else None
    said = _SAID.findall(text)
    if said:
        return str(said[-1]).upper()
    match = _LETTER.match(text.strip())
    return match[1].upper() if match and len(text.strip()) <= 3 else None


def extract_number(text: str) -> str | None:
    """The number in the box; without a box, the last number of the text. Digits of any script."""
    boxed = extract_boxed(text)
    found = _NUMBER.findall(ascii_digits(text if boxed is None else boxed))
    return str(found[-1]).rstrip(",.") if found else None


EXTRACTORS: Final[dict[str, Extractor]] = {
    "boxed": extract_boxed,
    "choice": extract_choice,
    "number": extract_number,
}
"""The extractors that the command line knows by name; from Python, any function does."""


def extractor(name: str) -> Extractor:
    """The extractor of that name.

    Raises:
        DataError: there is none; functions of one's own are passed from Python, never named in a configuration.
    """
    if name not in EXTRACTORS:
        raise DataError(
            f"--answer {name!r}: no such extractor (from Python, verify(extract=...) takes a function of your own)"
            f"{nearest(name, EXTRACTORS)}"
        )
    return EXTRACTORS[name]


def same_answer(found: str, gold: str) -> bool:
    """Whether two answers mean the same: spelling, number, letter of a choice, or mathematics.

    Raises:
        DataError: the library for mathematics is needed and not installed.
    """
    one, other = _plain(found), _plain(gold)
    if one.casefold() == other.casefold():
        return True
    first, second = _decimal(one), _decimal(other)
    if first is not None and second is not None:
        return first == second
    if not (re.search(r"[\d\\]", one) and re.search(r"[\d\\]", other)) and not re.search(r"[=^+*/\\()]", one + other):
        return False  # two words: nothing to calculate
    if max(len(one), len(other)) > _LONGEST:
        return False
    return _equal_mathematics(one, other)


def same_text(found: str, gold: str, language: str) -> bool:
    """Whether two short texts are equal but for case, punctuation and spaces, and English articles in English.

    The exact match of extractive question answering (Rajpurkar et al. 2016, arXiv 1606.05250).
    """
    return _words(found, language) == _words(gold, language) != []


def _words(text: str, language: str) -> list[str]:
    bare = "".join(" " if unicodedata.category(c).startswith("P") else c for c in _plain(text).casefold())
    articles = ("a", "an", "the") if language.startswith("eng") else ()
    return [word for word in bare.split() if word not in articles]


def _plain(answer: str) -> str:
    """Without what carries no meaning: dollars, text commands, spaces of LaTeX, a full stop, native digits."""
    text = _WRAP.sub(r"\1", ascii_digits(answer)).replace("\\$", "").replace("\\%", "%")
    text = re.sub(r"\\[,;!: ]|~|\$|\\left|\\right", "", text)
    return " ".join(text.split()).rstrip(".").strip()


def _decimal(text: str) -> Decimal | None:
    # A comma before groups of three digits separates thousands; elsewhere it says something else.
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    try:
        return Decimal(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", text) else None
    except InvalidOperation:
        return None


def _equal_mathematics(found: str, gold: str) -> bool:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise DataError(
            "comparing mathematical answers needs the library math-verify; install it with: "
            "pip install 'innerlingua[data]'"
        ) from error
    return bool(verify(parse(f"${gold}$"), parse(f"${found}$")))
