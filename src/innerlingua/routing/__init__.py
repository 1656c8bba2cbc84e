"""SARA: divergence, prior, the alignment term, and how far a model's languages are routed from their anchors."""

from innerlingua.routing.alignment import RoutingAlignment
from innerlingua.routing.divergence import js_divergence
from innerlingua.routing.measure import mean_divergence, pair_divergence
from innerlingua.routing.prior import RoutingPrior

__all__ = ["RoutingAlignment", "RoutingPrior", "js_divergence", "mean_divergence", "pair_divergence"]
