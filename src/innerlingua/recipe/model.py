"""The model, tokenizer and adapters that a recipe asks for. Imports torch and transformers.

Loading is transformers' own (`AutoModelForCausalLM`, or the larger model where the text has none of its own), so that
whatever loads the base loads the result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from innerlingua.anatomy import (
    empty_model,
    find_moe_layers,
    language_model_class,
    lora_targets,
    select_layers,
    set_trainable,
)
from innerlingua.errors import InnerlinguaError, ModelError
from innerlingua.recipe.loading import about
from innerlingua.recipe.schema import AlignmentSection, ModelSection, PeftSection, Recipe
from innerlingua.weights import refuse_unsafe_weights

__all__ = [
    "adapter_config",
    "aligned_layers",
    "chosen_implementations",
    "load_empty_model",
    "load_model",
    "load_tokenizer",
    "mark_parts",
    "trained_parts",
    "with_layers",
]

# Share of the depth that is aligned when nothing better is known; on 48 layers this is the paper's 7-34.
_AUTO = (0.15, 0.72)
# Plain torch, forward and backward, on any device and in any type.
_EVERYWHERE = frozenset({"eager", "sdpa", "batched_mm", "grouped_mm"})
_WHOLE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def load_tokenizer(section: ModelSection) -> PreTrainedTokenizerBase:
    """The tokenizer of `section.path`. Raises `ModelError` when there is none."""
    tokenizer = _load(AutoTokenizer.from_pretrained, section, "tokenizer")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModelError(f"model.path: {section.path} has no tokenizer for text, but a {type(tokenizer).__name__}")
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ModelError(
            f"model.path: {section.path} has no vocabulary: where the files of a tokenizer are missing, transformers "
            f"makes an empty {type(tokenizer).__name__}, to which every text is nothing. Save the tokenizer beside the "
            "model (tokenizer.save_pretrained)"
        )
    return tokenizer


def load_model(section: ModelSection, *, checkpoint: Path | None = None) -> PreTrainedModel:
    """The causal language model of `section.path`, on the CPU unless the launcher says otherwise.

    A resumed run gives its `checkpoint`: where that holds whole weights in the Hugging Face layout, the model is loaded
    from there. The Trainer's own resume reads such files without undoing the split of fused experts on saving, so it
    leaves the experts as they were loaded, and says nothing (https://github.com/huggingface/transformers/issues/48805);
    after this it reads the same values a second time.

    Raises `ModelError` when the path holds no model, when its weights are no safetensors, when it needs code of its own
    that the recipe does not allow, or when an option does not suit it.
    """
    own = section.dtype in (None, "auto")
    options: dict[str, Any] = {"dtype": "auto" if own else getattr(torch, str(section.dtype))}
    options |= _implementations(section)
    if checkpoint is not None and any((checkpoint / name).exists() for name in _WHOLE_WEIGHTS):
        section = section.model_copy(update={"path": str(checkpoint), "revision": None})
    config = _load(AutoConfig.from_pretrained, section, "configuration")
    folder = Path(os.path.expanduser(section.path))
    if folder.is_dir():
        refuse_unsafe_weights(folder, f"model.path: {section.path}")
    _try_implementations(config, section)
    loading = language_model_class(config).from_pretrained
    model, report = _load(loading, section, "model", output_loading_info=True, use_safetensors=True, **options)
    assert isinstance(model, PreTrainedModel)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"model.path: {len(missing)} weights of {section.path} are not in its files (the first is {missing[0]}) "
            "and would start at random: its config.json belongs to another model, or a file is missing. Take the whole "
            "checkpoint"
        )
    return model


def _implementations(section: ModelSection) -> dict[str, str]:
    """The ways to compute that the recipe chooses, by the name of the option."""
    options = ("attn_implementation", "experts_implementation")
    return {option: value for option in options if (value := getattr(section, option)) is not None}


def _try_implementations(config: PreTrainedConfig, section: ModelSection) -> None:
    """Raise `ModelError` for a way to compute that the model, or this machine, does not have; no weight is read."""
    for option, value in _implementations(section).items():
        try:
            with torch.device("meta"):
                language_model_class(config).from_config(
                    config, trust_remote_code=section.trust_remote_code, **{option: value}
                )
        except (ValueError, ImportError) as error:
            words = " ".join(str(error).split())
            raise ModelError(f"model.{option}: {value} cannot be used with {section.path}: {words}") from error


@contextmanager
def chosen_implementations(section: ModelSection, *, begun: Callable[[], bool] = bool) -> Iterator[None]:
    """Around the first passes: where one fails under a way to compute that the recipe chose, the error says so.

    Some are refused no earlier, by the kernel itself (FlexAttention on a CPU, DeepGEMM in float32). What computes
    everywhere is not suspected, nor anything once training has `begun`.
    """
    try:
        yield
    except InnerlinguaError:
        raise
    except Exception as error:  # of a kernel, whatever it raises
        suspected = [f"model.{o}: {v}" for o, v in _implementations(section).items() if v not in _EVERYWHERE]
        if not suspected or begun():
            raise
        words = " ".join(str(error).split())[:400].rstrip(".")
        raise ModelError(
            f"{' with '.join(suspected)} does not compute here: {words}. Leave it out, and transformers chooses"
        ) from error


def load_empty_model(section: ModelSection) -> PreTrainedModel:
    """The same model on the meta device: names, shapes and types of all parameters from the configuration alone."""
    config = _load(AutoConfig.from_pretrained, section, "configuration")
    return empty_model(config, trust_remote_code=section.trust_remote_code)


def _load(load: Callable[..., Any], section: ModelSection, what: str, **options: Any) -> Any:
    path = os.path.expanduser(section.path)
    if not Path(path).exists() and (path.startswith((".", os.sep)) or path.count("/") != 1):
        raise ModelError(f"model.path: there is no folder {section.path}, and it is no name on the Hub (owner/name)")
    if section.revision is not None and Path(path).exists():
        raise ModelError(
            f"model.revision: {section.revision} is a choice among the versions on the Hub, and model.path is the "
            f"folder {section.path}, which has one: leave model.revision out, or name the model as owner/name"
        )
    try:
        return load(path, revision=section.revision, trust_remote_code=section.trust_remote_code, **options)
    except (OSError, ValueError, ImportError, KeyError, SafetensorError, RuntimeError) as error:
        words = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and "ignore_mismatched_sizes" not in words:
            raise
        if isinstance(error, RuntimeError):
            words = "the sizes in its config.json are not those of its weights"
        if "trust_remote_code" in words:
            words = (
                "it comes with Python code of its own, which runs on this machine: read it, then set "
                "model.trust_remote_code: true"
            )
        raise ModelError(f"model.path: the {what} of {section.path} cannot be loaded: {words}") from error


def aligned_layers(section: AlignmentSection, model: PreTrainedModel) -> list[int]:
    """The decoder-layer indices that `alignment.layers` means for `model`, each a MoE layer of it.

    `auto` is the middle 15 % to 72 % of the depth, both ends in. Raises `ModelError` for layers that are no MoE layers.
    """
    available = find_moe_layers(model)
    if section.layers != "auto":
        with about("alignment.layers"):
            return [layer.index for layer in select_layers(available, section.layers)]
    depth = model.config.get_text_config().num_hidden_layers
    first, last = (int(share * depth) for share in _AUTO)
    middle = [layer.index for layer in available if first <= layer.index <= last]
    return middle or [layer.index for layer in available]


def with_layers(section: AlignmentSection, model: PreTrainedModel, say: Callable[[str], None]) -> AlignmentSection:
    """`section` with `layers` as a list of layers of `model`, and `score` as its family has it. Raises `ModelError` as
    `aligned_layers`."""
    layers = aligned_layers(section, model)
    if section.layers == "auto":
        say(f"alignment.layers: auto is {layers}, the middle of the depth")
    score = section.score or select_layers(find_moe_layers(model), layers)[0].score
    return section.model_copy(update={"layers": layers, "score": score})


def trained_parts(model: ModelSection, peft: PeftSection | None) -> tuple[list[str], list[str]]:
    """What a recipe asks to train: (parts trained whole, parts that get adapters)."""
    if peft is None:
        return (["all"] if model.train == "all" else list(model.train)), []
    adapted = [*peft.parts, *(["router"] if peft.router == "lora" else [])]
    return (["router"] if peft.router == "train" else []), adapted


def mark_parts(recipe: Recipe, model: PreTrainedModel) -> LoraConfig | None:
    """Mark as trainable the parts of `model` that `recipe` trains whole; under adapters, their configuration instead.

    Raises `ModelError` for a part that the model does not have.
    """
    if recipe.peft is not None:
        return adapter_config(recipe.peft, model)
    with about("model.train"):
        set_trainable(model, trained_parts(recipe.model, None)[0])
    return None


def adapter_config(section: PeftSection, model: nn.Module) -> LoraConfig:
    """PEFT's configuration of the adapters, each target by its full name, so that nothing else is matched.

    Routers that are trained whole are PEFT's `modules_to_save`: they are stored with the adapter, and plain PEFT puts
    them back. Raises `ModelError` for a part that the model does not have.
    """
    adapted = [*section.parts, *(["router"] if section.router == "lora" else [])]
    with about("peft.parts"):
        modules, parameters = lora_targets(model, adapted)
    routers = [layer.name for layer in find_moe_layers(model)] if section.router == "train" else None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=modules,
        target_parameters=parameters or None,
        modules_to_save=routers,
    )
