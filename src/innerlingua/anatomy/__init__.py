"""Where a model keeps what we read and change: MoE layers, routers, experts; capture; parts to train."""

from innerlingua.anatomy.capture import RoutingTap, capture_routing
from innerlingua.anatomy.captured import RoutingCapture
from innerlingua.anatomy.check import check_routing
from innerlingua.anatomy.joined import check_joined_rows
from innerlingua.anatomy.layers import MoELayer, find_moe_layers
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
from innerlingua.anatomy.precision import compute_type, mixed_precision
from innerlingua.anatomy.scores import SCORES, routing_distribution
from innerlingua.anatomy.selection import layer_indices, select_layers
from innerlingua.anatomy.sharding import check_present, is_sharded, resharded, whole

__all__ = [
    "PARTS",
    "SCORES",
    "MoELayer",
    "PartCount",
    "RoutingCapture",
    "RoutingTap",
    "capture_routing",
    "check_joined_rows",
    "check_present",
    "check_routing",
    "check_trainable",
    "compute_type",
    "count_parts",
    "empty_model",
    "find_moe_layers",
    "fixed_routers",
    "is_sharded",
    "language_model_class",
    "layer_indices",
    "lora_targets",
    "mixed_precision",
    "parameter_parts",
    "resharded",
    "routing_distribution",
    "select_layers",
    "set_trainable",
    "whole",
]
