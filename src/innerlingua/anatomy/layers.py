"""Where a model keeps its MoE layers.

transformers names the router class of each family in the registry of outputs that a model can record
(`_can_record_outputs["router_logits"]`, an `OutputRecorder` with the class and the position of the logits in its
output). The modules of that class are the routers; in families that record none, the module beside the experts. Their
position in the tuple that a model returns says nothing about the decoder layer, since dense layers leave no entry;
the layer's index is therefore read from the module's path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.output_capturing import OutputRecorder

from innerlingua.anatomy.families import Family, family_of
from innerlingua.anatomy.sharding import dimensions
from innerlingua.errors import ModelError

__all__ = ["MoELayer", "find_moe_layers", "logits_position", "on_routing", "reach"]

# Names under which wrappers (PEFT's tuners) keep the module that they wrap: no level of the model's own structure.
_WRAPPED = frozenset({"base_layer"})
# Below a module that is trained whole beside adapters, PEFT keeps the original and a copy per adapter.
_COPIES = frozenset({"original_module", "modules_to_save"})
# What routers are called where transformers does not say which module is one.
_ROUTER_NAMES = ("gate", "router")


@dataclass(frozen=True)
class MoELayer:
    """One MoE layer of a model.

    `index` is the decoder-layer index, 0-based and counting dense layers. `name` is the router's path in the model
    that was searched, without the levels that wrappers add. `num_experts` counts routed experts, those that compute
    nothing (identity, skip) among them, shared ones not. `block` is the module that holds router and experts;
    `experts` the one that holds the routed experts, the block itself where they are spread over several.
    """

    index: int
    name: str
    router: nn.Module = field(repr=False)
    experts: nn.Module = field(repr=False)
    block: nn.Module = field(repr=False)
    decoder_layer: nn.Module = field(repr=False)
    backbone: PreTrainedModel = field(repr=False)
    num_experts: int
    top_k: int
    score: str
    family: Family = field(repr=False)
    logits_at: int | None = field(repr=False)


def on_routing(layer: MoELayer, callback: Callable[[Tensor, Any], None]) -> list[RemovableHandle]:
    """Call `callback(logits, output)` whenever the router of `layer` has run, with its logits and all that it returned.

    The logits are as the router gives them, (tokens, experts) or (batch, tokens, experts), and carry their gradient.
    The handles remove the hooks. Raises `ModelError` when the router runs and no logits came from where the family
    has them.
    """
    if not layer.family.logits:

        def direct(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            callback(output[logits_position(layer, output)] if isinstance(output, tuple) else output, output)

        return [layer.router.register_forward_hook(direct)]

    latest: list[Tensor] = []

    def source(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        latest[:] = [output]

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not latest:
            raise ModelError(
                f"the router {layer.name} ran without its part {layer.family.logits!r}, which gives the logits"
            )
        callback(latest.pop(), output)

    part = reach(layer.family.logits, layer.router)
    return [part.register_forward_hook(source), layer.router.register_forward_hook(after)]


def logits_position(layer: MoELayer, output: tuple[Any, ...]) -> int:
    """Where the logits stand in a router's output: where the family has them, else the first tensor as wide as its
    experts."""
    if layer.logits_at is not None:
        return layer.logits_at
    for position, value in enumerate(output):
        if isinstance(value, Tensor) and value.is_floating_point() and value.shape[-1] == layer.num_experts:
            return position
    raise ModelError(
        f"the router {layer.name} ({type(layer.router).__name__}) returns no logits of its {layer.num_experts} "
        "experts in this version of transformers; a later one may"
    )


def reach(path: str, *owners: nn.Module) -> Any:
    """The attribute at the dotted `path` of the first of `owners` that has it, or None."""
    for owner in owners:
        value: Any = owner
        for level in path.split("."):
            if not hasattr(value, level):
                break
            value = getattr(value, level)
        else:
            return value
    return None


def find_moe_layers(model: nn.Module) -> list[MoELayer]:
    """All MoE layers of `model`, in order of depth.

    `model` may be wrapped (PEFT, DDP, FSDP2, DeepSpeed). Raises `ModelError` when it has none, when a router's
    decoder layer or experts cannot be told, when two routers claim one decoder layer, and for a family that cannot be
    aligned, with the reason.
    """
    whole = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    if whole is not None and whole.config.is_encoder_decoder:
        raise ModelError(
            f"{type(whole).__name__} is an encoder-decoder: its encoder and its decoder route different texts, so a "
            "text has no one routing that could be captured or aligned. Take a decoder-only Mixture-of-Experts model "
            "(Qwen3-MoE, PhiMoE, Mixtral, ...)"
        )
    layers = sorted(_routers(model), key=lambda layer: layer.index)
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no MoE layer: no module of it is recorded as a router by transformers "
            "or stands beside experts. "
            "Routing alignment needs a sparse Mixture-of-Experts model (Qwen3-MoE, PhiMoE, Mixtral, ...)"
        )
    for before, after in pairwise(layers):
        if before.index == after.index:
            raise ModelError(
                f"decoder layer {after.index} of {type(model).__name__} has two routers ({before.name}, {after.name}); "
                "which one to align cannot be told"
            )
    return layers


def _routers(model: nn.Module) -> Iterator[MoELayer]:
    seen: set[int] = set()
    submodels = [(path, module) for path, module in model.named_modules() if isinstance(module, PreTrainedModel)]
    # Innermost first: the backbone that holds the decoder layers, not the head or the wrapper around it.
    for search in (_recorded, _unrecorded):
        for prefix, submodel in reversed(submodels):
            if search is _unrecorded and (seen or submodel.config is not submodels[0][1].config.get_text_config()):
                continue
            family = family_of(submodel.config.get_text_config().model_type)
            for found, inner, logits_at in search(submodel, family):
                # The wrapper runs whichever copy is active, so it is the router.
                path = _outermost(submodel, ".".join(takewhile(lambda level: level not in _COPIES, found.split("."))))
                router = submodel.get_submodule(path)
                if id(router) not in seen and not set(path.split(".")) & set(family.ignored):
                    seen.add(id(router))
                    yield _describe(model, prefix, submodel, path, router, inner, logits_at)


def _recorded(submodel: PreTrainedModel, family: Family) -> Iterator[tuple[str, nn.Module, int | None]]:
    """(path, module, position of the logits in its output) of what `submodel` records as routers.

    Some versions record the block around the router: then the router is the one module `gate` or `router` beside the
    experts. The self-check decides whether that is what the model uses.
    """
    recorders = _router_recorders(submodel)
    for recorder in recorders:
        for path, module in submodel.named_modules():
            if _matches(recorder, path, module):
                beside = _beside_experts(module, family)
                position = family.logits_at if family.logits_at is not None else recorder.index
                if beside is None:
                    yield path, module, position
                else:
                    yield *_innermost(module, path, beside), family.logits_at


def _unrecorded(submodel: PreTrainedModel, family: Family) -> Iterator[tuple[str, nn.Module, int | None]]:
    """The same for a model that records no router: the modules beside the experts."""
    for path, module in submodel.named_modules():
        beside = _beside_experts(module, family)
        if beside is not None:
            yield *_innermost(module, path, beside), family.logits_at


def _innermost(block: nn.Module, path: str, name: str) -> tuple[str, nn.Module]:
    """The path and module of the child `name`, below the wrappers of adapters."""
    module = block.get_submodule(name)
    path = f"{path}.{name}"
    while "base_layer" in dict(module.named_children()):
        module, path = module.get_submodule("base_layer"), f"{path}.base_layer"
    return path, module


def _outermost(submodel: nn.Module, path: str) -> str:
    """The path of what computes the router's output: a linear layer's adapter adds to it in a wrapper around the layer.

    An adapter on bare parameters changes them in place for the time of the call, so there the inner module computes it.
    """
    while path.endswith(".base_layer") and not hasattr(submodel.get_submodule(_parent(path)), "parameter_name"):
        path = _parent(path)
    return path


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _beside_experts(block: nn.Module, family: Family) -> str | None:
    children = dict(block.named_children())
    routers = [name for name in _ROUTER_NAMES if name in children]
    return routers[0] if len(routers) == 1 and all(name in children for name in family.experts) else None


def _router_recorders(model: PreTrainedModel) -> list[OutputRecorder]:
    recorders = (model._can_record_outputs or {}).get("router_logits", [])
    recorders = recorders if isinstance(recorders, list) else [recorders]
    return [
        recorder if isinstance(recorder, OutputRecorder) else OutputRecorder(recorder, index=0)
        for recorder in recorders
    ]


def _matches(recorder: OutputRecorder, path: str, module: nn.Module) -> bool:
    if recorder.target_class is None or not isinstance(module, recorder.target_class):
        return False
    if any(level.startswith("lora_") for level in path.split(".")):
        return False  # a part of an adapter, which may be of the same class
    return recorder.layer_name is None or f".{recorder.layer_name.strip('.')}." in f".{path}."


def _describe(
    model: nn.Module,
    prefix: str,
    submodel: PreTrainedModel,
    path: str,
    router: nn.Module,
    inner: nn.Module,
    logits_at: int | None,
) -> MoELayer:
    """The layer of `router`, which is `inner` (what transformers records) or PEFT's wrapper around it."""
    levels = [level for level in path.split(".") if level not in _WRAPPED]
    depth = next((position for position, level in enumerate(levels) if level.isdigit()), None)
    name = ".".join(level for level in [*prefix.split("."), *levels] if level and level not in _WRAPPED)
    if depth is None:
        raise ModelError(f"the router {name} lies in no numbered decoder layer")
    decoder_path = ".".join(path.split(".")[: path.split(".").index(levels[depth]) + 1])
    block = submodel.get_submodule(".".join(levels[:-1]))
    text_config = submodel.config.get_text_config()
    family = family_of(text_config.model_type)
    if family.unsupported is not None:
        raise ModelError(f"{type(model).__name__} ({text_config.model_type}) cannot be aligned: {family.unsupported}")
    if family.router:
        # What is recorded is a block; the router of the text is inside, and returns its logits first.
        block, name = router, f"{name}.{family.router}"
        if "." in family.router:
            block = reach(family.router.rpartition(".")[0], router)
        inner = reach(family.router, router)
        while hasattr(inner, "base_layer"):  # the wrapper of an adapter on its parameters
            inner = inner.base_layer  # type: ignore[assignment]  # PEFT's, which is a module
        router = inner
        logits_at = 0
    experts = _experts(family, block, name, inner)
    numbers = [_number(path, name, inner, block, experts) for path in (family.num_experts, family.top_k)]
    return MoELayer(
        index=int(levels[depth]),
        name=name,
        router=router,
        experts=experts,
        block=block,
        decoder_layer=submodel.get_submodule(decoder_path),
        backbone=submodel,
        num_experts=numbers[0],
        top_k=numbers[1],
        score=_score(family, text_config, name),
        family=family,
        logits_at=logits_at,
    )


def _experts(family: Family, block: nn.Module, name: str, router: nn.Module) -> nn.Module:
    children = dict(block.named_children())
    found = [children[child] for child in family.experts if child in children]
    if not found:
        # A family without a row may have named them otherwise; fused experts are told by their three dimensions.
        fused = [
            child for child in children.values() if any(dimensions(p) == 3 for p in child.parameters(recurse=False))
        ]
        found = fused if len(fused) == 1 else []
    if not found:
        raise ModelError(f"no module 'experts' beside the router {name} ({type(router).__name__})")
    return found[0] if len(found) == 1 else block


def _number(path: str, name: str, router: nn.Module, block: nn.Module, experts: nn.Module) -> int:
    value = reach(path, router, block, experts)
    if not isinstance(value, int):
        raise ModelError(f"the router {name} ({type(router).__name__}) states no {path}")
    return value


def _score(family: Family, config: PreTrainedConfig, name: str) -> str:
    if family.score_by is None:
        return family.score
    attribute, scores = family.score_by
    value = config.to_dict()[attribute]
    if value not in scores:
        raise ModelError(
            f"the router {name} scores by {attribute}: {value!r}, and this version knows what to align for "
            f"{', '.join(sorted(scores))} alone: its family needs a row for it (innerlingua/anatomy/families.py)"
        )
    return scores[value]
