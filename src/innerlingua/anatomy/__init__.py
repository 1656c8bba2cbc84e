"""Where a model keeps what we read and change: MoE layers, routers, experts; capture; parts to train."""

from innerlingua.anatomy.capture import RoutingCapture, RoutingTap, capture_routing
from innerlingua.anatomy.check import check_routing
from innerlingua.anatomy.layers import MoELayer, find_moe_layers, select_layers
from innerlingua.anatomy.loading import empty_model, language_model_class
from innerlingua.anatomy.parts import (
    PARTS,
    PartCount,
    check_trainable,
    count_parts,
    fixed_routers,
    lora_targets,
    parameter_parts,
    set_trainable,
)
from innerlingua.anatomy.scores import SCORES, routing_distribution

__all__ = [
    "PARTS",
    "SCORES",
    "MoELayer",
    "PartCount",
    "RoutingCapture",
    "RoutingTap",
    "capture_routing",
    "check_routing",
    "check_trainable",
    "count_parts",
    "empty_model",
    "find_moe_layers",
    "fixed_routers",
    "language_model_class",
    "lora_targets",
    "parameter_parts",
    "routing_distribution",
    "select_layers",
    "set_trainable",
]
