"""The modules that DeepSpeed ZeRO-3 must gather whole.

ZeRO-3 gathers a module's weights when the module runs, by a collective of all processes. Where each expert is a module
of its own, an expert that gets tokens in one process and none in another is gathered by the one and not by the other,
and both wait for ever (deepspeedai/DeepSpeed issue 4808). A module that is marked as a leaf is gathered with all that
it holds, whatever of it runs. Fused experts are one module, which runs in every process.
"""

from __future__ import annotations

from torch import nn

from innerlingua.anatomy.layers import MoELayer, find_moe_layers
from innerlingua.errors import ModelError

__all__ = ["experts_are_fused", "gather_experts_together", "leaf_of"]


def leaf_of(layer: MoELayer) -> nn.Module:
    """What holds all experts of `layer`: its MoE block, or the experts alone where the block is the decoder layer."""
    return layer.experts if layer.block is layer.decoder_layer else layer.block


def experts_are_fused(layer: MoELayer) -> bool:
    """Whether the routed experts of `layer` are one module, and not a list of them."""
    return not any(isinstance(module, nn.ModuleList) for module in layer.experts.modules())


def gather_experts_together(model: nn.Module) -> None:
    """Mark for DeepSpeed as leaves what holds the experts of `model`, where each expert is a module of its own.

    To be called before DeepSpeed takes the weights apart. Models without experts are left as they are.
    """
    from deepspeed.utils import set_z3_leaf_module

    try:
        layers = find_moe_layers(model)
    except ModelError:
        return
    for layer in layers:
        if not experts_are_fused(layer):
            set_z3_leaf_module(leaf_of(layer), True)
