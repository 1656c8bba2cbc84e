"""The figure: JS to English by layer, one panel per language, one line per run, as plain SVG."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, GAP = 250, 190, 48, 40, 34
STYLES = {  # run -> (label, colour, dashes)
    "base": ("base", "#777777", ""),
    "sft": ("plain tuning", "#4477aa", ""),
    "sara": ("SARA, weight 1.5", "#cc3311", ""),
    "sara_shuffled": ("weight 1.5, shuffled anchors", "#cc3311", "2 3"),
    "sara_20": ("SARA, weight 20", "#882299", ""),
    "sara_20_shuffled": ("weight 20, shuffled anchors", "#882299", "2 3"),
}


def curves_svg(
    curves: Mapping[str, Mapping[str, Mapping[str, float]]],
    names: Mapping[str, str],
    *,
    aligned: Sequence[int],
    title: str,
) -> str:
    """An SVG of `{run: {language: {layer: JS}}}`; `names` gives the panels, in order; aligned layers are shaded."""
    runs = [run for run in STYLES if run in curves]
    layers = [int(layer) for layer in next(iter(curves[runs[0]].values()))]
    top = max(max(found.values()) for run in runs for found in curves[run].values()) * 1.05
    step = 0.1 if top > 0.25 else 0.05 if top > 0.1 else 0.01
    span = max(1, layers[-1] - layers[0])
    columns = 3
    rows = -(-(len(names) + 1) // columns)
    total_width = columns * (WIDTH + LEFT) + 20
    total_height = TOP + rows * (HEIGHT + GAP + 26)

    def x(panel_left: float, layer: float) -> float:
        return panel_left + WIDTH * (0.03 + 0.94 * (layer - layers[0]) / span)

    def y(panel_top: float, value: float) -> float:
        return panel_top + HEIGHT * (1 - value / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_width}" height="{total_height}" '
        f'viewBox="0 0 {total_width} {total_height}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{total_width}" height="{total_height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" fill="#222222">{escape(title)}</text>',
    ]
    for position, (language, name) in enumerate(names.items()):
        left = LEFT + (position % columns) * (WIDTH + LEFT)
        panel_top = TOP + 18 + (position // columns) * (HEIGHT + GAP + 26)
        half = 0.5 * 0.94 * WIDTH / span
        band_left = max(left, x(left, aligned[0]) - half)
        band_right = min(left + WIDTH, x(left, aligned[-1]) + half)
        parts += [
            f'<rect x="{band_left:.1f}" y="{panel_top}" width="{band_right - band_left:.1f}" height="{HEIGHT}" '
            'fill="#f1eee2"/>',
            f'<rect x="{left}" y="{panel_top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999999"/>',
            f'<text x="{left}" y="{panel_top - 6}" fill="#222222" font-weight="bold">{escape(name)}</text>',
        ]
        for tick in range(int(top / step) + 1):
            height = y(panel_top, tick * step)
            parts += [
                f'<line x1="{left - 4}" x2="{left}" y1="{height:.1f}" y2="{height:.1f}" stroke="#999999"/>',
                f'<text x="{left - 6}" y="{height + 4:.1f}" text-anchor="end" fill="#555555" font-size="10">'
                f"{tick * step:.{2 if step < 0.1 else 1}f}</text>",
            ]
        for layer in layers:
            parts.append(
                f'<text x="{x(left, layer):.1f}" y="{panel_top + HEIGHT + 14}" text-anchor="middle" fill="#555555" '
                f'font-size="10">{layer}</text>'
            )
        for run in runs:
            _, colour, dashes = STYLES[run]
            points = " ".join(
                f"{x(left, int(layer)):.1f},{y(panel_top, value):.1f}" for layer, value in curves[run][language].items()
            )
            dash = f' stroke-dasharray="{dashes}"' if dashes else ""
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
    position = len(names)
    left = LEFT + (position % columns) * (WIDTH + LEFT)
    line = TOP + 36 + (position // columns) * (HEIGHT + GAP + 26)
    for run in runs:
        label, colour, dashes = STYLES[run]
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts += [
            f'<line x1="{left}" x2="{left + 30}" y1="{line - 4}" y2="{line - 4}" stroke="{colour}" '
            f'stroke-width="2"{dash}/>',
            f'<text x="{left + 38}" y="{line}" fill="#222222">{escape(label)}</text>',
        ]
        line += 20
    for note in ("across: decoder layer", "up: JS to English, nats, mean over pairs", "shaded: aligned layers"):
        parts.append(f'<text x="{left}" y="{line + 8}" fill="#555555">{escape(note)}</text>')
        line += 18
    return "\n".join([*parts, "</svg>", ""])
