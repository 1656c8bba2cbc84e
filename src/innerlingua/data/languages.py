"""Languages by FLORES-200 code: ISO 639-3 language, underscore, ISO 15924 script, such as `swh_Latn`.

The codes are those of the FLORES-200 benchmark (NLLB Team, 2022, arXiv 2207.04672); the names are English. One table
for the whole project; languages outside it are added by the user as `{code: name}` and never by guessing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from innerlingua.errors import DataError

__all__ = ["ENGLISH", "LANGUAGES", "SHORT_CODES", "check_language", "known_languages"]

ENGLISH: Final = "eng_Latn"
"""The anchor language unless a row says otherwise."""

LANGUAGES: Final[dict[str, str]] = {
    "ace_Arab": "Acehnese (Arabic script)",
    "ace_Latn": "Acehnese (Latin script)",
    "acm_Arab": "Mesopotamian Arabic",
    "acq_Arab": "Ta'izzi-Adeni Arabic",
    "aeb_Arab": "Tunisian Arabic",
    "afr_Latn": "Afrikaans",
    "ajp_Arab": "South Levantine Arabic",
    "aka_Latn": "Akan",
    "als_Latn": "Tosk Albanian",
    "amh_Ethi": "Amharic",
    "apc_Arab": "North Levantine Arabic",
    "arb_Arab": "Modern Standard Arabic",
    "arb_Latn": "Modern Standard Arabic (Romanised)",
    "ars_Arab": "Najdi Arabic",
    "ary_Arab": "Moroccan Arabic",
    "arz_Arab": "Egyptian Arabic",
    "asm_Beng": "Assamese",
    "ast_Latn": "Asturian",
    "awa_Deva": "Awadhi",
    "ayr_Latn": "Central Aymara",
    "azb_Arab": "South Azerbaijani",
    "azj_Latn": "North Azerbaijani",
    "bak_Cyrl": "Bashkir",
    "bam_Latn": "Bambara",
    "ban_Latn": "Balinese",
    "bel_Cyrl": "Belarusian",
    "bem_Latn": "Bemba",
    "ben_Beng": "Bengali",
    "bho_Deva": "Bhojpuri",
    "bjn_Arab": "Banjar (Arabic script)",
    "bjn_Latn": "Banjar (Latin script)",
    "bod_Tibt": "Standard Tibetan",
    "bos_Latn": "Bosnian",
    "bug_Latn": "Buginese",
    "bul_Cyrl": "Bulgarian",
    "cat_Latn": "Catalan",
    "ceb_Latn": "Cebuano",
    "ces_Latn": "Czech",
    "cjk_Latn": "Chokwe",
    "ckb_Arab": "Central Kurdish",
    "crh_Latn": "Crimean Tatar",
    "cym_Latn": "Welsh",
    "dan_Latn": "Danish",
    "deu_Latn": "German",
    "dik_Latn": "Southwestern Dinka",
    "dyu_Latn": "Dyula",
    "dzo_Tibt": "Dzongkha",
    "ell_Grek": "Greek",
    "eng_Latn": "English",
    "epo_Latn": "Esperanto",
    "est_Latn": "Estonian",
    "eus_Latn": "Basque",
    "ewe_Latn": "Ewe",
    "fao_Latn": "Faroese",
    "fij_Latn": "Fijian",
    "fin_Latn": "Finnish",
    "fon_Latn": "Fon",
    "fra_Latn": "French",
    "fur_Latn": "Friulian",
    "fuv_Latn": "Nigerian Fulfulde",
    "gaz_Latn": "West Central Oromo",
    "gla_Latn": "Scottish Gaelic",
    "gle_Latn": "Irish",
    "glg_Latn": "Galician",
    "grn_Latn": "Guarani",
    "guj_Gujr": "Gujarati",
    "hat_Latn": "Haitian Creole",
    "hau_Latn": "Hausa",
    "heb_Hebr": "Hebrew",
    "hin_Deva": "Hindi",
    "hne_Deva": "Chhattisgarhi",
    "hrv_Latn": "Croatian",
    "hun_Latn": "Hungarian",
    "hye_Armn": "Armenian",
    "ibo_Latn": "Igbo",
    "ilo_Latn": "Ilocano",
    "ind_Latn": "Indonesian",
    "isl_Latn": "Icelandic",
    "ita_Latn": "Italian",
    "jav_Latn": "Javanese",
    "jpn_Jpan": "Japanese",
    "kab_Latn": "Kabyle",
    "kac_Latn": "Jingpho",
    "kam_Latn": "Kamba",
    "kan_Knda": "Kannada",
    "kas_Arab": "Kashmiri (Arabic script)",
    "kas_Deva": "Kashmiri (Devanagari script)",
    "kat_Geor": "Georgian",
    "kaz_Cyrl": "Kazakh",
    "kbp_Latn": "Kabiye",
    "kea_Latn": "Kabuverdianu",
    "khk_Cyrl": "Halh Mongolian",
    "khm_Khmr": "Khmer",
    "kik_Latn": "Kikuyu",
    "kin_Latn": "Kinyarwanda",
    "kir_Cyrl": "Kyrgyz",
    "kmb_Latn": "Kimbundu",
    "kmr_Latn": "Northern Kurdish",
    "knc_Arab": "Central Kanuri (Arabic script)",
    "knc_Latn": "Central Kanuri (Latin script)",
    "kon_Latn": "Kikongo",
    "kor_Hang": "Korean",
    "lao_Laoo": "Lao",
    "lij_Latn": "Ligurian",
    "lim_Latn": "Limburgish",
    "lin_Latn": "Lingala",
    "lit_Latn": "Lithuanian",
    "lmo_Latn": "Lombard",
    "ltg_Latn": "Latgalian",
    "ltz_Latn": "Luxembourgish",
    "lua_Latn": "Luba-Kasai",
    "lug_Latn": "Ganda",
    "luo_Latn": "Luo",
    "lus_Latn": "Mizo",
    "lvs_Latn": "Standard Latvian",
    "mag_Deva": "Magahi",
    "mai_Deva": "Maithili",
    "mal_Mlym": "Malayalam",
    "mar_Deva": "Marathi",
    "min_Arab": "Minangkabau (Arabic script)",
    "min_Latn": "Minangkabau (Latin script)",
    "mkd_Cyrl": "Macedonian",
    "mlt_Latn": "Maltese",
    "mni_Beng": "Meitei (Bengali script)",
    "mos_Latn": "Mossi",
    "mri_Latn": "Maori",
    "mya_Mymr": "Burmese",
    "nld_Latn": "Dutch",
    "nno_Latn": "Norwegian Nynorsk",
    "nob_Latn": "Norwegian Bokmål",
    "npi_Deva": "Nepali",
    "nso_Latn": "Northern Sotho",
    "nus_Latn": "Nuer",
    "nya_Latn": "Nyanja",
    "oci_Latn": "Occitan",
    "ory_Orya": "Odia",
    "pag_Latn": "Pangasinan",
    "pan_Guru": "Eastern Panjabi",
    "pap_Latn": "Papiamento",
    "pbt_Arab": "Southern Pashto",
    "pes_Arab": "Western Persian",
    "plt_Latn": "Plateau Malagasy",
    "pol_Latn": "Polish",
    "por_Latn": "Portuguese",
    "prs_Arab": "Dari",
    "quy_Latn": "Ayacucho Quechua",
    "ron_Latn": "Romanian",
    "run_Latn": "Rundi",
    "rus_Cyrl": "Russian",
    "sag_Latn": "Sango",
    "san_Deva": "Sanskrit",
    "sat_Olck": "Santali",
    "scn_Latn": "Sicilian",
    "shn_Mymr": "Shan",
    "sin_Sinh": "Sinhala",
    "slk_Latn": "Slovak",
    "slv_Latn": "Slovenian",
    "smo_Latn": "Samoan",
    "sna_Latn": "Shona",
    "snd_Arab": "Sindhi",
    "som_Latn": "Somali",
    "sot_Latn": "Southern Sotho",
    "spa_Latn": "Spanish",
    "srd_Latn": "Sardinian",
    "srp_Cyrl": "Serbian",
    "ssw_Latn": "Swati",
    "sun_Latn": "Sundanese",
    "swe_Latn": "Swedish",
    "swh_Latn": "Swahili",
    "szl_Latn": "Silesian",
    "tam_Taml": "Tamil",
    "taq_Latn": "Tamasheq (Latin script)",
    "taq_Tfng": "Tamasheq (Tifinagh script)",
    "tat_Cyrl": "Tatar",
    "tel_Telu": "Telugu",
    "tgk_Cyrl": "Tajik",
    "tgl_Latn": "Tagalog",
    "tha_Thai": "Thai",
    "tir_Ethi": "Tigrinya",
    "tpi_Latn": "Tok Pisin",
    "tsn_Latn": "Tswana",
    "tso_Latn": "Tsonga",
    "tuk_Latn": "Turkmen",
    "tum_Latn": "Tumbuka",
    "tur_Latn": "Turkish",
    "twi_Latn": "Twi",
    "tzm_Tfng": "Central Atlas Tamazight",
    "uig_Arab": "Uyghur",
    "ukr_Cyrl": "Ukrainian",
    "umb_Latn": "Umbundu",
    "urd_Arab": "Urdu",
    "uzn_Latn": "Northern Uzbek",
    "vec_Latn": "Venetian",
    "vie_Latn": "Vietnamese",
    "war_Latn": "Waray",
    "wol_Latn": "Wolof",
    "xho_Latn": "Xhosa",
    "ydd_Hebr": "Eastern Yiddish",
    "yor_Latn": "Yoruba",
    "yue_Hant": "Yue Chinese",
    "zho_Hans": "Chinese (simplified)",
    "zho_Hant": "Chinese (traditional)",
    "zsm_Latn": "Standard Malay",
    "zul_Latn": "Zulu",
}
"""FLORES-200 code -> English name, all 204 of them."""

SHORT_CODES: Final[dict[str, str]] = {
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
"""The language of a FLORES-200 code -> its ISO 639-1 code, or the code that language identifiers know it by."""


_MACRO: Final = {
    "ara": "ar", "aze": "az", "ful": "fuv", "fas": "fa", "fil": "tl", "kur": "ku", "lav": "lv", "mlg": "mg",
    "mon": "mn", "msa": "ms", "nep": "ne", "nor": "no", "ori": "or", "orm": "om", "pus": "ps", "que": "qu",
    "sqi": "sq", "swa": "sw", "uzb": "uz",
}  # fmt: skip
"""ISO 639-3 macrolanguages, which people write where FLORES-200 names one member."""


def known_languages(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """`LANGUAGES` with the user's own `{code: name}` added.

    Raises:
        DataError: a code or a name of `extra` is no text or is blank.
    """
    for code, name in (extra or {}).items():
        if not isinstance(code, str) or not isinstance(name, str) or not code.strip() or not name.strip():
            raise DataError(
                f"languages: {code!r}: {name!r} does not name a language. Write a code and an English name, both as "
                "text, such as {hlt_Latn: Matu Chin}."
            )
    return {**LANGUAGES, **(extra or {})}


def check_language(code: str, where: str, *, known: Mapping[str, str] = LANGUAGES) -> None:
    """Refuse a language code that is not in `known`, with the likeliest codes.

    Args:
        code: what the user wrote.
        where: what the message begins with, such as a file and line.
        known: code -> English name.

    Raises:
        DataError: `code` is unknown; the message names the codes that it may have meant.
    """
    if code not in known:
        raise DataError(
            f"{where}: unknown language {code!r}{_hint(code, known)} Languages are FLORES-200 codes; add others by "
            "--language-name CODE=NAME, or in a recipe by data.languages: {code: name}."
        )


def _hint(code: str, known: Mapping[str, str]) -> str:
    """The end of a sentence: the codes whose ISO 639 code, beginning or English name this is; else the nearest."""
    word = code.strip().casefold().replace("-", "_")
    language, _, rest = word.partition("_")
    short = _MACRO.get(language, language)
    own = {known_code: known_code.partition("_")[0] for known_code in known}
    alike = [c for c in known if SHORT_CODES.get(own[c]) == short]
    alike.sort(key=lambda c: (len(rest) == 4 and not c.casefold().endswith(rest), not c.startswith(short)))
    if not alike or len(rest) == 4:  # with a script, the language's own code and script come first
        alike = [c for c in known if word and c.casefold().startswith(word)] or alike
    if len(word) > 2:
        alike = [c for c in known if known[c].casefold().startswith(word)] + alike
    if not alike and rest:
        alike = [c for c in known if own[c] == language]
    alike = alike or difflib.get_close_matches(code, known, n=1, cutoff=0.6)
    told = [f"{c} ({known[c]})" for c in dict.fromkeys(alike)][:4]
    return f"; did you mean {' or '.join(told)}?" if told else "; such as swh_Latn (Swahili) or hin_Deva (Hindi)."
