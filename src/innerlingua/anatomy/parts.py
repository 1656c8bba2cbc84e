"""A model's parameters by part, what of them is trained, and the check that exactly that is.

The parts are told from the structure that `find_moe_layers` finds, not from names of single families:

| part | what belongs to it |
|---|---|
| router | the router modules |
| experts | the routed experts, fused or not |
| shared_experts | the rest of a MoE block: experts that every token passes, gates, projections around experts |
| attention | the rest of a decoder layer that mixes tokens: attention, linear attention, convolutions |
| mlp | dense feed-forward blocks |
| norms | normalisation layers, wherever they are |
| embeddings, head | input embeddings; output head (a tied head is counted with the embeddings) |
| other | what is none of these, as a vision tower, or a mixing of residual streams before the head |

Fused experts are three-dimensional parameters and routers are often bare parameters, so LoRA reaches them by PEFT's
`target_parameters` and only `nn.Linear` modules by `target_modules`. Silently leaving experts frozen is the most
frequent fault of LoRA on MoE models; `check_trainable` compares what is trainable with what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from innerlingua.anatomy.layers import MoELayer, find_moe_layers
from innerlingua.errors import ModelError, nearest

__all__ = [
    "PARTS",
    "PartCount",
    "check_trainable",
    "count_parts",
    "fixed_routers",
    "lora_targets",
    "parameter_parts",
    "set_trainable",
]

PARTS = ("router", "experts", "shared_experts", "attention", "mlp", "norms", "embeddings", "head", "other")

# Levels that PEFT puts between a module's name and its parameters.
_ADAPTER_LEVELS = frozenset({"base_layer", "modules_to_save", "default"})
# Linear modules of these names are taken by PEFT for experts of an older layout, where it knows the family: it would
# put the adapter on the fused experts instead. As a target parameter, their weight is left where it is.
_RENAMED_BY_PEFT = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
_MLP_NAMES = ("mlp", "mlps", "feed_forward", "ffn", "block_sparse_moe")


def parameter_parts(model: nn.Module) -> dict[str, str]:
    """The part of every parameter, by the parameter's full name, in the model's order. See the module for the parts."""
    layers = find_moe_layers(model)
    routers, experts, blocks = _moe_roots(model, layers)
    # The decoder layers: what stands before `.<index>.` in the path of a router.
    stacks = {layer.name.partition(f".{layer.index}.")[0] for layer in layers}
    classes = {_logical(path): type(module).__name__.lower() for path, module in model.named_modules()}
    norms = {path for path, name in classes.items() if "norm" in name and "attention" not in name}
    mlps = {
        path for path, name in classes.items() if _within(path, stacks) and ("mlp" in name or "feedforward" in name)
    }
    backbone = layers[0].backbone
    embedded = {id(parameter) for parameter in backbone.get_input_embeddings().parameters()} | {
        id(module.weight) for module in backbone.modules() if isinstance(module, nn.Embedding)
    }
    prefix = next(_logical(path) for path, module in model.named_modules() if module is backbone)
    parts: dict[str, str] = {}
    for name, parameter in model.named_parameters():
        logical = _logical(name)
        levels = logical.split(".")
        if any("vision" in level or "visual" in level for level in levels):
            part = "other"
        elif _within(logical, routers) or logical in routers:
            part = "router"
        elif _within(logical, experts):
            part = "experts"
        elif id(parameter) in embedded and not _within(logical, stacks):
            part = "embeddings"
        elif _within(logical, norms):
            part = "norms"
        elif _within(logical, blocks) or (
            _within(logical, stacks) and any(level.startswith("shared") for level in levels)
        ):
            part = "shared_experts"
        elif _within(logical, stacks):
            part = "mlp" if _within(logical, mlps) or any(level in _MLP_NAMES for level in levels) else "attention"
        elif "embed_tokens" in levels:
            part = "embeddings"
        elif _within(logical, {prefix}) and any(level.startswith("per_layer") for level in levels):
            part = "embeddings"  # projections of embeddings that each layer has for itself
        elif "lm_head" in levels or "embed_out" in levels:
            part = "head"
        else:
            part = "other"
        parts[name] = part
    return parts


@dataclass(frozen=True)
class PartCount:
    """One part of a model: how many parameters (single numbers) it has, of which types, and how many are trainable."""

    part: str
    parameters: int
    trainable: int
    dtypes: tuple[str, ...]


def count_parts(model: nn.Module) -> list[PartCount]:
    """The parts that `model` has, in the order of `PARTS`. Counts every parameter once; works on the meta device,
    too."""
    parts = parameter_parts(model)
    found: dict[str, list[nn.Parameter]] = {part: [] for part in PARTS}
    for name, parameter in model.named_parameters():
        found[parts[name]].append(parameter)
    return [
        PartCount(
            part=part,
            parameters=sum(parameter.numel() for parameter in parameters),
            trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            dtypes=tuple(sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters})),
        )
        for part, parameters in found.items()
        if parameters
    ]


def fixed_routers(model: nn.Module) -> dict[str, str]:
    """Routers whose experts no score chooses (a fixed table of token ids); they cannot be aligned: path -> class."""
    layers = find_moe_layers(model)
    routers, _, _ = _moe_roots(model, layers)
    modules = {_logical(path): module for path, module in model.named_modules()}
    aligned = {layer.name for layer in layers}
    return {path: type(modules[path]).__name__ for path in sorted(routers - aligned) if path in modules}


def _moe_roots(model: nn.Module, layers: Sequence[MoELayer]) -> tuple[set[str], set[str], set[str]]:
    """Paths of the routers (and their correction biases), of the routed experts, and of the blocks around them.

    Blocks whose router is none that can be aligned (a fixed table of token ids) are told by the class of the others.
    """
    routers: set[str] = set()
    experts: set[str] = set()
    blocks: set[str] = set()
    first = layers[0]
    router_level = first.name.rpartition(".")[2]
    block_level = _parent(first.name).rpartition(".")[2]
    children = dict(first.block.named_children())
    held = [name for name in first.family.experts if name in children] or [
        name for name, child in children.items() if child is first.experts
    ]
    for path, module in model.named_modules():
        logical = _logical(path)
        # A layer that is itself the block has an index for its last level, and holds more than experts.
        is_layer = first.block is first.decoder_layer
        if type(module) is not type(first.block) or (not is_layer and logical.rpartition(".")[2] != block_level):
            continue
        routers.add(f"{logical}.{router_level}")
        experts.update(f"{logical}.{name}" for name in held)
        if first.family.bias is not None:
            routers.add(f"{logical}.{first.family.bias}")
        if not is_layer:
            blocks.add(logical)
    return routers, experts, blocks


def _logical(name: str) -> str:
    return ".".join(level for level in name.split(".") if level not in _ADAPTER_LEVELS)


def set_trainable(model: nn.Module, parts: Iterable[str]) -> None:
    """Make exactly the parameters of `parts` trainable and freeze all others; `["all"]` trains everything.

    Raises `ModelError` for an unknown part and for one that this model does not have.
    """
    wanted = set(parts)
    known = parameter_parts(model)
    if wanted == {"all"}:
        wanted = set(PARTS)
    else:
        _refuse_absent(wanted, known)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(known[name] in wanted)


def lora_targets(model: nn.Module, parts: Iterable[str]) -> tuple[list[str], list[str]]:
    """PEFT's `(target_modules, target_parameters)` that put LoRA on every matrix of `parts`.

    Linear modules are targeted as modules; other parameters with two or more dimensions (fused experts, routers that
    are bare parameters) and the matrices of dense and shared feed-forward blocks as parameters. Full names, so that
    nothing else matches. Raises `ModelError` as `set_trainable`, and for a part that has nothing LoRA can be put on.
    """
    wanted = set(parts)
    known = parameter_parts(model)
    _refuse_absent(wanted, known)
    modules = dict(model.named_modules())
    target_modules: list[str] = []
    target_parameters: list[str] = []
    reached: set[str] = set()
    for part, reason in find_moe_layers(model)[0].family.no_adapters.items():
        if part in wanted or part == "all":
            remedy = "peft.router: train trains it whole" if part == "router" else "train without peft, or other parts"
            raise ModelError(f"LoRA cannot be put on {part} of this model: {reason}. Instead: {remedy}")
    for name, parameter in model.named_parameters():
        if known[name] not in wanted or parameter.dim() < 2 or name.endswith("bias"):
            continue
        owner, _, leaf = name.rpartition(".")
        if known[name] == "attention" and not _is_projection(modules, owner):
            continue
        # A subclass of nn.Linear with a forward of its own (a router) must stay itself: PEFT would call its forward and
        # take the tuple that it returns for a tensor.
        plain = type(modules[owner]) is nn.Linear and leaf == "weight"
        if plain and owner.rpartition(".")[2] not in _RENAMED_BY_PEFT:
            target_modules.append(owner)
        elif not isinstance(modules[owner], nn.Embedding):
            target_parameters.append(name)
        else:
            continue
        reached.add(known[name])
    if wanted - reached:
        raise ModelError(
            f"LoRA cannot be put on {', '.join(sorted(wanted - reached))}: no weight matrix of its own there"
        )
    return target_modules, target_parameters


def _is_projection(modules: dict[str, nn.Module], owner: str) -> bool:
    """Whether an adapter on this part of a token mixer would act: a matrix product that the mixer calls as a module.

    Convolutions and other parameters of linear attention are left alone, and so are the output and the step
    projection of a Mamba mixer, whose weights are also read past their modules.
    """
    mixer = modules[_parent(owner)]
    fused = owner.endswith((".out_proj", ".dt_proj")) and hasattr(mixer, "conv1d") and hasattr(mixer, "D")
    return isinstance(modules[owner], nn.Linear) and not fused


def check_trainable(model: nn.Module, trained: Iterable[str], *, adapted: Iterable[str] = ()) -> None:
    """Raise `ModelError` unless exactly this is trainable: all of `trained`, the adapters on `adapted`, nothing else.

    Without adapters, every parameter of `trained` must require a gradient and no other. With adapters (PEFT), every
    part in `adapted` must carry trainable LoRA weights, and none but those in `trained` and `adapted` may be
    trainable.
    """
    trained, adapted = set(trained), set(adapted)
    if "all" in trained:
        trained = set(PARTS)
    frozen: dict[str, str] = {}
    stray: dict[str, str] = {}
    adapters: set[str] = set()
    for (name, part), parameter in zip(parameter_parts(model).items(), model.parameters(), strict=True):
        is_adapter = ".lora_" in name
        if is_adapter and part in adapted:
            if parameter.requires_grad:
                adapters.add(part)
            else:
                frozen.setdefault(part, name)
        elif parameter.requires_grad and (is_adapter or part not in trained):
            stray.setdefault(part, name)
        elif not parameter.requires_grad and not is_adapter and part in trained and not _is_replaced(name):
            frozen.setdefault(part, name)
    for part in adapted - adapters:
        frozen.setdefault(part, "no adapter at all")
    if frozen or stray:
        problems = [f"{part} was to be trained but is frozen ({name})" for part, name in sorted(frozen.items())]
        problems += [f"{part} was to stay frozen but is trainable ({name})" for part, name in sorted(stray.items())]
        raise ModelError("the trainable parameters are not those asked for: " + "; ".join(problems))


def _refuse_absent(wanted: set[str], known: dict[str, str]) -> None:
    for part in sorted(wanted):
        if part not in PARTS:
            raise ModelError(f"unknown part {part!r}{nearest(part, PARTS)}")
        if part not in known.values():
            raise ModelError(f"this model has no {part}; it has {', '.join(sorted(set(known.values())))}")


def _is_replaced(name: str) -> bool:
    """Whether a copy of this parameter is trained in its place (PEFT's `modules_to_save`)."""
    return "original_module" in name.split(".")


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _within(name: str, roots: set[str]) -> bool:
    return any(name.startswith(f"{root}.") for root in roots)
