"""A few lines of SVG: elements, axes, curves and heat maps for figures in print.

Everything is text with two decimals. Labels are escaped, so names from data cannot become markup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

__all__ = ["Scale", "axes", "document", "heat_map", "line", "polygon", "rect", "text", "ticks"]

INK, MUTED, GRID = "#1b1f24", "#5b636d", "#e3e6ea"


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from `domain` to `pixels`."""

    domain: tuple[float, float]
    pixels: tuple[float, float]

    def __call__(self, value: float) -> float:
        """The pixel of `value`; the middle where the domain is a point."""
        (low, high), (start, end) = self.domain, self.pixels
        part = 0.5 if high == low else (value - low) / (high - low)
        return start + part * (end - start)


def document(width: float, height: float, parts: Sequence[str], *, title: str) -> str:
    """A standalone SVG file on white."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" font-family="Helvetica, Arial, sans-serif" role="img">'
        f"<title>{escape(title)}</title>"
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def text(
    x: float,
    y: float,
    content: str,
    *,
    size: float = 9,
    anchor: str = "start",
    colour: str = INK,
    bold: bool = False,
    turn: float = 0,
) -> str:
    """One line of text at its baseline; `turn` rotates it about that point, in degrees."""
    weight = ' font-weight="600"' if bold else ""
    rotate = f' transform="rotate({_n(turn)} {_n(x)} {_n(y)})"' if turn else ""
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}" fill="{colour}"{weight}{rotate}>'
        f"{escape(content)}</text>"
    )


def rect(x: float, y: float, width: float, height: float, fill: str, *, opacity: float = 1) -> str:
    """A filled rectangle."""
    faint = f' fill-opacity="{_n(opacity)}"' if opacity < 1 else ""
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" fill="{fill}"{faint}/>'


def line(
    points: Sequence[tuple[float, float]], colour: str, *, width: float = 1.4, dash: str = "", opacity: float = 1
) -> str:
    """A line through `points`, broken where a coordinate is no number."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[0]) and math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    path = "".join("M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in run) for run in runs if run)
    dashes = f" stroke-dasharray={quoteattr(dash)}" if dash else ""
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{_n(width)}" stroke-linejoin="round"'
        f'{dashes} stroke-opacity="{_n(opacity)}"/>'
    )


def polygon(points: Sequence[tuple[float, float]], fill: str, *, opacity: float = 0.18) -> str:
    """A filled area; points that are no numbers are left out."""
    corners = " ".join(f"{_n(x)},{_n(y)}" for x, y in points if math.isfinite(x) and math.isfinite(y))
    return f'<polygon points="{corners}" fill="{fill}" fill-opacity="{_n(opacity)}"/>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) from `low` to `high`."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def axes(
    x: Scale,
    y: Scale,
    *,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    y_labels: bool = True,
    size: float = 7.5,
) -> str:
    """Grid lines at the ticks of y, labels at the ticks of both (of y unless another panel has them), the base line."""
    parts = []
    for value in y_ticks:
        height = y(value)
        parts.append(line([(x.pixels[0], height), (x.pixels[1], height)], GRID, width=0.6))
        if y_labels:
            label = f"{value:g}"
            parts.append(text(x.pixels[0] - 4, height + size * 0.35, label, size=size, anchor="end", colour=MUTED))
    for value in x_ticks:
        parts.append(text(x(value), y.pixels[0] + size + 4, f"{value:g}", size=size, anchor="middle", colour=MUTED))
    parts.append(line([(x.pixels[0], y.pixels[0]), (x.pixels[1], y.pixels[0])], MUTED, width=0.8))
    return "".join(parts)


def heat_map(
    left: float,
    top: float,
    cell: tuple[float, float],
    values: Sequence[Sequence[float]],
    colour: Callable[[float], str],
) -> str:
    """Cells row by row; neighbours of one colour share a rectangle, and cells without a value stay grey."""
    width, height = cell
    parts = []
    for row, numbers in enumerate(values):
        fills = [colour(value) if math.isfinite(value) else "#d9dce0" for value in numbers]
        start = 0
        for column in range(1, len(fills) + 1):
            if column == len(fills) or fills[column] != fills[start]:
                parts.append(
                    rect(left + start * width, top + row * height, (column - start) * width, height, fills[start])
                )
                start = column
    # Whole pixels, else viewers draw seams between the cells.
    return f'<g shape-rendering="crispEdges">{"".join(parts)}</g>'


def _n(value: float) -> str:
    """Two decimals, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))
