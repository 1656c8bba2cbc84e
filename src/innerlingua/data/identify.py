"""Which language a text is in, by an optional library that works offline: `py3langid`, which brings its model.

Its codes are ISO 639-1, ours FLORES-200, so several of ours share one of its; a text is faulted only when the library
names, with confidence, a language that ours cannot be, and knows the wanted one. Languages that it does not know are
not identified, and counted so.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["Identifier", "load_identifier"]

# FLORES-200 language -> the library's code; those that share their two letters with ISO 639-3's first two are here too.
_CODES: Final = {
    "afr": "af", "amh": "am", "arb": "ar", "acm": "ar", "acq": "ar", "aeb": "ar", "ajp": "ar", "apc": "ar",
    "ars": "ar", "ary": "ar", "arz": "ar", "asm": "as", "azj": "az", "azb": "az", "bel": "be", "bul": "bg",
    "ben": "bn", "bos": "bs", "cat": "ca", "ces": "cs", "cym": "cy", "dan": "da", "deu": "de", "dzo": "dz",
    "ell": "el", "eng": "en", "epo": "eo", "spa": "es", "est": "et", "eus": "eu", "pes": "fa", "prs": "fa",
    "fin": "fi", "fao": "fo", "fra": "fr", "gle": "ga", "glg": "gl", "guj": "gu", "heb": "he", "hin": "hi",
    "hrv": "hr", "hat": "ht", "hun": "hu", "hye": "hy", "ind": "id", "isl": "is", "ita": "it", "jpn": "ja",
    "jav": "jv", "kat": "ka", "kaz": "kk", "khm": "km", "kan": "kn", "kor": "ko", "ckb": "ku", "kmr": "ku",
    "kir": "ky", "ltz": "lb", "lao": "lo", "lit": "lt", "lvs": "lv", "plt": "mg", "mkd": "mk", "mal": "ml",
    "khk": "mn", "mar": "mr", "zsm": "ms", "mlt": "mt", "npi": "ne", "nld": "nl", "nno": "nn", "nob": "no",
    "oci": "oc", "ory": "or", "pan": "pa", "pol": "pl", "pbt": "ps", "por": "pt", "quy": "qu", "ron": "ro",
    "rus": "ru", "kin": "rw", "sin": "si", "slk": "sk", "slv": "sl", "als": "sq", "srp": "sr", "swe": "sv",
    "swh": "sw", "tam": "ta", "tel": "te", "tha": "th", "tgl": "tl", "tur": "tr", "uig": "ug", "ukr": "uk",
    "urd": "ur", "vie": "vi", "wol": "wo", "xho": "xh", "yor": "yo", "zho": "zh", "yue": "zh", "zul": "zu",
    "hau": "ha", "ibo": "ig", "som": "so", "sna": "sn", "sot": "st", "nso": "nso", "mya": "my", "lug": "lg",
    "lin": "ln", "gaz": "om", "uzn": "uz", "bak": "ba", "tat": "tt", "tgk": "tg", "tuk": "tk", "san": "sa",
    "ace": "ace", "kab": "kab", "kik": "kik", "lij": "lij", "ltg": "ltg", "vec": "vec", "gla": "gd", "crh": "crh",
    "fuv": "fuv",
}  # fmt: skip
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
        if _CODES.get(language.partition("_")[0]) not in self._known:
            return "unknown_language"
        return "identified" if sum(character.isalpha() for character in text) >= _LEAST else "too_short"

    def __call__(self, text: str, language: str) -> str | None:
        """Another language that `text` is in, with confidence; None when it may well be `language`."""
        if self.status(text, language) != "identified":
            return None
        wanted = _CODES[language.partition("_")[0]]
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
