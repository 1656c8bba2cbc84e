"""Post-train multilingual Mixture-of-Experts models by what happens inside them.

The names below are the whole public interface. They are loaded when first used, so that importing the package (for
`innerlingua --help`, or to check a recipe) imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerlingua.anatomy import MoELayer as MoELayer
    from innerlingua.anatomy import RoutingCapture as RoutingCapture
    from innerlingua.anatomy import capture_routing as capture_routing
    from innerlingua.anatomy import find_moe_layers as find_moe_layers
    from innerlingua.data import read_pairs as read_pairs
    from innerlingua.data import tokenize_pairs as tokenize_pairs
    from innerlingua.errors import InnerlinguaError as InnerlinguaError
    from innerlingua.routing import RoutingAlignment as RoutingAlignment
    from innerlingua.routing import RoutingPrior as RoutingPrior
    from innerlingua.routing import js_divergence as js_divergence
    from innerlingua.training import Trainer as Trainer

__version__ = "0.1.0"

_ROOMS = {
    "InnerlinguaError": "errors",
    "MoELayer": "anatomy",
    "RoutingAlignment": "routing",
    "RoutingCapture": "anatomy",
    "RoutingPrior": "routing",
    "Trainer": "training",
    "capture_routing": "anatomy",
    "find_moe_layers": "anatomy",
    "js_divergence": "routing",
    "read_pairs": "data",
    "tokenize_pairs": "data",
}

__all__ = [*_ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
