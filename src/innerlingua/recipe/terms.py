"""From the sections of a recipe to the terms of the loss. A later method is one more row of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from innerlingua.recipe.prior import Ingredients, stored_prior
from innerlingua.recipe.schema import AlignmentSection
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Term

__all__ = ["TERMS"]


def _routing_alignment(section: AlignmentSection, given: Ingredients) -> Term:
    assert section.layers != "auto", "resolved when the model was loaded"
    anchor: RoutingPrior | str = "live" if section.anchor == "live" else stored_prior(section, given)
    return RoutingAlignment(
        anchor=anchor,
        weight=section.weight,
        layers=section.layers,
        anchor_gradient=section.anchor_gradient,
        pooling=section.pooling,
        score=section.score,
        verify_weights=False,  # the main process has compared them; others may hold none yet (FSDP)
    )


TERMS: dict[str, Callable[[Any, Ingredients], Term]] = {
    "alignment": _routing_alignment,
}
"""From a section of the recipe to what makes the term that it adds."""
