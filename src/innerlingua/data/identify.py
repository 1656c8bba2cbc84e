"""Which language a text is in, by an optional library that works offline: `py3langid`, which brings its model.

Its codes are ISO 639-1, ours FLORES-200, so several of ours share one of its; a text is faulted only when the library
names, with confidence, a language that ours cannot be, and knows the wanted one. Languages that it does not know are
not identified, and counted so.
"""

from __future__ import annotations

from typing import Any, Final

from innerlingua.data.languages import SHORT_CODES

__all__ = ["Identifier", "load_identifier"]

# Languages that the library takes for each other; one for the other is no fault.
_KIN: Final = (
    frozenset(("ar", "ary", "arz")),
    frozenset(("bs", "hr", "sr")), frozenset(("id", "ms", "jv")), frozenset(("hi", "ne", "mr")),
    frozenset(("no", "nn", "da")), frozenset(("xh", "zu")), frozenset(("sw", "rw")), frozenset(("fa", "ur", "ps")),
    frozenset(("zh", "wuu", "yue")), frozenset(("uz", "uzs")), frozenset(("st", "nso")),
    frozenset(("ku", "sdh")), frozenset(("tr", "az", "crh")), frozenset(("it", "vec", "lij")), frozenset(("ga", "gd")),
)  # fmt: skip
_LEAST: Final = 40  # letters below which it guesses
_SURE: Final = 0.9


class Identifier:
    """Says when a text is in another language than wanted. `name` is the library with its version, for the card."""

    def __init__(self, identifier: Any, name: str) -> None:
        self.name = name
        self._identifier = identifier
        self._known = frozenset(identifier.nb_classes)

    def status(self, text: str, language: str) -> str:
        """What can be said of a text: `identified`, or why not: `unknown_language`, `too_short`."""
        if SHORT_CODES.get(language.partition("_")[0]) not in self._known:
            return "unknown_language"
        return "identified" if sum(character.isalpha() for character in text) >= _LEAST else "too_short"

    def __call__(self, text: str, language: str) -> str | None:
        """Another language that `text` is in, with confidence; None when it may well be `language`."""
        if self.status(text, language) != "identified":
            return None
        wanted = SHORT_CODES[language.partition("_")[0]]
        found, share = self._identifier.classify(text)
        if found == wanted or share < _SURE or any({found, wanted} <= kin for kin in _KIN):
            return None
        return f"{found} ({share:.0%})"


def load_identifier() -> Identifier | None:
    """The identifier where its library is installed, else None."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    from importlib.metadata import version

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return Identifier(identifier, f"py3langid {version('py3langid')}")
