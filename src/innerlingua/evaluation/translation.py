"""Translation by chrF++ (Popović 2017, W17-4770) and BLEU (Papineni et al. 2002), computed and signed by sacrebleu.

BLEU needs words. sacrebleu's own tokenizer `13a` splits at spaces and punctuation; Chinese has one of its own there,
and of other scripts without spaces the characters are taken. chrF++ needs no such choice, so it is the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

from innerlingua.data.scripts import UNSPACED, script_of
from innerlingua.errors import DataError

__all__ = ["corpus_scores", "metrics", "require_sacrebleu", "sentence_chrf"]

_BY_CHARACTER: Final = (*UNSPACED, "Jpan")


def require_sacrebleu() -> None:
    """Raise `DataError` when sacrebleu is not installed."""
    if find_spec("sacrebleu") is None:
        raise DataError(
            "translation is scored by sacrebleu, which is not installed; install it with: "
            "pip install 'innerlingua[evaluate]'"
        )


def sentence_chrf(hypothesis: str, reference: str) -> float:
    """chrF++ of one sentence, 0 to 100."""
    return float(_chrf().sentence_score(hypothesis, [reference]).score)


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str], language: str) -> dict[str, Any]:
    """`{"chrf++": ..., "bleu": ..., "signatures": {...}}` of a whole benchmark translated into `language`; 0 to 100."""
    chrf, bleu = metrics(language)
    scores = {
        "chrf++": float(chrf.corpus_score(list(hypotheses), [list(references)]).score),
        "bleu": float(bleu.corpus_score(list(hypotheses), [list(references)]).score),
    }
    return {**scores, "signatures": {"chrf++": str(chrf.get_signature()), "bleu": str(bleu.get_signature())}}


def metrics(language: str) -> tuple[Any, Any]:
    """sacrebleu's chrF++ and BLEU as they score translations into `language`."""
    from sacrebleu.metrics import BLEU

    return _chrf(), BLEU(tokenize=_tokenizer(language))


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2)


def _tokenizer(language: str) -> str:
    if language in ("zho_Hans", "zho_Hant", "yue_Hant"):
        return "zh"
    return "char" if script_of(language) in _BY_CHARACTER else "13a"
