"""Which benchmarks lm-evaluation-harness has, under which names, in which languages. Imports nothing of it.

The harness names languages by two letters or by FLORES-200 code, each benchmark in its own manner; here all are named
by FLORES-200 code. Its index of all tasks takes a minute to build, so a benchmark names its own folder of task files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from innerlingua.errors import DataError

__all__ = ["HARNESS", "HarnessBenchmark", "require_harness", "tasks_folder"]

_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "am": "amh_Ethi", "ar": "arb_Arab", "bn": "ben_Beng", "cs": "ces_Latn", "de": "deu_Latn", "el": "ell_Grek",
        "en": "eng_Latn", "es": "spa_Latn", "et": "est_Latn", "eu": "eus_Latn", "fa": "pes_Arab", "fil": "tgl_Latn",
        "fr": "fra_Latn", "ha": "hau_Latn", "he": "heb_Hebr", "hi": "hin_Deva", "ht": "hat_Latn", "id": "ind_Latn",
        "ig": "ibo_Latn", "it": "ita_Latn", "ja": "jpn_Jpan", "ko": "kor_Hang", "ky": "kir_Cyrl", "lt": "lit_Latn",
        "mg": "plt_Latn", "ms": "zsm_Latn", "my": "mya_Mymr", "ne": "npi_Deva", "nl": "nld_Latn", "ny": "nya_Latn",
        "pl": "pol_Latn", "pt": "por_Latn", "qu": "quy_Latn", "ro": "ron_Latn", "ru": "rus_Cyrl", "si": "sin_Sinh",
        "sn": "sna_Latn", "so": "som_Latn", "sr": "srp_Cyrl", "sv": "swe_Latn", "sw": "swh_Latn", "ta": "tam_Taml",
        "te": "tel_Telu", "th": "tha_Thai", "tr": "tur_Latn", "uk": "ukr_Cyrl", "vi": "vie_Latn", "yo": "yor_Latn",
        "zh": "zho_Hans",
    }
)  # fmt: skip

HarnessKind = Literal["choice", "number", "extract"]


@dataclass(frozen=True)
class HarnessBenchmark:
    """One benchmark of the harness. `folder` and `task` hold `{}` where the harness has its code of the language.

    `codes` lists the harness's codes, separated by spaces; None means FLORES-200 codes, one per task file.
    """

    name: str
    folder: str
    task: str
    kind: HarnessKind
    choices: int | None
    codes: str | None

    @property
    def languages(self) -> list[str]:
        """The languages that the harness has it in."""
        if self.codes is not None:
            return [_CODES[code] for code in self.codes.split()]
        prefix = self.task.format("")
        return sorted(path.stem.removeprefix(prefix) for path in (tasks_folder() / self.folder).glob(f"{prefix}*.yaml"))

    def code(self, language: str) -> str | None:
        """The harness's code of `language`; None when it has the benchmark not in this language."""
        if self.codes is None:
            return language if (tasks_folder() / self.folder / f"{self.task.format(language)}.yaml").is_file() else None
        return next((code for code in self.codes.split() if _CODES[code] == language), None)

    @property
    def chance(self) -> float | None:
        """The accuracy of a guess."""
        return None if self.choices is None else 1 / self.choices


_FULL: Final = (
    "am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt mg ms ne nl ny pl pt ro ru si sn so sr sv sw te "
    "tr uk vi yo zh"
)
_MGSM: Final = "bn de en es fr ja ru sw te th zh"

HARNESS: Final[Mapping[str, HarnessBenchmark]] = MappingProxyType(
    {
        benchmark.name: benchmark
        for benchmark in (
            HarnessBenchmark("belebele", "belebele", "belebele_{}", "choice", 4, None),
            HarnessBenchmark("global_mmlu", "global_mmlu/full/{}", "global_mmlu_full_{}", "choice", 4, _FULL),
            HarnessBenchmark(
                "global_mmlu_lite", "global_mmlu/default/{}", "global_mmlu_{}", "choice", 4,
                "ar bn de en es fr hi id it ja ko pt sw yo zh",
            ),
            HarnessBenchmark("mgsm", "mgsm/direct", "mgsm_direct_{}", "number", None, _MGSM),
            HarnessBenchmark("mgsm_cot", "mgsm/native_cot", "mgsm_native_cot_{}", "number", None, _MGSM),
            HarnessBenchmark("xcopa", "xcopa", "xcopa_{}", "choice", 2, "et ht id it qu sw ta th tr vi zh"),
            HarnessBenchmark("xquad", "xquad", "xquad_{}", "extract", None, "ar de el en es hi ro ru th tr vi zh"),
            HarnessBenchmark(
                "xstorycloze", "xstorycloze", "xstorycloze_{}", "choice", 2, "ar en es eu hi id my ru sw te zh"
            ),
        )
    }
)  # fmt: skip
"""Our name -> benchmark of the harness."""


def require_harness() -> None:
    """Raise `DataError` when lm-evaluation-harness is not installed."""
    if find_spec("lm_eval") is None:
        raise DataError(
            "benchmarks run through lm-evaluation-harness, which is not installed; install it with: "
            "pip install 'innerlingua[evaluate]'"
        )


def tasks_folder() -> Path:
    """The folder of the harness's task files."""
    require_harness()
    spec = find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "tasks"
