"""The words and sentences of the demo's world, one module per language, all written for this project."""

from __future__ import annotations

from innerlingua.demo.languages import bengali, english, hindi, nepali, swahili, telugu
from innerlingua.demo.text import RelationText

__all__ = ["ANCHOR", "TARGETS", "TEXTS"]

#: FLORES-200 code of the anchor language.
ANCHOR = "eng_Latn"

#: FLORES-200 codes of the target languages, with their English names.
TARGETS: dict[str, str] = {
    "hin_Deva": "Hindi",
    "npi_Deva": "Nepali",
    "ben_Beng": "Bengali",
    "tel_Telu": "Telugu",
    "swh_Latn": "Swahili",
}

#: Code of a language to its relations.
TEXTS: dict[str, dict[str, RelationText]] = {
    ANCHOR: english.TEXT,
    "hin_Deva": hindi.TEXT,
    "npi_Deva": nepali.TEXT,
    "ben_Beng": bengali.TEXT,
    "tel_Telu": telugu.TEXT,
    "swh_Latn": swahili.TEXT,
}
