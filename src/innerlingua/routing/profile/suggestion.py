"""Which layers a curve of JS suggests for alignment: our choice of a rule, after the U-shape that the field reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Suggestion", "format_layers", "suggest_layers"]

_FIRST_SHARE, _LAST_SHARE = 0.15, 0.72
_DEPTH_SHARE, _HEIGHT_SHARE = 0.2, 0.25


@dataclass(frozen=True)
class Suggestion:
    """The layers to align: decoder-layer indices, whether the curve has a trough, and the rule in words."""

    layers: list[int]
    trough: bool
    rule: str


def suggest_layers(js: Sequence[float], layers: Sequence[int], depth: int) -> Suggestion:
    """The layers that a curve of JS by layer suggests for alignment.

    The longest run of neighbouring MoE layers with JS below min + 0.25 x (edge - min), where edge is the mean over the
    first and the last tenth of the layers (one layer each at least). A run must span 20 % of the depth, else there is
    no trough and the layers at 15 % to 72 % of the depth are taken, which on 48 layers are SARA's 7 to 34. Of runs of
    one length the one with the lower mean wins.

    Args:
        js: the curve, one value for each of `layers`.
        layers: decoder-layer indices of the MoE layers, in order.
        depth: the number of decoder layers, dense ones included.
    """
    tenth = max(1, round(len(layers) / 10))
    edge = sum([*js[:tenth], *js[-tenth:]]) / (2 * tenth)
    limit = min(js) + _HEIGHT_SHARE * (edge - min(js))
    runs: list[list[int]] = []
    for position, value in enumerate(js):
        if value >= limit:
            continue
        if runs and runs[-1][-1] == position - 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    best = max(runs, key=lambda run: (len(run), -sum(js[at] for at in run) / len(run)), default=[])
    stated = (
        f"longest run of layers with JS below {limit:.4g} = min + 0.25 x (mean of the first and last tenth - min), "
        f"at least 20 % of {depth} layers"
    )
    if best and len(best) >= _DEPTH_SHARE * depth:
        return Suggestion([layers[at] for at in best], True, stated)
    first, last = int(_FIRST_SHARE * depth), int(_LAST_SHARE * depth)
    middle = [layer for layer in layers if first <= layer <= last] or list(layers)
    found = f"the longest run has {len(best)}" if best else "no layer is below it"
    return Suggestion(middle, False, f"no trough ({stated}; {found}): layers at 15 % to 72 % of the depth")


def format_layers(layers: Sequence[int]) -> str:
    """`[3, 4, 5, 9]` as `3-5, 9`, which is how a recipe writes layers (both ends in)."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
