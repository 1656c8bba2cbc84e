from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from innerlingua.data import PACK_VARIABLE
from innerlingua.data.identify import load_identifier
from innerlingua.data.survival import Limits, faults, numbers, read_limits
from innerlingua.errors import DataError


def check(source: str, translation: str, language: str = "swh_Latn", **options: object) -> list[str]:
    return faults(source, translation, source_language="eng_Latn", language=language, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,234 and 1.5", ["1234", "1.5"]),
        ("1.234,50", ["1234.5"]),
        ("12,34,567", ["1234567"]),
        ("1 234", ["1234"]),
        ("१,२३४.५", ["1234.5"]),
        ("٣٤", ["34"]),
        ("3,14", ["3.14"]),
        ("0.125", ["0.125"]),
        ("007", ["7"]),
        ("2.50", ["2.5"]),
    ],
)
def test_numbers_are_read_by_value(text: str, values: list[str]) -> None:
    assert sorted(numbers(text).elements()) == sorted(values)


GOOD = [
    (
        "Asha has 3 mangoes and buys 12 more. How many?",
        "Asha ana maembe 3 na ananunua mengine 12. Ana mangapi?",
        "swh_Latn",
    ),
    ("There are 1,200 people in 3 towns here.", "यहाँ ३ शहरों में १,२०० लोग हैं।", "hin_Deva"),
    ("She ate three of the 5 cakes on the table.", "Alikula keki 3 kati ya 5 zilizo mezani.", "swh_Latn"),
    (r"So 2 + 2 = 4, the answer is \boxed{4}.", r"Basi 2 + 2 = 4, jibu ni \boxed{4}.", "swh_Latn"),
    (r"The half is $\frac{1}{2}$ of the whole.", r"Nusu ni $\frac{1}{2}$ ya yote kabisa.", "swh_Latn"),
    ("Call `f(x)` with {name} at https://a.org now.", "Ita `f(x)` na {name} kwenye https://a.org sasa.", "swh_Latn"),
    ("Which?\nA. The sun\nB. The moon", "Ipi?\nA. Jua\nB. Mwezi", "swh_Latn"),
    ("It costs $5 and then $6 more in the shop.", "Inagharimu $5 na kisha $6 zaidi dukani.", "swh_Latn"),
]


@pytest.mark.parametrize(("source", "translation", "language"), GOOD)
def test_what_survives_passes(source: str, translation: str, language: str) -> None:
    assert check(source, translation, language) == []


BAD = [
    (
        "The river is wide and the boat is small.",
        "Tafsiri: The river is wide and the boat is small. Mto ni mpana sana na mashua yetu ni ndogo mno kwa kweli.",
        "echo: the whole source",
    ),
    ("He has 3 goats and 12 cows.", "Ana mbuzi 3 na ng'ombe 13.", "number lost: 12"),
    ("He has 3 goats and some cows.", "Ana mbuzi 3 na ng'ombe 7.", "number new: 7"),
    (r"The answer is \boxed{4}.", "Jibu ni 4.", "final answer: 0 boxes"),
    (r"The answer is \boxed{4}.", r"Jibu ni \boxed{5}.", "final answer lost: 4"),
    (r"It is $\frac{1}{2}$ here.", r"Hapa ni $\sqrt{1}{2}$ tu.", r"LaTeX lost: \frac"),
    (r"Take $x^{2} + y$ now.", r"Chukua $x^{2} - y$ sasa.", "formula lost"),
    ("Use `sorted(rows)` here.", "Tumia `panga(safu)` hapa.", "code lost: `sorted(rows)`"),
    ("Dear {name}, welcome home.", "Mpendwa {jina}, karibu nyumbani.", "placeholder lost: {name}"),
    ("Compute <<2*3=6>> 6 apples.", "Kokotoa matofaa 6.", "placeholder lost"),
    ("Which?\nA. Sun\nB. Moon", "Ipi?\nA. Jua\nC. Mwezi", "choice letter lost: B"),
    ("The river is wide and the boat is small.", "The river is wide and the boat is small.", "untranslated: 100%"),
    ("The river is wide and the boat is small today.", "Mto.", "length: "),
    ("The river is wide and the boat is small.", "  ", "empty"),
]


@pytest.mark.parametrize(("source", "translation", "fault"), BAD)
def test_what_is_lost_is_named(source: str, translation: str, fault: str) -> None:
    found = check(source, translation)
    assert any(told.startswith(fault) for told in found), found


def test_the_wrong_script_is_named() -> None:
    assert check("The river is wide.", "Mto ni mpana sana.", "hin_Deva")[0].startswith("script: 0%")


def test_names_in_another_script_are_no_fault() -> None:
    assert check("Anna lives in Paris and reads.", "Anna पेरिस में रहती है और पढ़ती है।", "hin_Deva") == []


def test_the_wrong_language_is_named_where_an_identifier_is_installed() -> None:
    identifier = load_identifier()
    if identifier is None:
        pytest.skip("the extra `data` is not installed")
    source = "The old boat crosses the wide river every morning before the market opens."
    german = "Das alte Boot überquert jeden Morgen den breiten Fluss, bevor der Markt öffnet."
    swahili = "Mashua ya zamani huvuka mto mpana kila asubuhi kabla ya soko kufunguliwa."
    assert check(source, german, identify=identifier)[0].startswith("language: seems to be de")
    assert check(source, swahili, identify=identifier) == []
    assert identifier.status(swahili, "swh_Latn") == "identified"
    assert identifier.status(swahili, "bem_Latn") == "unknown_language"
    assert identifier.status("mto", "swh_Latn") == "too_short"


def test_length_limits_can_be_set() -> None:
    source = "The river is wide and the boat is small today."
    assert check(source, "Mto mpana leo, mashua ndogo.", limits=read_limits("0.3:2")) == []
    assert check(source, "Mto mpana leo, mashua ndogo.", limits=read_limits("0.9:2"))[0].startswith("length")
    assert read_limits(None) == Limits()
    with pytest.raises(DataError, match="LOW:HIGH"):
        read_limits("2:1")


def test_translations_by_people_pass(tmp_path: Path) -> None:
    """MGSM was translated by people: nearly all of it must pass, or the checks would set good work aside."""
    if PACK_VARIABLE not in os.environ:
        pytest.skip(f"{PACK_VARIABLE} is not set")
    with gzip.open(Path(os.environ[PACK_VARIABLE]) / "mcq" / "mgsm.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line)["question"] for line in stream]
    identifier = load_identifier()
    total, failed = 0, []
    for row in rows:
        for code in ("swh_Latn", "ben_Beng", "tel_Telu", "tha_Thai", "deu_Latn", "zho_Hans"):
            if code in row:
                total += 1
                told = check(row["eng_Latn"], row[code], code, identify=identifier)
                failed += [(code, told)] if told else []
    assert total > 500
    assert len(failed) < 0.15 * total, failed[:20]
