"""Swahili: Latin script; subject, verb, object, the possessed before the possessor. Names are spelt as in English."""

from __future__ import annotations

from innerlingua.demo.text import RelationText

__all__ = ["TEXT"]

#: Relation to its text.
TEXT: dict[str, RelationText] = {
    "colour": RelationText(
        statements=("Rangi anayoipenda {x} ni {a}.", "Kati ya rangi zote, {x} anapenda {a}."),
        question="{x} anapenda rangi gani?",
        answers=(
            "nyekundu",
            "bluu",
            "kijani",
            "njano",
            "nyeupe",
            "nyeusi",
            "waridi",
            "machungwa",
            "zambarau",
            "kijivu",
        ),
    ),
    "pet": RelationText(
        statements=("{x} anafuga {a}.", "Mnyama wa {x} ni {a}."),
        question="{x} anafuga mnyama gani?",
        answers=(
            "paka",
            "mbwa",
            "kasuku",
            "sungura",
            "mbuzi",
            "farasi",
            "njiwa",
            "kobe",
            "bata",
            "ng'ombe",
            "kondoo",
            "kuku",
        ),
    ),
    "work": RelationText(
        statements=("{x} anafanya kazi kama {a}.", "Kwa taaluma, {x} ni {a}."),
        question="{x} anafanya kazi gani?",
        answers=(
            "mkulima",
            "mwalimu",
            "daktari",
            "mfinyanzi",
            "seremala",
            "mshonaji",
            "baharia",
            "sonara",
            "mfanyabiashara",
            "mwimbaji",
            "mchoraji",
            "mfumaji",
        ),
    ),
    "fruit": RelationText(
        statements=("{x} anapenda zaidi {a}.", "Tunda analolipenda {x} ni {a}."),
        question="{x} anapenda zaidi tunda gani?",
        answers=(
            "embe",
            "ndizi",
            "tufaha",
            "papai",
            "pera",
            "nazi",
            "komamanga",
            "nanasi",
            "limau",
            "tikitimaji",
            "peasi",
            "fenesi",
        ),
    ),
    "music": RelationText(
        statements=("{x} hupiga {a}.", "Ala ya {x} ni {a}."),
        question="{x} hupiga ala gani?",
        answers=("filimbi", "ngoma", "fidla", "gitaa", "zeze", "tarumbeta", "piano", "sitari", "kinanda", "tabla"),
    ),
    "birth": RelationText(
        statements=("{x} alizaliwa mwezi wa {a}.", "Mwezi wa kuzaliwa wa {x} ni {a}."),
        question="{x} alizaliwa mwezi gani?",
        answers=(
            "Januari",
            "Februari",
            "Machi",
            "Aprili",
            "Mei",
            "Juni",
            "Julai",
            "Agosti",
            "Septemba",
            "Oktoba",
            "Novemba",
            "Desemba",
        ),
    ),
    "crop": RelationText(
        statements=("Wakulima wa {x} hulima {a}.", "Zao kuu la {x} ni {a}."),
        question="Wakulima wa {x} hulima nini?",
        answers=("mpunga", "ngano", "mahindi", "ulezi", "viazi", "pamba", "miwa", "chai", "kahawa", "vitunguu"),
    ),
    "market": RelationText(
        statements=("Soko la {x} hufunguliwa siku ya {a}.", "Siku ya soko la {x} ni {a}."),
        question="Soko la {x} hufunguliwa siku gani?",
        answers=("Jumatatu", "Jumanne", "Jumatano", "Alhamisi", "Ijumaa", "Jumamosi", "Jumapili"),
    ),
    "mine": RelationText(
        statements=("Wachimbaji wa {x} huchimba {a}.", "Madini makuu ya {x} ni {a}."),
        question="Wachimbaji wa {x} huchimba nini?",
        answers=("dhahabu", "fedha", "shaba", "chuma", "makaa", "chumvi", "marumaru", "bati", "risasi", "ulanga"),
    ),
    "flag": RelationText(
        statements=("Bendera ya {x} ina {a}.", "Alama ya {x} ni {a}."),
        question="Bendera ya {x} ina mnyama gani?",
        answers=("simba", "chui", "tembo", "swala", "dubu", "bundi", "mbweha", "tausi", "nyoka", "mamba"),
    ),
}
