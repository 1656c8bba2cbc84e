"""The section `evaluation`: benchmarks that are asked along a training, and what keeps them from being asked.

All of it is refused before a model is loaded. The evaluation's own errors name the options of `innerlingua evaluate`;
here they name the keys of the section.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transformers import TrainerCallback

from innerlingua.errors import InnerlinguaError, RecipeError
from innerlingua.evaluation.harness import require_harness
from innerlingua.recipe.schema import EvaluationSection
from innerlingua.training.sharding import is_fsdp, is_zero_3

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

__all__ = ["benchmark_callbacks", "refuse_spread"]

_OPTION = re.compile("--(" + "|".join(key.replace("_", "-") for key in EvaluationSection.model_fields) + r")\b")
_ONLY_AN_OPTION = re.compile(r", or [^,;.]*--skip-missing[^,;.]*")


def refuse_spread(section: EvaluationSection | None, args: SFTConfig) -> None:
    """Raise `RecipeError` when benchmarks are asked for and no process will have the whole model."""
    taker = "DeepSpeed ZeRO-3" if is_zero_3(args) else "FSDP" if is_fsdp(args) else None
    if section is not None and taker is not None:
        raise RecipeError(
            f"evaluation.tasks: {taker} spreads the weights over processes, and benchmarks need them whole: leave the "
            "section evaluation out, and evaluate the checkpoints by `innerlingua evaluate`"
        )


def benchmark_callbacks(section: EvaluationSection | None, tokenizer: PreTrainedTokenizerBase) -> list[TrainerCallback]:
    """What asks the benchmarks of `section`; nothing without one. Raises for names, data or languages that are none."""
    if section is None:
        return []
    if section.chat_template and tokenizer.chat_template is None:
        raise RecipeError(
            "evaluation.chat_template: true, and the tokenizer of model.path has no chat template: leave it out, or "
            "save one with the tokenizer"
        )
    with _told_of_keys():
        require_harness()
        from innerlingua.evaluation.watching import BenchmarkCallback  # imports the harness

        return [
            BenchmarkCallback(
                section.tasks,
                tokenizer,
                languages=section.languages,
                data=section.data,
                limit=section.limit,
                anchor=section.anchor,
                every=section.steps or "epoch",
                num_fewshot=section.num_fewshot,
                chat_template=section.chat_template,
                max_new_tokens=section.max_new_tokens,
                batch_size=str(section.batch_size),
            )
        ]


@contextmanager
def _told_of_keys() -> Iterator[None]:
    """Inside, an error opens with the key of the section whose option it names first, and with `tasks` if none."""
    try:
        yield
    except InnerlinguaError as error:
        words = _ONLY_AN_OPTION.sub("", str(error))
        named = _OPTION.search(words)
        key = _key(named) if named is not None else "evaluation.tasks"
        if named is not None and named.start() == 0:
            words = words[named.end() :].lstrip(": ")
        error.args = (f"{key}: {_OPTION.sub(_key, words)}",)
        raise


def _key(option: re.Match[str]) -> str:
    return f"evaluation.{option[1].replace('-', '_')}"
