r"""Whether a translation kept what must survive it: final answer, numbers, code, LaTeX, placeholders, script, length.

Translators alter digits, drop `\boxed{}`, translate code, leave text as it was, or solve the problem again. Each check
compares source and translation by what both hold and names what is missing or new. Numbers are compared by value, with
the digits of any script and any grouping of thousands; a number written as an English word may appear in digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import regex

from innerlingua.data.answers import boxed_answers
from innerlingua.data.checking.grams import hash_words, windows
from innerlingua.data.scripts import ascii_digits, script_of, script_share
from innerlingua.errors import DataError

__all__ = ["Limits", "faults", "kept_pieces", "numbers", "read_limits"]

_FENCE: Final = re.compile(r"```.*?```|~~~.*?~~~", re.DOTALL)
_INLINE: Final = re.compile(r"`[^`\n]+`")
_COMMAND: Final = re.compile(r"\\[A-Za-z]+")
_FORMULA: Final = re.compile(
    r"\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\$(?=\S)[^$\n]*?[\\^_{}][^$\n]*?(?<=\S)\$(?!\d)", re.DOTALL
)
_WORDS: Final = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{[^{}]*\}")
_PLACEHOLDER: Final = re.compile(
    r"\{\{[^{}\n]+\}\}|(?<![\\A-Za-z}])\{[A-Za-z_][\w.]*\}|\$\{\w+\}|%\(\w+\)[sdf]|%[sdf]\b|<[A-Za-z/][^<>\n]{0,60}>|<<[^<>\n]*>>"
    r"|\[[A-Z][A-Z0-9_]+\]|https?://[^\s)\]}>]+|[\w.+-]+@[\w-]+\.[\w.]+"
)
_CHOICE: Final = re.compile(r"^\s*([A-Z])[.)]\s", re.MULTILINE)
_NUMBER: Final = re.compile(r"\d+(?:[.,٬٫  '’]\d+)*")
_ENGLISH_NUMBERS: Final = {
    word: str(value)
    for value, words in enumerate(
        (
            ("zero",),
            ("one", "once", "first", "single"),
            ("two", "twice", "second", "double", "half", "pair", "both"),
            ("three", "third", "triple", "thrice"),
            ("four", "fourth", "quarter", "quarters"),
            ("five", "fifth"),
            ("six", "sixth"),
            ("seven", "seventh"),
            ("eight", "eighth"),
            ("nine", "ninth"),
            ("ten", "tenth"),
            ("eleven",),
            ("twelve", "dozen"),
        )
    )
    for word in words
} | {"fifteen": "15", "twenty": "20", "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "hundred": "100"}
_SHORT: Final = 20
_PHRASE: Final = 4  # words from which a text is no name that two languages share


@dataclass(frozen=True)
class Limits:
    """What a translation may be: share of its script, share of the source in it, length over the source's.

    Lengths are in characters outside of code and formulas. The bounds are wide: they catch a text cut short and one
    that goes on and on, not a clumsy one. Scripts of whole syllables or words are shorter.
    """

    script: float = 0.5
    copied: float = 0.5
    shortest: float = 0.35
    longest: float = 3.0
    shortest_dense: float = 0.1
    longest_dense: float = 1.6


def read_limits(ratio: str | None) -> Limits:
    """`Limits` with the bounds of length from `LOW:HIGH`, for every script; the defaults without.

    Raises:
        DataError: `ratio` is not two numbers in order, above 0.
    """
    if ratio is None:
        return Limits()
    match = re.fullmatch(r"(\d*\.?\d+):(\d*\.?\d+)", ratio.strip())
    if match is None or not 0 < float(match[1]) < float(match[2]):
        raise DataError(f"--length-ratio {ratio!r}: write LOW:HIGH, such as 0.4:2.5")
    low, high = float(match[1]), float(match[2])
    return Limits(shortest=low, longest=high, shortest_dense=low, longest_dense=high)


def numbers(text: str) -> Counter[str]:
    """The numbers of a text by value, with how often each occurs; separators of thousands and native digits folded."""
    found: Counter[str] = Counter()
    for match in _NUMBER.findall(ascii_digits(text)):
        found[_folded(match)] += 1
    return found


def _folded(number: str) -> str:
    """`1,234.50`, `1.234,50`, `1 234,5`, `12,34,567.5` by value. A lone group of three is thousands: 1.234 is 1234."""
    parts = re.split(r"[.,٬٫  '’]", number)
    marks = re.findall(r"[.,٬٫  '’]", number)
    if not marks:
        return number.lstrip("0") or "0"
    last = marks[-1]
    decimal = len(parts[-1]) != 3 or (len(marks) > 1 and marks.count(last) == 1) or parts[0].strip("0") == ""
    whole, rest = ("".join(parts[:-1]), parts[-1].rstrip("0")) if decimal else ("".join(parts), "")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{rest}" if rest else whole


def kept_pieces(text: str) -> str:
    """The text without code, formulas, LaTeX commands and placeholders: what a translator must put into words."""
    for pattern in (_FENCE, _INLINE, _FORMULA, _PLACEHOLDER, re.compile(r"\\(?:boxed|fbox)\s*\{[^{}]*\}"), _COMMAND):
        text = pattern.sub(" ", text)
    return text


def faults(
    source: str,
    translation: str,
    *,
    source_language: str,
    language: str,
    limits: Limits | None = None,
    identify: Callable[[str, str], str | None] | None = None,
) -> list[str]:
    """What a translation lost or changed, in words; an empty list when everything survived.

    Args:
        source: the text that was translated.
        translation: what came back.
        source_language: its code.
        language: the code of the language that was asked for.
        limits: see `Limits`.
        identify: (text, wanted language) -> another language that the text seems to be in, or None.
    """
    limits = limits or Limits()
    if not translation.strip():
        return ["empty"]
    found = [
        *_answer_faults(source, translation),
        *_multiset_faults("code", _found((_FENCE, _INLINE), source), _found((_FENCE, _INLINE), translation)),
        *_latex_faults(source, translation),
        *_multiset_faults("placeholder", _found((_PLACEHOLDER,), source), _found((_PLACEHOLDER,), translation)),
        *_multiset_faults("choice letter", Counter(_CHOICE.findall(source)), Counter(_CHOICE.findall(translation))),
        *_number_faults(source, translation, source_language),
    ]
    words, original = kept_pieces(translation), kept_pieces(source)
    found += _language_faults(original, words, source_language, language, limits, identify)
    if len(original.strip()) >= _SHORT:
        dense = script_of(language) in ("Hans", "Hant", "Jpan", "Hang", "Kore")
        low, high = (limits.shortest_dense, limits.longest_dense) if dense else (limits.shortest, limits.longest)
        if script_of(source_language) in ("Hans", "Hant", "Jpan", "Hang", "Kore") and not dense:
            low, high = 1 / limits.longest_dense, 1 / limits.shortest_dense
        ratio = len(words.strip()) / len(original.strip())
        if not low <= ratio <= high:
            found.append(f"length: {ratio:.2f} of the source's, outside {low:.2f} to {high:.2f}")
    return found


def _found(patterns: tuple[re.Pattern[str], ...], text: str) -> Counter[str]:
    pieces: Counter[str] = Counter()
    for pattern in patterns:
        pieces.update(pattern.findall(text))
        text = pattern.sub(" ", text)
    return pieces


def _multiset_faults(name: str, before: Counter[str], after: Counter[str]) -> list[str]:
    told = []
    if lost := before - after:
        told.append(f"{name} lost: {_listed(lost)}")
    if new := after - before:
        told.append(f"{name} new: {_listed(new)}")
    return told


def _listed(pieces: Counter[str]) -> str:
    shown = [piece if len(piece) <= 40 else piece[:40] + "..." for piece in sorted(pieces.elements())]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def _answer_faults(source: str, translation: str) -> list[str]:
    before, after = ([_bare(box) for box in boxed_answers(text)] for text in (source, translation))
    # A box of words is translated with the text; that it is there is all that can be asked.
    told = [box for box in before if not re.search(r"[^\W\d_]{2,}", _COMMAND.sub("", box))]
    if len(before) != len(after):
        return [f"final answer: {len(after)} boxes where the source has {len(before)}"]
    lost = Counter(told) - Counter(after)
    return [f"final answer lost: {_listed(lost)}"] if lost else []


def _bare(box: str) -> str:
    return re.sub(r"\s+|,(?=\d{3}(?!\d))", "", ascii_digits(box))


def _latex_faults(source: str, translation: str) -> list[str]:
    commands = [Counter(_COMMAND.findall(text)) for text in (source, translation)]
    told = _multiset_faults("LaTeX", *commands)
    formulas = []
    for text in (source, translation):
        pieces = (re.sub(r"\s+", "", _WORDS.sub("", ascii_digits(piece))) for piece in _FORMULA.findall(text))
        formulas.append(Counter(pieces))
    return told or _multiset_faults("formula", *formulas)


def _number_faults(source: str, translation: str, source_language: str) -> list[str]:
    before, after = numbers(source), numbers(translation)
    lost, new = before - after, after - before
    if new and source_language.startswith("eng"):
        # "three apples" may become "3" in the target's words; what the source says in words is not new.
        for word in re.findall(r"[a-z]+", source.casefold()):
            value = _ENGLISH_NUMBERS.get(word)
            if value is not None and new[value] > 0:
                new[value] -= 1
        new = +new
    told = [f"number lost: {_listed(lost)}"] if lost else []
    return [*told, f"number new: {_listed(new)}"] if new else told


def _language_faults(
    source: str,
    words: str,
    source_language: str,
    language: str,
    limits: Limits,
    identify: Callable[[str, str], str | None] | None,
) -> list[str]:
    told = []
    script = script_of(language)
    share = script_share(words, script) if script is not None else None
    if share is not None and share < limits.script:
        told.append(f"script: {share:.0%} of the letters are in {script}")
    if source_language != language:
        copied = _copied(source, words)
        if copied > limits.copied:
            told.append(f"untranslated: {copied:.0%} of it stands in the source")
        elif len(source.split()) >= _PHRASE and " ".join(source.split()) in " ".join(words.split()):
            told.append("echo: the whole source stands in it")
    if identify is not None and not told and (other := identify(words, language)) is not None:
        told.append(f"language: seems to be {other}")
    return told


_LETTER = regex.compile(r"\p{L}")


def _copied(source: str, words: str) -> float:
    """The share of the translation's runs of four words that stand in the source; short texts: whether it is equal."""
    if not _LETTER.search(words):
        return 0.0
    hashed = hash_words([source, words])
    if hashed.lengths[1] < 4:
        # Names and single words are often the same in two languages; a phrase of three words is not.
        equal = source.casefold().split() == words.casefold().split()
        return 1.0 if equal and hashed.lengths[1] == 3 else 0.0
    grams, owner = windows(hashed, 4)
    known = set(grams[owner == 0].tolist())
    mine = grams[owner == 1].tolist()
    return sum(gram in known for gram in mine) / len(mine)
