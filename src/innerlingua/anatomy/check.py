"""The self-check: does a model route as we read it?

Names lie: `router_logits` have been probabilities in some versions of some families, a router's output has been
ignored by its block, and a gradient has been lost on the way. Before anything is trained or reported, a few tokens
are sent through the backbone and each MoE layer must show that

- what was captured are logits and not already probabilities,
- the experts that the block used are those that the router chose, and the choice follows from the captured logits,
- the weights of the chosen experts are in the proportion that the score function says,
- when a gradient is asked for, it flows from the captured routing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from innerlingua.anatomy.capture import RoutingTap
from innerlingua.anatomy.captured import RoutingCapture
from innerlingua.anatomy.choice import chosen_experts, dispatch_weights, expert_ranks
from innerlingua.anatomy.families import COMMON
from innerlingua.anatomy.layers import MoELayer, on_routing
from innerlingua.anatomy.scores import routing_distribution
from innerlingua.anatomy.sharding import check_present, resharded
from innerlingua.errors import ModelError

__all__ = ["check_routing"]

_TOKENS = 8


def check_routing(tap: RoutingTap, *, gradient: bool = False) -> None:
    """Check every layer of `tap` on a few tokens, in evaluation mode; modes and parameters are left as they were.

    With `gradient`, some parameter that requires a gradient must also be reachable from the captured routing of each
    layer. Raises `ModelError` that names the layer, what was found and what follows from it. Where the parameters are
    sharded, every process must take part.
    """
    backbone = tap.layers[0].backbone
    check_present(backbone)
    if gradient:
        _refuse_without_gradient(tap)
    device = next(backbone.get_input_embeddings().parameters()).device
    token_ids = (torch.arange(_TOKENS, device=device) % backbone.config.get_text_config().vocab_size)[None]
    with resharded(tap.root), evaluation_mode(backbone), ExitStack() as hooks:
        seen = {layer.index: hooks.enter_context(_watched(layer)) for layer in tap.layers}
        with torch.set_grad_enabled(gradient), tap.capture() as routing:
            tap.run(token_ids, torch.ones_like(token_ids), experts=True)
    for layer in tap.layers:
        _check_layer(layer, seen[layer.index])
    if gradient:
        _check_gradient(tap.layers, routing, backbone)


def _refuse_without_gradient(tap: RoutingTap) -> None:
    """Raise for a model whose weights or experts are held so that no right gradient reaches its routers."""
    for model in tap.models:
        quantizer = vars(model).get("hf_quantizer")
        if quantizer is not None and not quantizer.is_trainable:
            method = type(quantizer.quantization_config).__name__
            raise ModelError(
                f"{type(model).__name__} is quantised in a way that cannot be trained ({method}), so no gradient "
                "reaches its routers: load it dequantised (many configurations take dequantize=True), or take an "
                "unquantised checkpoint"
            )
        distributed = vars(model.config).get("distributed_config")
        if distributed is not None and (distributed.ep_size or 1) > 1:
            raise ModelError(
                f"{type(model).__name__} is spread by expert parallelism (ep_size {distributed.ep_size}): each "
                "process chooses among its own experts only, and gradients of routers are wrong or missing there. "
                "Load it without ep_size and let the launcher shard it (FSDP2, DeepSpeed)"
            )
    for layer in tap.layers:
        for name, parameter in layer.router.named_parameters():
            if not parameter.is_floating_point():
                raise ModelError(
                    f"the router {layer.name} is quantised ({name}: {parameter.dtype}), so no gradient can change "
                    "it: exclude routers from quantisation (llm_int8_skip_modules, modules_to_not_convert)"
                )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """`model` in evaluation mode inside; every module's own mode is restored on leaving."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _watched(layer: MoELayer) -> Iterator[dict[str, Any]]:
    seen: dict[str, Any] = {}

    def routed(logits: Tensor, output: Any) -> None:
        seen["logits"], seen["output"] = logits, output

    def experts_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        seen["used"] = next((value for value in given if not value.is_floating_point()), None)

    handles = on_routing(layer, routed)
    handles.append(layer.experts.register_forward_pre_hook(experts_hook, with_kwargs=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _check_layer(layer: MoELayer, seen: dict[str, Any]) -> None:
    if "output" not in seen:
        raise ModelError(f"the router {layer.name} did not run in a forward pass of the backbone")
    where = f"the router {layer.name} ({type(layer.router).__name__})"
    output, given = seen["output"], seen["logits"].detach()
    logits = given.float().reshape(-1, layer.num_experts)
    if bool(logits.isnan().any()):
        raise ModelError(f"{where} gives NaN: a weight of it or below it is not finite, so the checkpoint is damaged")
    if bool((logits >= 0).all()) and bool((logits.sum(dim=-1) - 1).abs().max() < 1e-3):
        raise ModelError(f"{where} returns probabilities where logits are expected: a softmax of them would be flat")
    chosen = chosen_experts(layer, given, output)
    if chosen is None:
        raise ModelError(f"{where} returns no indices of the chosen experts, so its choice cannot be checked")
    if isinstance(output, Tensor) and seen.get("used") is None:
        raise ModelError(
            f"{where} does not choose, and its experts are given no choice either, so it cannot be checked"
        )
    _check_use(layer, where, chosen, seen.get("used"))
    by_logits_alone = layer.family.bias is None and layer.family.groups is None
    if by_logits_alone:
        _check_choice(layer, where, given, chosen)
    if not layer.family.samples:
        _check_proportions(layer, where, logits, chosen, output)
    if not by_logits_alone:
        _check_choice(layer, where, given, chosen)


def _check_use(layer: MoELayer, where: str, chosen: Tensor, used: Tensor | None) -> None:
    if used is None:
        return
    if layer.family.last_skips:
        chosen = chosen.masked_fill(chosen == layer.num_experts - 1, 0)
    if not torch.equal(used.reshape(-1, layer.top_k).sort().values, chosen.sort().values):
        raise ModelError(
            f"{where} chose other experts than its block used: what is captured is not what the model does"
        )


def _check_choice(layer: MoELayer, where: str, logits: Tensor, chosen: Tensor) -> None:
    # Compared by value, not by index: equal ranks may be taken either way. Half-precision ranks are coarse.
    tolerance = 1e-5 if logits.dtype == torch.float32 else 2e-2
    ranks = expert_ranks(layer, logits.reshape(-1, layer.num_experts))
    largest = ranks.topk(layer.top_k).values.sort().values
    if not torch.allclose(ranks.gather(1, chosen).sort().values, largest, atol=tolerance):
        rule = "largest logits" if layer.family == COMMON else f"largest ranks by its row ({layer.family.kind})"
        raise ModelError(f"{where} does not choose the experts with the {rule}: its family needs a row of its own")


def _check_proportions(layer: MoELayer, where: str, logits: Tensor, chosen: Tensor, output: Any) -> None:
    given = dispatch_weights(layer, output, chosen)
    if given is None or layer.top_k == 1:
        return
    expected = routing_distribution(logits, layer.score).gather(1, chosen)
    gap = given / given.sum(dim=-1, keepdim=True) - expected / expected.sum(dim=-1, keepdim=True)
    if float(gap.abs().max()) > 2e-2:  # bfloat16 weights have three digits
        raise ModelError(
            f"{where} weighs its experts by something else than {layer.score} of the captured logits: "
            "its family needs a row of its own"
        )


def _check_gradient(layers: Sequence[MoELayer], routing: RoutingCapture, backbone: nn.Module) -> None:
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise ModelError(
            "every parameter of the model is frozen, or all but its head, so an alignment term cannot change its "
            "routing: leave the router or the layers below it trainable"
        )
    unreached = [layer.index for layer in layers if not _reaches_parameter(routing.of_layer(layer.index))]
    if unreached:
        raise ModelError(
            f"no gradient flows from the captured routing of the decoder layers {unreached}: nothing at or below "
            "them is trainable. Train their routers or what lies below, or align other layers"
        )


def _reaches_parameter(tensor: Tensor) -> bool:
    """Whether a parameter is a leaf of the autograd graph of `tensor`; those that are frozen are none.

    That a tensor requires a gradient is not enough: PEFT lets the embedded tokens require one under gradient
    checkpointing, and then everything does. The graph is walked, not run, so that no gradient is allocated. A leaf
    is told by its class and not by its identity: FSDP runs with gathered copies of the model's parameters.
    """
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(getattr(node, "variable", None), nn.Parameter):
            return True
        waiting.extend(below for below, _ in node.next_functions)
    return False
