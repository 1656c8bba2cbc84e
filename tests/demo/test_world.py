"""The demo's world: what it promises about held-out facts, and that every sentence is whole."""

from __future__ import annotations

import re
import unicodedata

import pytest

from innerlingua.demo.languages import ANCHOR, TARGETS, TEXTS
from innerlingua.demo.names import PEOPLE, TOWNS, spell, telugu_dative
from innerlingua.demo.text import RELATIONS
from innerlingua.demo.world import (
    World,
    base_texts,
    build_world,
    candidates,
    find_faults,
    held_out_rows,
    pair,
    question,
    shuffle_anchors,
    statements,
    tuning_rows,
)

SCRIPT_NAMES = {"Latn": "LATIN", "Deva": "DEVANAGARI", "Beng": "BENGALI", "Telu": "TELUGU"}


@pytest.fixture(scope="module", params=[0, 100])
def world(request: pytest.FixtureRequest) -> World:
    return build_world(request.param)


def target_training_texts(world: World, language: str) -> list[str]:
    texts = [text for code, text in base_texts(world) if code == language]
    return texts + [row["prompt"] + row["completion"] for row in tuning_rows(world) if row["language"] == language]


@pytest.mark.parametrize("language", TARGETS)
def test_no_target_training_text_gives_a_held_out_relation_of_an_entity_any_answer(world: World, language: str) -> None:
    """Wider than the search in the code: by pattern, over every wording, whatever the answer."""
    texts = set(target_training_texts(world, language))
    told = 0
    for fact in world.facts:
        text = TEXTS[language][fact.relation]
        name = spell(fact.entity, language.partition("_")[2])
        sentences = (*text.statements, f"{text.question} {{a}}")
        stated = {
            sentence.format(x=name, a=answer, ki=telugu_dative(fact.entity))
            for sentence in sentences
            for answer in text.answers
        }
        told += bool(stated & texts)
        assert not (fact.held_out and stated & texts), fact.id
    assert told == sum(language in fact.languages for fact in world.facts), "the patterns find what is stated"


@pytest.mark.parametrize("language", TARGETS)
def test_the_words_of_held_out_questions_occur_through_other_facts(world: World, language: str) -> None:
    texts = target_training_texts(world, language)
    for fact in world.held_out:
        assert any(text.endswith(candidates(fact, language)[fact.answer]) for text in texts)
        assert any(spell(fact.entity, language.partition("_")[2]) in text for text in texts)


def test_english_states_every_fact_in_all_its_wordings(world: World) -> None:
    english = {text for code, text in base_texts(world) if code == ANCHOR}
    for fact in world.facts:
        assert {*statements(fact, ANCHOR), question(fact, ANCHOR) + candidates(fact, ANCHOR)[fact.answer]} <= english


def test_there_are_at_least_500_held_out_questions(world: World) -> None:
    rows = held_out_rows(world)
    assert len(rows) >= 500
    assert len({(row["id"], row["language"]) for row in rows}) == len(rows)


def test_a_leaked_fact_is_found(world: World) -> None:
    """The search must be able to fail: one held-out fact stated in Hindi."""
    leaked, others = world.held_out[0], [fact for fact in world.facts if fact is not world.held_out[0]]
    told = type(leaked)(leaked.id, leaked.relation, leaked.entity, leaked.answer, ("hin_Deva",))
    assert told not in World((*others, told)).held_out
    # The same fact once told and once held out: what a leak looks like.
    assert f"hin_Deva states the held-out fact {leaked.id}" in find_faults(World((*world.facts, told)))


def test_the_same_seed_gives_the_same_world() -> None:
    assert build_world(3) == build_world(3)
    assert build_world(3) != build_world(4)


def test_a_world_too_small_for_its_coverage_is_refused() -> None:
    with pytest.raises(ValueError, match="no world of 12 people"):
        build_world(0, people=12, towns=10, coverage=1)


@pytest.mark.parametrize("language", TEXTS)
def test_each_language_says_each_relation_with_as_many_answers(language: str) -> None:
    assert list(TEXTS[language]) == list(RELATIONS)
    for relation, text in TEXTS[language].items():
        assert len(set(text.answers)) == len(text.answers) == len(TEXTS[ANCHOR][relation].answers)
        assert len(set(text.statements)) == 2


@pytest.mark.parametrize("language", TEXTS)
def test_every_sentence_is_whole_and_in_its_own_script(world: World, language: str) -> None:
    script = language.partition("_")[2]
    for fact in world.facts:
        name, word = spell(fact.entity, script), TEXTS[language][fact.relation].answers[fact.answer]
        for sentence in statements(fact, language):
            assert name in sentence
            assert word in sentence
            assert sentence[-1] in ".।"
        assert question(fact, language).endswith("?")
        assert name in question(fact, language)
        for text in (*statements(fact, language), question(fact, language), word):
            assert "{" not in text
            assert "  " not in text
            assert unicodedata.normalize("NFC", text) == unicodedata.normalize(
                "NFC", unicodedata.normalize("NFD", text)
            )
            letters = [char for char in text if unicodedata.category(char)[0] in "LM"]
            assert all(unicodedata.name(char).startswith(SCRIPT_NAMES[script]) for char in letters), text


@pytest.mark.parametrize("language", ["hin_Deva", "npi_Deva", "ben_Beng", "tel_Telu"])
def test_verb_final_languages_do_not_follow_the_english_order(language: str) -> None:
    """The answer stands before the last word in the first wording, except where there is no copula at all."""
    for relation, text in TEXTS[language].items():
        ends_with_answer = text.statements[0].rstrip("।.").endswith("{a}")
        assert not ends_with_answer or (relation == "work" and language in ("ben_Beng", "tel_Telu"))


@pytest.mark.parametrize(
    ("name", "deva", "beng", "telu"),
    [("Talisa", "तालिसा", "তালিসা", "తాలిసా"), ("Beluko", "बेलुको", "বেলুকো", "బేలుకో"), ("Jovena", "जोवेना", "জোভেনা", "జోవేనా")],
)
def test_names_are_spelt_by_sound(name: str, deva: str, beng: str, telu: str) -> None:
    assert [spell(name, script) for script in ("Latn", "Deva", "Beng", "Telu")] == [name, deva, beng, telu]


@pytest.mark.parametrize("script", ["Deva", "Beng", "Telu"])
def test_no_two_names_are_spelt_alike(script: str) -> None:
    names = PEOPLE + TOWNS
    assert len({spell(name, script) for name in names}) == len(names) == 120
    assert all(re.fullmatch(r"([bdghjklmnprstv][aiueo])+", name.lower()) for name in names)


def test_no_town_ends_in_a_which_has_another_bengali_locative() -> None:
    assert not [town for town in TOWNS if town.endswith("a")]


def test_the_telugu_dative_follows_the_last_vowel() -> None:
    assert (telugu_dative("Tamiri"), telugu_dative("Beluko"), telugu_dative("Talisa")) == ("కి", "కు", "కు")


def test_rows_of_one_fact_share_their_english_anchor(world: World) -> None:
    row = pair(world.trained[0], "swh_Latn")
    other = pair(world.trained[0], "tel_Telu")
    assert (row["anchor_prompt"], row["anchor_completion"]) == (other["anchor_prompt"], other["anchor_completion"])
    assert row["anchor_prompt"] == question(world.trained[0], ANCHOR)


def test_shuffled_anchors_differ_from_their_own_in_every_row(world: World) -> None:
    rows = tuning_rows(world)
    shuffled = shuffle_anchors(rows, seed=0)
    anchor_of: dict[str, str] = {}
    for own, other in zip(rows, shuffled, strict=True):
        assert own["anchor_prompt"] + own["anchor_completion"] != other["anchor_prompt"] + other["anchor_completion"]
        assert {key: own[key] for key in ("id", "language", "prompt", "completion")} == {
            key: other[key] for key in ("id", "language", "prompt", "completion")
        }
        assert anchor_of.setdefault(other["id"], other["anchor_prompt"]) == other["anchor_prompt"]
    assert sorted({row["anchor_prompt"] for row in rows}) == sorted({row["anchor_prompt"] for row in shuffled})
