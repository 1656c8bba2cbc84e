"""What a launcher must be told about this model, read from the model itself and never from a table of names.

- DeepSpeed ZeRO-3 gathers a module's weights when the module runs, on all ranks together. Where each expert is a module
  of its own, an expert that gets no token on one rank hangs all of them; the block around the experts must then be a
  leaf that is gathered whole (deepspeed.utils.set_z3_leaf_modules). A training here marks it by itself.
- FSDP must wrap decoder layers, never single experts.
- PEFT's `all-linear` takes routers for linear layers and may leave experts out. Which of them it would take is tried on
  the model without weights; the section `peft` names its targets one by one and is not touched by this.
"""

from __future__ import annotations

import warnings

from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from innerlingua.anatomy import find_moe_layers, parameter_parts
from innerlingua.anatomy.leaves import experts_are_fused, leaf_of
from innerlingua.recipe.doctor.report import Sharding
from innerlingua.recipe.model import load_empty_model
from innerlingua.recipe.schema import ModelSection

__all__ = ["sharding"]


def sharding(model: PreTrainedModel, section: ModelSection) -> Sharding:
    """The names of classes to give to DeepSpeed and FSDP, and what `all-linear` would do."""
    layers = find_moe_layers(model)
    leaves = {type(leaf_of(layer)).__name__ for layer in layers}
    first = layers[0]
    stack = model.get_submodule(first.name.partition(f".{first.index}.")[0])
    return Sharding(
        leaf_modules=sorted(leaves),
        fused_experts=experts_are_fused(first),
        wrap=sorted({type(layer).__name__ for layer in stack.children()}),
        no_split=sorted(model._no_split_modules or []),
        all_linear=_all_linear(section),
    )


def _all_linear(section: ModelSection) -> dict[str, int] | None:
    """How many modules of each part PEFT's `all-linear` would wrap; None where PEFT refuses the model."""
    empty = load_empty_model(section)
    parts = parameter_parts(empty)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(empty, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
    except (ValueError, TypeError, RuntimeError, NotImplementedError):
        return None
    counts: dict[str, int] = {}
    for path, module in adapted.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        place = path.removeprefix("base_model.model.").replace(".base_layer", "")
        inside = {part for name, part in parts.items() if name.startswith(f"{place}.")}
        for part in inside:
            counts[part] = counts.get(part, 0) + 1
    return dict(sorted(counts.items()))
