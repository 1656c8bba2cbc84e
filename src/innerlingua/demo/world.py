"""The demo's world: facts about invented people and towns, told richly in English and sparsely in five other languages.

A fact is (relation, entity, answer). Two kinds:

- *trained* facts are stated in English and in `coverage` of the five target languages;
- *held-out* facts are stated in English alone. Nothing that any run trains on states them in a target language,
  neither as a sentence nor as a question with its answer; `find_faults` searches for them whenever a world is built.

Every answer word of a held-out fact does occur in each target language, through trained facts with the same answer, and
so do the entity's name and the question: a model that answers has to carry the fact over from English.

All words and sentences are written for this project (`languages/`, `names.py`).
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from innerlingua.demo.languages import ANCHOR, TARGETS, TEXTS
from innerlingua.demo.names import PEOPLE, TOWNS, spell, telugu_dative
from innerlingua.demo.text import RELATIONS

__all__ = [
    "Fact",
    "World",
    "base_texts",
    "build_world",
    "candidates",
    "find_faults",
    "held_out_rows",
    "pair",
    "question",
    "shuffle_anchors",
    "statements",
    "tuning_rows",
]

Row = dict[str, str]


@dataclass(frozen=True)
class Fact:
    """One fact. `answer` indexes the relation's answer words; `languages` are the targets that state it."""

    id: str
    relation: str
    entity: str
    answer: int
    languages: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Whether no target language states it."""
        return not self.languages


@dataclass(frozen=True)
class World:
    """All facts, in a fixed order."""

    facts: tuple[Fact, ...]

    @cached_property
    def by_id(self) -> dict[str, Fact]:
        """Facts by their id."""
        return {fact.id: fact for fact in self.facts}

    @property
    def held_out(self) -> list[Fact]:
        """The facts that only English states."""
        return [fact for fact in self.facts if fact.held_out]

    @property
    def trained(self) -> list[Fact]:
        """The facts that some target languages state too."""
        return [fact for fact in self.facts if not fact.held_out]


def build_world(seed: int, *, people: int = 72, towns: int = 48, coverage: int = 3, held_out: float = 0.2) -> World:
    """A world of `people` × 6 + `towns` × 4 facts. The same seed gives the same world.

    Answers are dealt evenly to the entities of each relation, so that none can be guessed from its frequency. Of the
    facts that share a relation and an answer, `held_out` of them (at least one) are held out, from the entities that
    have lost the fewest so far. Each of the others is stated in the `coverage` target languages that have heard least
    of its entity and of its answer. A deal that leaves a name or a word unheard somewhere is dealt again.

    Raises:
        ValueError: the world is too small for its coverage: no deal is without faults (see `find_faults`).
    """
    for attempt in range(100):
        world = _deal(random.Random(f"{seed} {attempt}"), people, towns, coverage, held_out)
        faults = find_faults(world)
        if not faults:
            return world
    raise ValueError(f"no world of {people} people and {towns} towns at coverage {coverage}: {faults[0]}")


def _deal(rng: random.Random, people: int, towns: int, coverage: int, held_out: float) -> World:
    entities = {"person": rng.sample(PEOPLE, people), "town": rng.sample(TOWNS, towns)}
    heard: Counter[tuple[str, str]] = Counter()  # (entity, or relation and answer; language) -> facts
    lost: Counter[str] = Counter()
    facts = []
    for relation, kind in RELATIONS.items():
        order = rng.sample(entities[kind], len(entities[kind]))
        answers = len(TEXTS[ANCHOR][relation].answers)
        for answer in range(answers):
            holders = sorted(order[answer::answers], key=lambda entity: lost[entity])
            hidden = max(1, round(held_out * len(holders)))
            for place, entity in enumerate(holders):
                languages: list[str] = []
                if place < hidden:
                    lost[entity] += 1
                else:
                    keys = (entity, f"{relation} {answer}")
                    targets = rng.sample(list(TARGETS), len(TARGETS))
                    # Missing altogether counts most, then the sum: both the name and the word have to occur everywhere.
                    targets.sort(key=lambda code: sum(heard[key, code] or -10 for key in keys))
                    languages = targets[:coverage]
                    heard.update((key, code) for key in keys for code in languages)
                facts.append(Fact(f"{relation}-{entity.lower()}", relation, entity, answer, tuple(sorted(languages))))
    return World(tuple(sorted(facts, key=lambda fact: fact.id)))


def _fill(template: str, fact: Fact, language: str) -> str:
    name = spell(fact.entity, language.partition("_")[2])
    answer = TEXTS[language][fact.relation].answers[fact.answer]
    return template.format(x=name, a=answer, ki=telugu_dative(fact.entity))


def statements(fact: Fact, language: str) -> list[str]:
    """The sentences that state a fact in a language."""
    return [_fill(template, fact, language) for template in TEXTS[language][fact.relation].statements]


def question(fact: Fact, language: str) -> str:
    """The question that asks for a fact in a language."""
    return _fill(TEXTS[language][fact.relation].question, fact, language)


def candidates(fact: Fact, language: str) -> list[str]:
    """The relation's answer words in a language, each with the space that parts it from the question."""
    return [f" {word}" for word in TEXTS[language][fact.relation].answers]


def pair(fact: Fact, language: str) -> Row:
    """The row of a fact in a language: question and answer, with the English question and answer as its anchor."""
    return {
        "id": fact.id,
        "language": language,
        "anchor_language": ANCHOR,
        "prompt": question(fact, language),
        "completion": candidates(fact, language)[fact.answer],
        "anchor_prompt": question(fact, ANCHOR),
        "anchor_completion": candidates(fact, ANCHOR)[fact.answer],
    }


def base_texts(world: World) -> list[tuple[str, str]]:
    """(language, text) of everything that the base model learns from.

    English: both wordings of every fact, and its question with the answer. A target language: one wording (the
    languages take turns) and the question with the answer, of the facts that it states.
    """
    texts = []
    for number, fact in enumerate(world.facts):
        texts += [(ANCHOR, sentence) for sentence in statements(fact, ANCHOR)]
        texts.append((ANCHOR, question(fact, ANCHOR) + candidates(fact, ANCHOR)[fact.answer]))
        for language in fact.languages:
            wording = (number + list(TARGETS).index(language)) % 2
            texts.append((language, statements(fact, language)[wording]))
            texts.append((language, question(fact, language) + candidates(fact, language)[fact.answer]))
    return texts


def tuning_rows(world: World) -> list[Row]:
    """The instruction rows of all runs: trained facts in the target languages that state them, with their anchors."""
    return [pair(fact, language) for fact in world.trained for language in fact.languages]


def held_out_rows(world: World) -> list[Row]:
    """Each held-out fact, asked in every target language."""
    return [pair(fact, language) for fact in world.held_out for language in TARGETS]


def shuffle_anchors(rows: list[Row], *, seed: int) -> list[Row]:
    """The rows with their anchors dealt to other facts: the control that keeps everything but the meaning.

    The ids are shuffled once and each takes the anchor of the next, so that no fact keeps its own anchor and all rows
    of one fact still share one anchor.
    """
    ids = sorted({row["id"] for row in rows})
    random.Random(seed).shuffle(ids)
    following = dict(zip(ids, ids[1:] + ids[:1], strict=True))
    anchors = {row["id"]: {key: row[key] for key in ("anchor_prompt", "anchor_completion")} for row in rows}
    return [{**row, **anchors[following[row["id"]]]} for row in rows]


def find_faults(world: World) -> list[str]:
    """Search every training text for held-out facts, and for the words that their questions need.

    A fault is a training text of a target language that states a held-out fact, as a sentence or as a question with its
    answer; or a target language in which a held-out fact's answer word, or its entity's name, never occurs.
    """
    texts = base_texts(world) + [(row["language"], row["prompt"] + row["completion"]) for row in tuning_rows(world)]
    told: dict[str, set[str]] = {language: set() for language in TEXTS}
    for language, text in texts:
        told[language].add(text)
    faults = []
    for fact in world.held_out:
        for language in TARGETS:
            name, word = spell(fact.entity, language.partition("_")[2]), candidates(fact, language)[fact.answer]
            if told[language] & {question(fact, language) + word, *statements(fact, language)}:
                faults.append(f"{language} states the held-out fact {fact.id}")
            if not any(name in text for text in told[language]):
                faults.append(f"{language} never names {fact.entity}")
            if not any(text.endswith(word) for text in told[language]):
                faults.append(f"{language} never answers{word} to {fact.relation}")
    return faults
