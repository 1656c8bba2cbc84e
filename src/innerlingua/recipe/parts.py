"""What `innerlingua parts` shows: a model's parameters by part, from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from innerlingua.anatomy import MoELayer, PartCount, count_parts, find_moe_layers, fixed_routers, set_trainable
from innerlingua.errors import ModelError
from innerlingua.recipe.model import load_empty_model
from innerlingua.recipe.schema import ModelSection

__all__ = ["ModelParts", "read_parts"]


@dataclass(frozen=True)
class ModelParts:
    """The class of a model, its MoE layers, its routers that follow a table (path -> class), its parameters by part."""

    architecture: str
    layers: list[MoELayer]
    fixed_routers: dict[str, str]
    counts: list[PartCount]


def read_parts(section: ModelSection, *, train: Sequence[str] | None = None) -> ModelParts:
    """Read the configuration of `section.path`; with `train`, count as trainable what `model.train` would train.

    Raises `ModelError` for a model that is none, has no MoE layer, or has no part of that name.
    """
    model = load_empty_model(section)
    if train is not None:
        if not train:
            raise ModelError("no part is named to be trained; name at least one, as in router,experts")
        set_trainable(model, train)
    return ModelParts(type(model).__name__, find_moe_layers(model), fixed_routers(model), count_parts(model))
