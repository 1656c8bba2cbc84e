"""SARA: divergence, prior, the alignment term, and how far a model's languages are routed from their anchors.

The names are loaded when first used: a stored profile is read, and its report written, without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerlingua.routing.alignment import RoutingAlignment as RoutingAlignment
    from innerlingua.routing.divergence import js_divergence as js_divergence
    from innerlingua.routing.measure import mean_divergence as mean_divergence
    from innerlingua.routing.measure import pair_divergence as pair_divergence
    from innerlingua.routing.prior import RoutingPrior as RoutingPrior

_FILES = {
    "RoutingAlignment": "alignment",
    "RoutingPrior": "prior",
    "js_divergence": "divergence",
    "mean_divergence": "measure",
    "pair_divergence": "measure",
}

__all__ = list(_FILES)


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
