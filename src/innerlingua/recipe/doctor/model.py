"""The model in numbers: its MoE layers, what computes attention and experts, its parameters by part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from innerlingua.anatomy import find_moe_layers, fixed_routers, parameter_parts
from innerlingua.anatomy.parts import PARTS
from innerlingua.recipe.doctor.report import Model, Part
from innerlingua.recipe.schema import Recipe

__all__ = ["PART_NAMES", "describe", "part_names", "parts_table"]

_ADAPTERS = "adapters on "

PART_NAMES = (*PARTS, *(f"{_ADAPTERS}{part}" for part in PARTS))
"""The parts of a model, and the adapters that PEFT put on them, in the order in which they are shown."""


def describe(model: PreTrainedModel, recipe: Recipe) -> Model:
    """What `model`, as `recipe` loaded it, is made of. Raises `ModelError` when it has no MoE layer."""
    layers = find_moe_layers(model)
    config = model.config.get_text_config()
    aligned = recipe.alignment.layers if recipe.alignment is not None else None
    return Model(
        path=recipe.model.path,
        architecture=type(model).__name__,
        model_type=config.model_type,
        dtype=_word(model.dtype),
        device=str(model.device),
        decoder_layers=config.num_hidden_layers,
        moe_layers=[layer.index for layer in layers],
        experts=layers[0].num_experts,
        top_k=layers[0].top_k,
        score=layers[0].score,
        aligned_score=recipe.alignment.score if recipe.alignment is not None else None,
        aligned=list(aligned) if isinstance(aligned, list) else None,
        fixed_routers=fixed_routers(model),
        attention_backend=str(config._attn_implementation),
        experts_backend=str(config._experts_implementation),
        context=config.to_dict().get("max_position_embeddings"),
        vocabulary=next(model.get_input_embeddings().parameters()).shape[0],
        tied=bool(config.tie_word_embeddings),
    )


def part_names(model: nn.Module) -> dict[str, str]:
    """The part of every parameter by its name; adapters are told apart from the weights that they sit on."""
    return {name: f"{_ADAPTERS}{part}" if ".lora_" in name else part for name, part in parameter_parts(model).items()}


def parts_table(model: nn.Module) -> list[Part]:
    """The parameters of `model` by part, in the order of `PARTS`, weights before adapters. Each is counted once."""
    names = part_names(model)
    found: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault(names[name], []).append((name, parameter))
    return [_part(part, found[part]) for part in PART_NAMES if part in found]


def _part(part: str, members: list[tuple[str, nn.Parameter]]) -> Part:
    trained = [(name, parameter) for name, parameter in members if parameter.requires_grad]
    parameters = [parameter for _, parameter in members]
    return Part(
        part=part.removeprefix(_ADAPTERS),
        kind="adapters" if part.startswith(_ADAPTERS) else "weights",
        tensors=len(members),
        parameters=_count(parameters),
        trainable=_count(parameter for _, parameter in trained),
        dtypes=sorted({_word(parameter.dtype) for parameter in parameters}),
        devices=sorted({str(parameter.device) for parameter in parameters}),
        sample=(trained or members)[0][0],
    )


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _word(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
