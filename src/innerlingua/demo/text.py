"""How one relation is said in one language.

A template holds `{x}` for the entity's name in the language's script and `{a}` for the answer word. Case endings that
depend on the name are placeholders too (`{ki}`, the Telugu dative). Sentences are chosen so that no word has to agree
with the answer: the answer word stands there in its plain form and can be compared letter by letter.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RELATIONS", "RelationText"]

#: The relations of the world and the kind of entity each belongs to.
#: All language modules have these keys, in this order.
RELATIONS: dict[str, str] = {
    "colour": "person",
    "pet": "person",
    "work": "person",
    "fruit": "person",
    "music": "person",
    "birth": "person",
    "crop": "town",
    "market": "town",
    "mine": "town",
    "flag": "town",
}


@dataclass(frozen=True)
class RelationText:
    """Two wordings of the statement, one question, and the answer words in the order that all languages share."""

    statements: tuple[str, str]
    question: str
    answers: tuple[str, ...]
