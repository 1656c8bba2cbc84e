"""Names of the demo's people and towns, and how they are written in each script.

The names are invented. Each is a chain of open syllables (a consonant and a vowel), so that one table per script writes
them exactly, and every name ends in a vowel, which keeps the case endings regular. No town ends in `a`, because the
Bengali locative has another form there.
"""

from __future__ import annotations

__all__ = ["PEOPLE", "TOWNS", "spell", "telugu_dative"]

PEOPLE: tuple[str, ...] = tuple(
    """
    Talisa Miruno Kavelo Sedina Bomiro Letano Nuvira Garemi Dosita Pelamo Rikoda Hamilu Jovena Kusami Tirola Venako
    Lomeda Sibaru Mekina Gotalu Nadiro Pavuni Rolima Hesako Jimeta Bareno Duvila Kemoro Selutu Takina Vorame Lidoso
    Musela Gipora Natemi Pudano Revika Hobilo Jaruma Bilone Denaru Kotima Sanelo Tumari Vesigo Labuno Modila Gurese
    Nikavo Posina Ramulo Hidena Jelako Buroma Dagivu Kilone Sotera Temudi Vamigo Lerusa Manobi Gelita Notuka Pimaro
    Rusedo Hanivo Jorela Bikamu Domeni Kaluto Surina Tovemi
    """.split()  # noqa: SIM905
)

TOWNS: tuple[str, ...] = tuple(
    """
    Beluko Tamiri Godavo Sipelu Norogi Karubi Metoli Ludano Pikoru Ravemo Hulino Jadoku Dimoro Vakesi Bosanu Tegilo
    Gamupi Suneko Nivalo Kemuri Mopati Laseku Paboro Rinudi Hetomi Jusavo Deluni Vitaro Badigo Tukemi Gesolu Simavo
    Nabeti Kodulo Murigo Lipeno Porasi Rulavi Hokedi Jetuno Danipo Vesolu Bupami Tinavo Garutu Selopi Nekidu Kivaro
    """.split()  # noqa: SIM905
)

_CONSONANTS = "bdghjklmnprstv"
_VOWELS = "aiueo"
# Per script: the consonants in the order above, then the vowel signs.
_SCRIPTS = {"Deva": ("बदगहजकलमनपरसतव", "ािुेो"), "Beng": ("বদগহজকলমনপরসতভ", "ািুেো"), "Telu": ("బదగహజకలమనపరసతవ", "ాిుేో")}


def spell(name: str, script: str) -> str:
    """`name` in a script, by its ISO 15924 code (`Latn`, `Deva`, `Beng`, `Telu`)."""
    if script == "Latn":
        return name
    consonants, signs = _SCRIPTS[script]
    syllables = zip(name.lower()[::2], name[1::2], strict=True)
    return "".join(consonants[_CONSONANTS.index(c)] + signs[_VOWELS.index(v)] for c, v in syllables)


def telugu_dative(name: str) -> str:
    """The Telugu dative ending: `కి` after a final i, `కు` after the other vowels."""
    return "కి" if name.endswith("i") else "కు"
