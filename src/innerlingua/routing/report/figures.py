"""The figures of a paper, as SVG files: curves, heat maps, similarity of languages, routing against accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerlingua.page import CATEGORIES, DIVERGING, SEQUENTIAL, ramp
from innerlingua.routing.report import svg
from innerlingua.routing.report.export import write_text
from innerlingua.routing.report.order import similarity_order
from innerlingua.routing.report.read import Profile
from innerlingua.routing.report.results import Results
from innerlingua.routing.report.summary import MEASURES, wilson

__all__ = ["figures", "write_figures"]

DASHES = ("", "5 2.5", "1.5 2", "7 2 1.5 2")
Table = NDArray[np.float64]


def write_figures(directory: Path, profiles: Sequence[Profile], results: Results | None = None) -> list[Path]:
    """Write each figure of `figures` as `routing_<name>.svg`. Returns the paths."""
    written = []
    for name, content in figures(profiles, results).items():
        path = directory / f"routing_{name}.svg"
        write_text(path, content)
        written.append(path)
    return written


def figures(profiles: Sequence[Profile], results: Results | None = None) -> dict[str, str]:
    """Name -> SVG: curves (a panel per language), overview (a panel per profile), layers (language x layer),
    similarity, experts (the anchor and the language farthest from it), and accuracy when there are results."""
    drawn = {"layers": _layers(profiles), "experts": _experts(profiles)}
    if any(_codes(profile) for profile in profiles):
        drawn["curves"] = _curves(profiles)
        drawn["overview"] = _overview(profiles)
    drawn["similarity"] = _similarity(profiles)
    if results is not None:
        drawn["accuracy"] = _accuracy(profiles, results)
    return drawn


def _codes(profile: Profile) -> list[str]:
    """Languages with a divergence to the anchor, the farthest last by its mean over layers."""
    rows = profile.measures.get("js", {})
    codes = [code for code, table in rows.items() if np.isfinite(table[0]).any()]
    return sorted(codes, key=lambda code: float(np.nanmean(rows[code][0])))


def _name(profile: Profile, code: str) -> str:
    unseen = profile.unseen
    mark = "*" if unseen is not None and code in unseen else ""
    return str(profile.languages[code].get("name", code)) + mark


def _note(profiles: Sequence[Profile]) -> list[str]:
    """What the star means, where some language carries it."""
    return ["* never seen in training"] if any(profile.unseen for profile in profiles) else []


def _size(profile: Profile, code: str) -> float:
    """The mean JS of a language over the layers; 0 where the profile lacks it."""
    table = profile.measures["js"].get(code)
    return 0.0 if table is None or not np.isfinite(table[0]).any() else float(np.nanmean(table[0]))


def _band(profile: Profile, x: svg.Scale, y: svg.Scale) -> str:
    """The suggested layers as a pale band, half a layer beyond both ends."""
    layers = profile.suggested.get("layers") or []
    if not layers:
        return ""
    low, high = max(x(min(layers) - 0.5), x.pixels[0]), min(x(max(layers) + 0.5), x.pixels[1])
    return svg.rect(low, y.pixels[1], high - low, y.pixels[0] - y.pixels[1], "#f0e442", opacity=0.22)


def _curve(layers: Sequence[int], table: Table, x: svg.Scale, y: svg.Scale, colour: str, dash: str) -> str:
    low = [(x(layer), y(value)) for layer, value in zip(layers, table[1], strict=True)]
    high = [(x(layer), y(value)) for layer, value in zip(layers, table[2], strict=True)]
    mean = [(x(layer), y(value)) for layer, value in zip(layers, table[0], strict=True)]
    return svg.polygon(low + high[::-1], colour) + svg.line(mean, colour, dash=dash)


def _legend(left: float, top: float, labels: Sequence[str]) -> str:
    parts = []
    for index, label in enumerate(labels):
        colour = CATEGORIES[index % len(CATEGORIES)]
        parts.append(svg.line([(left, top - 3), (left + 18, top - 3)], colour, dash=DASHES[index % 4], width=1.8))
        parts.append(svg.text(left + 22, top, label, size=9))
        left += 34 + 5.2 * len(label)
    return "".join(parts)


def _layer_ticks(layers: Sequence[int], count: int) -> list[float]:
    return [tick for tick in svg.ticks(min(layers), max(layers), count) if float(tick).is_integer()]


def _curves(profiles: Sequence[Profile]) -> str:
    """A panel per language with one line per profile and its 95 % interval."""
    first = profiles[0]
    codes = list(dict.fromkeys(code for profile in profiles for code in _codes(profile)))
    codes.sort(key=lambda code: -max(_size(profile, code) for profile in profiles))
    columns = min(len(codes), 6)
    width, height, left, top = 118.0, 92.0, 40.0, 34.0
    known = [profile.measures["js"][code] for profile in profiles for code in codes if code in profile.measures["js"]]
    highest = float(np.nanmax(np.stack(known)))
    layers = first.layers
    parts = [_legend(left, 16, [profile.label for profile in profiles])]
    for index, code in enumerate(codes):
        row, column = divmod(index, columns)
        x0, y0 = left + column * (width + 14), top + row * (height + 34)
        x = svg.Scale((min(layers), max(layers)), (x0, x0 + width))
        y = svg.Scale((0.0, highest * 1.04), (y0 + height, y0 + 12))
        holder = next(profile for profile in profiles if code in profile.languages)
        parts.append(_band(first, x, y))
        steps = svg.ticks(0, highest, 3)
        parts.append(svg.axes(x, y, x_ticks=_layer_ticks(layers, 4), y_ticks=steps, y_labels=column == 0))
        parts.append(svg.text(x0, y0 + 6, _name(holder, code), size=9, bold=True))
        for number, profile in enumerate(profiles):
            if code in profile.measures["js"]:
                colour, dash = CATEGORIES[number % len(CATEGORIES)], DASHES[number % 4]
                parts.append(_curve(layers, profile.measures["js"][code], x, y, colour, dash))
    rows = math.ceil(len(codes) / columns)
    total = (max(left + columns * (width + 14), 420.0), top + rows * (height + 34) + 12)
    parts.append(svg.text(12, top + height / 2 + 6, "JS (nats)", size=8, anchor="middle", turn=-90, colour=svg.MUTED))
    words = ["decoder layer", "shaded: 95 % interval", "yellow: suggested", *_note(profiles)]
    parts.append(svg.text(left, total[1] - 6, "; ".join(words), size=8, colour=svg.MUTED))
    return svg.document(*total, parts, title="JS divergence to the anchor by layer, a panel per language")


def _overview(profiles: Sequence[Profile]) -> str:
    """A panel per profile: one thin line per language, their mean thick."""
    width, height, left, top = 230.0, 170.0, 44.0, 30.0
    stacks = [np.stack([profile.measures["js"][code][0] for code in _codes(profile)]) for profile in profiles]
    highest = max(float(np.nanmax(stack)) for stack in stacks)
    parts = []
    for index, (profile, stack) in enumerate(zip(profiles, stacks, strict=True)):
        x0 = left + index * (width + 22)
        x = svg.Scale((min(profile.layers), max(profile.layers)), (x0, x0 + width))
        y = svg.Scale((0.0, highest * 1.04), (top + height, top))
        parts.append(_band(profiles[0], x, y))
        steps = svg.ticks(0, highest, 5)
        parts.append(svg.axes(x, y, x_ticks=_layer_ticks(profile.layers, 8), y_ticks=steps, y_labels=index == 0))
        colour = CATEGORIES[index % len(CATEGORIES)]
        for code, row in zip(_codes(profile), stack, strict=True):
            points = [(x(layer), y(value)) for layer, value in zip(profile.layers, row, strict=True)]
            dash = "2.5 1.8" if code in (profile.unseen or ()) else ""
            parts.append(svg.line(points, colour, width=0.7, opacity=0.55, dash=dash))
        mean = [(x(layer), y(value)) for layer, value in zip(profile.layers, np.nanmean(stack, axis=0), strict=True)]
        parts.append(svg.line(mean, colour, width=2.4))
        parts.append(svg.text(x0, top - 10, f"{profile.label} ({len(stack)} languages)", size=10, bold=True))
    parts.append(svg.text(14, top + height / 2, "JS (nats)", size=9, anchor="middle", turn=-90, colour=svg.MUTED))
    words = ["decoder layer", "a line per language, thick: their mean", "yellow: suggested"]
    words += ["dashed: never seen in training"] if any(profile.unseen for profile in profiles) else []
    parts.append(svg.text(left, top + height + 30, "; ".join(words), size=8, colour=svg.MUTED))
    total = left + len(profiles) * (width + 22)
    return svg.document(total, top + height + 40, parts, title="JS divergence to the anchor by layer, all languages")


def _layers(profiles: Sequence[Profile]) -> str:
    """Language x layer, a map per profile on one scale, the farthest languages on top."""
    key = "js" if any(_codes(profile) for profile in profiles) else "entropy"
    codes = _codes(profiles[0])[::-1] if key == "js" else list(profiles[0].languages)
    tables = [
        np.stack(
            [p.measures[key][code][0] if code in p.measures[key] else np.full(len(p.layers), np.nan) for code in codes]
        )
        for p in profiles
    ]
    top_value = max(float(np.nanmax(table)) for table in tables)
    cell = (min(14.0, 260 / len(profiles[0].layers)), 11.0)
    left, top, gap = 108.0, 28.0, 18.0
    width = cell[0] * len(profiles[0].layers)
    parts = [
        svg.text(left - 5, top + (row + 0.78) * cell[1], _name(profiles[0], code), size=8, anchor="end")
        for row, code in enumerate(codes)
    ]
    for index, (profile, table) in enumerate(zip(profiles, tables, strict=True)):
        x0 = left + index * (width + gap)
        parts.append(svg.text(x0, top - 8, profile.label, size=10, bold=True))
        parts.append(svg.heat_map(x0, top, cell, table.tolist(), _sequential(top_value)))
        for tick in _layer_ticks(profile.layers, 5):
            place = x0 + (profile.layers.index(int(tick)) + 0.5) * cell[0] if int(tick) in profile.layers else None
            if place is not None:
                y = top + len(codes) * cell[1] + 11
                parts.append(svg.text(place, y, f"{tick:g}", size=7.5, anchor="middle", colour=svg.MUTED))
    bottom = top + len(codes) * cell[1]
    name = next(measure for measure in MEASURES if measure.key == key)
    parts.append(_scale_bar(left, bottom + 24, SEQUENTIAL, "0", f"{top_value:.3g} {name.unit}"))
    words = "; ".join(["decoder layer", *_note(profiles)])
    parts.append(svg.text(left + 210, bottom + 31, words, size=8, colour=svg.MUTED))
    total = max(left + len(profiles) * (width + gap), left + 400)
    return svg.document(total, bottom + 44, parts, title=f"{name.name} by language and layer")


def _experts(profiles: Sequence[Profile]) -> str:
    """Layer x expert: the anchor's mean routing, and how the farthest language differs from it, per profile."""
    first = profiles[0]
    farthest = _codes(first)[-1] if _codes(first) else None
    cell = (min(12.0, 330 / int(first.model["experts"])), min(12.0, 220 / len(first.layers)))
    width, height = cell[0] * int(first.model["experts"]), cell[1] * len(first.layers)
    left, top = 44.0, 28.0
    parts = []
    changes = [_change(profile, farthest) for profile in profiles]
    # One scale for all profiles, so that what alignment took away is seen to be gone.
    largest = max((float(np.abs(change).max()) for change in changes if change is not None), default=0.0) or 1.0
    shown = first.anchor
    highest = max(float(profile.mean[list(profile.languages).index(shown)].max()) for profile in profiles)
    for index, (profile, change) in enumerate(zip(profiles, changes, strict=True)):
        rows = list(profile.languages)
        y0 = top + index * (height + 50)
        base = profile.mean[rows.index(shown)].astype(np.float64)
        panels: list[tuple[str, Table, Callable[[float], str]]] = [
            (f"{profile.label}: {_name(profile, shown)} (dark 0, bright {highest:.2g})", base, _sequential(highest))
        ]
        if change is not None and farthest is not None:
            label = f"{_name(profile, farthest)} − {_name(profile, shown)} (blue less, orange more, to ±{largest:.2g})"
            panels.append((label, change, _diverging(largest)))
        for number, (label, table, colour) in enumerate(panels):
            x0 = left + number * (width + 40)
            parts.append(svg.text(x0, y0 - 7, label, size=9, bold=True))
            parts.append(svg.heat_map(x0, y0, cell, table.tolist(), colour))
            for tick in _layer_ticks(profile.layers, 5):
                if int(tick) in profile.layers:
                    y = y0 + (profile.layers.index(int(tick)) + 0.5) * cell[1] + 2.5
                    parts.append(svg.text(x0 - 4, y, f"{tick:g}", size=7.5, anchor="end", colour=svg.MUTED))
            parts.append(svg.text(x0, y0 + height + 12, "expert →   rows: decoder layer", size=8, colour=svg.MUTED))
    total = max(left + 2 * (width + 40), 560.0)
    return svg.document(total, top + len(profiles) * (height + 50), parts, title="Mean routing by layer and expert")


def _change(profile: Profile, code: str | None) -> Table | None:
    """(layers, experts): the mean routing of a language less the anchor's; None where the profile lacks one of them."""
    rows = list(profile.languages)
    if code not in rows or profile.anchor not in rows or code == profile.anchor:
        return None
    change: Table = profile.mean[rows.index(code)].astype(np.float64) - profile.mean[rows.index(profile.anchor)]
    return change


def _similarity(profiles: Sequence[Profile]) -> str:
    """Language-to-language divergence, mean over layers, in the first profile's order."""
    between = [profile.between for profile in profiles]
    order = [between[0].order[index] for index in similarity_order(between[0].js)]
    tables = []
    for one in between:
        place = [one.order.index(code) if code in one.order else -1 for code in order]
        table = np.full((len(order), len(order)), np.nan)
        for row, a in enumerate(place):
            for column, b in enumerate(place):
                table[row, column] = one.js[a, b] if min(a, b) >= 0 else np.nan
        tables.append(table)
    top_value = max(float(np.nanmax(table)) for table in tables) if order else 1.0
    cell, left, top, gap = 10.0, 112.0, 100.0, 24.0
    size = cell * len(order)
    parts = []
    for row, code in enumerate(order):
        parts.append(svg.text(left - 5, top + (row + 0.8) * cell, _name(profiles[0], code), size=7.5, anchor="end"))
    for index, (profile, table) in enumerate(zip(profiles, tables, strict=True)):
        x0 = left + index * (size + gap)
        parts.append(svg.text(x0, 14, profile.label, size=10, bold=True))
        parts.append(svg.heat_map(x0, top, (cell, cell), table.tolist(), _sequential(top_value, invert=True)))
        for column, code in enumerate(order):
            x = x0 + (column + 0.8) * cell
            parts.append(svg.text(x, top - 5, _name(profiles[0], code), size=7.5, turn=-60))
    parts.append(
        _scale_bar(
            left, top + size + 14, SEQUENTIAL[::-1], "0 (same routing)", f"{top_value:.3g} nats, mean over layers"
        )
    )
    total = max(left + len(profiles) * (size + gap) + 40, left + 360)
    return svg.document(
        total, top + size + 36, parts, title="JS divergence between languages, similar ones side by side"
    )


def _accuracy(profiles: Sequence[Profile], results: Results) -> str:
    """JS over the suggested layers (all, when there are none) against accuracy, a point per language and profile."""
    width, height, left, top = 380.0, 240.0, 50.0, 34.0
    chosen = profiles[0].suggested.get("layers") or profiles[0].layers
    rows = [index for index, layer in enumerate(profiles[0].layers) if layer in chosen]
    points: list[tuple[int, str, float, float, tuple[float, float]]] = []
    for number, profile in enumerate(profiles):
        for code, (n, correct) in results.accuracy.get(profile.label, {}).items():
            table: Any = profile.measures.get("js", {}).get(code)
            if table is not None and np.isfinite(table[0, rows]).any():
                points.append((number, code, float(np.nanmean(table[0, rows])), correct / n, wilson(n, correct)))
    right = max((point[2] for point in points), default=1.0) * 1.08
    ends = [end for point in points for end in point[4]] + ([] if results.chance is None else [results.chance])
    # Whole tenths around what is shown: differences of a few points would vanish between 0 and 1.
    bottom, ceiling = math.floor(min(ends, default=0.0) * 10) / 10, math.ceil(max(ends, default=1.0) * 10) / 10
    x = svg.Scale((0.0, right), (left, left + width))
    y = svg.Scale((bottom, ceiling), (top + height, top))
    parts = [svg.axes(x, y, x_ticks=svg.ticks(0, right, 5), y_ticks=svg.ticks(bottom, ceiling, 5))]
    at = left
    for number, profile in enumerate(profiles):
        parts += [_mark(number, at + 4, 13), svg.text(at + 12, 16, profile.label, size=9)]
        at += 26 + 5.2 * len(profile.label)
    if results.chance is not None:
        level = y(results.chance)
        parts.append(svg.line([(left, level), (left + width, level)], svg.MUTED, width=0.8, dash="3 2"))
        parts.append(svg.text(left + width + 3, level + 2.5, "chance", size=7, colour=svg.MUTED))
    for number, _, js, _, (low, high) in points:
        colour = CATEGORIES[number % len(CATEGORIES)]
        parts.append(svg.line([(x(js), y(low)), (x(js), y(high))], colour, width=0.8, opacity=0.5))
    marks = [(x(js), y(share)) for _, _, js, share, _ in points]
    taken: list[tuple[float, float]] = []
    for (number, code, *_), (across, down) in zip(points, marks, strict=True):
        parts.append(_mark(number, across, down))
        place = _free_place(across, down, [*taken, *((px - 8, py + 2.5) for px, py in marks)])
        if place is not None:
            taken.append(place)
            parts.append(svg.text(*place, code.split("_")[0], size=7, colour=svg.INK))
    span = f"layers {min(chosen)} to {max(chosen)}"
    parts.append(
        svg.text(left + width / 2, top + height + 30, f"mean JS to the anchor, {span} (nats)", anchor="middle")
    )
    what = "accuracy" if results.benchmark is None else f"accuracy, {results.benchmark}"
    parts.append(svg.text(14, top + height / 2, what, anchor="middle", turn=-90))
    return svg.document(left + width + 40, top + height + 42, parts, title="Divergence of routing against accuracy")


def _free_place(x: float, y: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Where a label of a few letters at the point (x, y) meets none of those `taken`; None when all places do."""
    ways = [(dx, dy) for dy in (-4.0, 9.0, -11.0, 16.0) for dx in (5.0, -17.0)]
    places = [(x + dx, y + dy) for dx, dy in ways]
    return next(
        (place for place in places if all(abs(place[0] - a) >= 14 or abs(place[1] - b) >= 7 for a, b in taken)), None
    )


def _mark(number: int, x: float, y: float) -> str:
    """The mark of a profile at (x, y): a circle, a square, a triangle, a diamond, in its colour."""
    colour = CATEGORIES[number % len(CATEGORIES)]
    corners = (
        None,
        ((-2.6, -2.6), (2.6, -2.6), (2.6, 2.6), (-2.6, 2.6)),
        ((0.0, -3.4), (3.2, 2.6), (-3.2, 2.6)),
        ((0.0, -3.6), (3.6, 0.0), (0.0, 3.6), (-3.6, 0.0)),
    )[number % 4]
    if corners is None:
        return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="3" fill="{colour}"/>'
    return svg.polygon([(x + dx, y + dy) for dx, dy in corners], colour, opacity=1)


def _sequential(top: float, *, invert: bool = False) -> Callable[[float], str]:
    stops = SEQUENTIAL[::-1] if invert else SEQUENTIAL
    return lambda value: ramp(stops, value / top if top > 0 else 0.0)


def _diverging(largest: float) -> Callable[[float], str]:
    return lambda value: ramp(DIVERGING, 0.5 + value / (2 * largest))


def _scale_bar(left: float, top: float, stops: tuple[str, ...], low: str, high: str) -> str:
    """A colour bar of 24 steps with its ends named."""
    start = left + 5 + 4.4 * len(low)
    bar = "".join(svg.rect(start + 4 * step, top, 4.2, 7, ramp(stops, step / 23)) for step in range(24))
    return svg.text(left, top + 7, low, size=8, colour=svg.MUTED) + bar + svg.text(start + 101, top + 7, high, size=8)
