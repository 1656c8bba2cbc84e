"""Colours that people with any of the common colour vision deficiencies can tell apart.

Categories are those of Okabe and Ito (2008), the darker ones first because lines of yellow vanish on white. The
sequential ramp is sampled from viridis (van der Walt and Smith, 2015), the diverging one runs from blue to orange.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CATEGORIES", "DIVERGING", "SEQUENTIAL", "ramp"]

CATEGORIES: Final = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c")
SEQUENTIAL: Final = (
    "#440154",
    "#482475",
    "#414487",
    "#355f8d",
    "#2a788e",
    "#21918c",
    "#22a884",
    "#44bf70",
    "#7ad151",
    "#bddf26",
    "#fde725",
)
DIVERGING: Final = ("#053061", "#2b7bba", "#9ecae1", "#f4f4f2", "#fdc27d", "#e07b20", "#8c3a00")


def ramp(stops: tuple[str, ...], position: float) -> str:
    """The colour at `position` (0 to 1, clamped) of evenly spaced `stops`, linear in sRGB, as `#rrggbb`."""
    place = min(max(position, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    part = place - index
    channels = [
        round((1 - part) * int(stops[index][at : at + 2], 16) + part * int(stops[index + 1][at : at + 2], 16))
        for at in (1, 3, 5)
    ]
    return "#" + "".join(f"{channel:02x}" for channel in channels)
