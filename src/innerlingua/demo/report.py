"""The demo's result as one self-contained page: JS-per-layer curves as inline SVG, the table, and what it means.

No script, no font, no address outside the page. Each run has a colour, a dash pattern and a marker, so that the curves
can be told apart without colour; every colour has a contrast of at least 4.5 to its background, light or dark.
"""

from __future__ import annotations

import html
from typing import Any

__all__ = ["LABELS", "render_report"]

#: Run to its name in tables and curves.
LABELS = {"base": "base", "sft": "plain SFT", "sara": "SARA", "sara_shuffled": "SARA, shuffled"}

_DASHES = {"base": "2 4", "sft": "8 4", "sara": "", "sara_shuffled": "10 3 2 3"}
_WIDTH, _HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 34

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --faint: #595959; --line: #c9c9c9; --band: #eef3f8;
  --base: #5f5f5f; --sft: #a85400; --sara: #005a9c; --sara_shuffled: #9c3f78; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --paper: #16181b; --faint: #b3b3b3; --line: #4a4d52;
  --band: #22282f; --base: #b5b5b5; --sft: #f0a53a; --sara: #6cbcf0; --sara_shuffled: #e29ac4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p, ul { max-width: 46rem; }
.note { border-left: 4px solid var(--sft); padding: .25rem .75rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .4rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { white-space: normal; vertical-align: bottom; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--faint); font: 11px system-ui, sans-serif; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; list-style: none; max-width: none; }
.legend svg { display: inline-block; width: 3.2rem; height: 1rem; vertical-align: middle; margin-right: .4rem; }
@media (max-width: 40rem) { table { font-size: .875rem; } th, td { padding: .3rem .4rem; }
  th[scope=row] { white-space: normal; } ul { padding-left: 1.2rem; } }
code { overflow-wrap: anywhere; } footer { color: var(--faint); margin-top: 2.5rem; font-size: .875rem; }
"""


def render_report(result: dict[str, Any]) -> str:
    """The page for a result as `run_demo` writes it."""
    runs = result["runs"]
    top = max(value for run in runs.values() for row in run["js"].values() for value in row.values())
    panels = "".join(_panel(code, name, result, top) for code, name in result["languages"].items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>innerlingua demo: what routing alignment did</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>What routing alignment did to a tiny Mixture-of-Experts model</h1>
{_introduction(result)}
<h2>Results</h2>
<div class="wide" tabindex="0">{_main_table(result)}</div>
{_reading(result)}
<h2>Divergence from the English routing, layer by layer</h2>
<p>Each point is the mean over held-out pairs of the Jensen-Shannon divergence between the routing of a question with
its answer and the routing of the same in English, in nats: 0 means the same experts to the same extent, 0.693 (ln 2)
means none in common. The shaded layers are those that the term aligns.</p>
{_legend()}
<div class="panels">{panels}</div>
<h2>The same as numbers</h2>
<div class="wide" tabindex="0">{_js_table(result)}</div>
<h2>Held-out questions by language</h2>
<div class="wide" tabindex="0">{_language_table(result)}</div>
</main>
<footer><p>Made by <code>{html.escape(result["command"])}</code>; {_versions(result)}.</p></footer>
</body>
</html>
"""


def _introduction(result: dict[str, Any]) -> str:
    facts, settings = result["facts"], result["settings"]
    names = list(result["languages"].values())
    spread, languages = settings["base"]["coverage"], f"{', '.join(names[:-1])} and {names[-1]}"
    text = f"""<p>A Qwen3-MoE of {result["parameters"] / 1e6:.1f} million parameters learned {facts["all"]} invented
facts from scratch: all of them in English, {facts["trained"]} of them also in {spread} of {len(names)} target languages
({languages}). The other {facts["held_out"]} facts stand in English alone. From that one base, three runs of
{settings["steps"]} steps on the same questions and answers in the target languages: plain fine-tuning (SFT); SARA,
which also pulls the routing of each row towards that of its English version (weight {settings["weight"]:g}, chosen for
this tiny model on development seeds); and a control whose rows are pulled towards the English of another fact.</p>"""
    if not result["base"]["learned"]:
        english, trained = result["base"]["english"], result["base"]["trained"]
        text += f"""<p class="note"><strong>The base did not learn its world</strong>: {english:.3f} correct in English
on the held-out facts and {trained:.3f} in the target languages on the facts that they state, where 0.9 of each is
needed. What follows says nothing about the method.</p>"""
    if result["quick"]:
        text += '<p class="note">This is the quick version: it shows every part and proves nothing.</p>'
    return text


def _reading(result: dict[str, Any]) -> str:
    runs = {name: run["summary"] for name, run in result["runs"].items()}
    js = {name: summary["js"] for name, summary in runs.items()}
    held_out = runs["base"]["held_out"]
    shares = {name: value / js["base"] for name, value in js.items()}
    return f"""<ul>
<li>The divergence in the aligned layers, as a share of the base's: {shares["sft"]:.2f} after plain fine-tuning,
{shares["sara"]:.2f} after SARA, {shares["sara_shuffled"]:.2f} with shuffled anchors. What the control reaches needs no
shared meaning: the English routing in general is enough for it.</li>
<li>Held-out facts: {held_out["n"]} questions over all target languages, the right answer to be found among the answers
of its kind; blind guessing gives {held_out["chance"]:.3f}. Where the intervals of two runs overlap widely, this demo
saw no difference between them. It promises the routing, not the accuracy.</li>
<li>The runs train on target-language rows alone, so English can fade. Of the held-out facts, asked in English, the base
answers {runs["base"]["english"]["accuracy"]:.3f}, plain fine-tuning {runs["sft"]["english"]["accuracy"]:.3f}, SARA
{runs["sara"]["english"]["accuracy"]:.3f}.</li>
<li>One seed, one tiny model, an invented world: this shows what the term does, not what it is worth on a real one.</li>
</ul>"""


def _main_table(result: dict[str, Any]) -> str:
    rows = []
    for name, run in result["runs"].items():
        summary = run["summary"]
        low, high = summary["held_out"]["interval_95"]
        cells = (
            f"{summary['js']:.4f}",
            f"{summary['held_out']['accuracy']:.3f}",
            f"{low:.3f}–{high:.3f}",
            f"{summary['english']['accuracy']:.3f}",
            f"{summary['trained']['accuracy']:.3f}",
            f"{run['seconds_per_step']:.3f}",
        )
        rows.append([LABELS[name], *cells])
    summary = result["runs"]["base"]["summary"]
    caption = (
        f"n: {summary['held_out']['n']} held-out questions (chance {summary['held_out']['chance']:.3f}), "
        f"{summary['english']['n']} in English, {summary['trained']['n']} on trained facts"
    )
    heads = [
        "run",
        f"JS to the anchor, layers {', '.join(map(str, result['aligned_layers']))} (nats)",
        "held-out facts, target languages",
        "95 % interval",
        "the same facts, in English",
        "trained facts, target languages",
        "seconds per step",
    ]
    return _table(caption, heads, rows)


def _js_table(result: dict[str, Any]) -> str:
    rows = [
        [f"{language}, {LABELS[name]}", *(f"{run['js'][code][str(layer)]:.4f}" for layer in result["layers"])]
        for code, language in result["languages"].items()
        for name, run in result["runs"].items()
    ]
    return _table("JS to the anchor, nats", ["language, run", *(f"layer {layer}" for layer in result["layers"])], rows)


def _language_table(result: dict[str, Any]) -> str:
    rows = [
        [language, *(_share(run["accuracy"][code]) for run in result["runs"].values())]
        for code, language in result["languages"].items()
    ]
    return _table("correct of n, held-out facts", ["language", *(LABELS[name] for name in result["runs"])], rows)


def _share(counts: dict[str, int]) -> str:
    return f"{counts['correct']} of {counts['n']}"


def _table(caption: str, heads: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _legend() -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 52 16" aria-hidden="true">{_line(name, "4,8 48,8")}{_marker(name, 26, 8)}</svg>'
        f"{label}</li>"
        for name, label in LABELS.items()
    )
    return f'<ul class="legend">{items}</ul>'


def _panel(code: str, language: str, result: dict[str, Any], top: float) -> str:
    layers, aligned = result["layers"], result["aligned_layers"]
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(layers))
    floor, span = _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM - _TOP
    ceiling = _ceiling(top)

    def x(position: int) -> float:
        return _LEFT + (position + 0.5) * step

    def y(value: float) -> float:
        return floor - value / ceiling * span

    parts = [
        f'<rect x="{_LEFT + position * step:.1f}" y="{_TOP}" width="{step:.1f}" height="{span}" fill="var(--band)"/>'
        for position, layer in enumerate(layers)
        if layer in aligned
    ]
    for quarter in range(5):
        value = ceiling * quarter / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="var(--line)"/>'
            f'<text x="{_LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for position, layer in enumerate(layers):
        parts.append(f'<text x="{x(position):.1f}" y="{floor + 15}" text-anchor="middle">{layer}</text>')
    parts.append(f'<text x="{_LEFT + (_WIDTH - _LEFT) / 2:.0f}" y="{_HEIGHT - 3}" text-anchor="middle">layer</text>')
    said = []
    for name, run in result["runs"].items():
        values = [run["js"][code][str(layer)] for layer in layers]
        points = [(x(position), y(value)) for position, value in enumerate(values)]
        parts.append(_line(name, " ".join(f"{px:.1f},{py:.1f}" for px, py in points)))
        for layer, value, (px, py) in zip(layers, values, points, strict=True):
            parts.append(_marker(name, px, py, title=f"{LABELS[name]}, layer {layer}: {value:.4f}"))
        said.append(f"{LABELS[name]} from {values[0]:.3f} to {values[-1]:.3f}")
    label = html.escape(f"{language}: JS by layer. {'; '.join(said)}.")
    return (
        f'<figure><figcaption>{html.escape(language)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg></figure>'
    )


def _ceiling(top: float) -> float:
    """The lowest of 1, 2, 4, 6, 8 × a power of ten that is at least `top`: its quarters are short numbers."""
    scale = 1.0
    while scale > top > 0:
        scale /= 10
    return next((factor * scale for factor in (1, 2, 4, 6, 8, 10) if factor * scale >= top), 1.0)


def _line(name: str, points: str) -> str:
    return (
        f'<polyline points="{points}" fill="none" stroke="var(--{name})" stroke-width="2" '
        f'stroke-dasharray="{_DASHES[name]}"/>'
    )


def _marker(name: str, x: float, y: float, *, title: str = "") -> str:
    shapes = {
        "base": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"',
        "sft": f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"',
        "sara": f'<path d="M{x:.1f} {y - 4.5:.1f}l4.5 8h-9z"',
        "sara_shuffled": f'<path d="M{x:.1f} {y - 5:.1f}l5 5-5 5-5-5z"',
    }
    inside = f"<title>{html.escape(title)}</title>" if title else ""
    tag = shapes[name].split()[0][1:]
    return f'{shapes[name]} fill="var(--{name})">{inside}</{tag}>'


def _versions(result: dict[str, Any]) -> str:
    return ", ".join(f"{html.escape(name)} {html.escape(number)}" for name, number in result["versions"].items())
