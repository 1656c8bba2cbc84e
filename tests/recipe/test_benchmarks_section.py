"""The section `evaluation` of a recipe: what is refused before anything is loaded, and by which key."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig

from innerlingua.errors import InnerlinguaError, RecipeError
from innerlingua.recipe import EvaluationSection
from innerlingua.recipe.benchmarks import benchmark_callbacks, refuse_spread

SECTION = EvaluationSection(tasks=["belebele"])


def spread(*, stage: int | None = None, fsdp: bool = False, device: str = "cuda") -> SimpleNamespace:
    """What of a training's arguments says whether weights are taken apart; it cannot be had on a CPU."""
    plugin = None if stage is None else SimpleNamespace(zero_stage=stage)
    return SimpleNamespace(deepspeed_plugin=plugin, fsdp=fsdp, device=torch.device(device))


def test_weights_that_will_be_spread_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    for args, taker in ((spread(stage=3), "DeepSpeed ZeRO-3"), (spread(fsdp=True), "FSDP")):
        with pytest.raises(
            RecipeError, match=rf"^evaluation\.tasks: {taker} spreads.*leave the section evaluation out"
        ):
            refuse_spread(SECTION, args)
        refuse_spread(None, args)
    for args in (spread(), spread(stage=2), spread(fsdp=True, device="cpu")):
        refuse_spread(SECTION, args)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch` does
    with pytest.raises(RecipeError, match="FSDP spreads"):
        refuse_spread(SECTION, spread())


def test_a_training_on_cpus_has_the_whole_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # which accelerate does not hear there
    refuse_spread(SECTION, SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False))


def test_a_template_that_is_not_there_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(RecipeError, match=r"^evaluation\.chat_template: true, and the tokenizer of model\.path has no"):
        benchmark_callbacks(SECTION.model_copy(update={"chat_template": True}), tokenizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["absent"]}, "evaluation.tasks: absent"),
        ({"data": "nowhere"}, "evaluation.data: nowhere: no such folder"),
        ({"anchor": "xyz_Latn", "languages": ["swh_Latn"]}, "evaluation.anchor: unknown language 'xyz_Latn'"),
        ({"languages": ["xyz_Latn"]}, "evaluation.languages: unknown language 'xyz_Latn'"),
        ({}, "evaluation.languages: say in which languages belebele is asked"),
    ],
)
def test_an_error_opens_with_its_key(
    change: dict[str, object], message: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.delenv("INNERLINGUA_DATA", raising=False)
    with pytest.raises(InnerlinguaError) as refused:
        benchmark_callbacks(SECTION.model_copy(update=change), tokenizer)
    assert str(refused.value).startswith(message)
    assert "--" not in str(refused.value).replace("--language-name", "")
