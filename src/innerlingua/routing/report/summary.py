"""What the report derives from profiles and results: measures in words, and how they go with accuracy.

Pearson's r between a measure and accuracy over languages, per layer, is the relation that Bandarkar et al.
(arXiv 2510.04694) report for entropy-normalised divergence. It is a description of few languages, not a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from innerlingua.routing.report.read import Profile
from innerlingua.routing.report.results import Results

__all__ = ["MEASURES", "Measure", "correlations", "measures_of", "wilson"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure in words: its key in the profile, name, unit and what it tells."""

    key: str
    name: str
    unit: str
    meaning: str


MEASURES = (
    Measure(
        "js",
        "JS to the anchor",
        "nats",
        "Jensen-Shannon divergence between a sentence's mean routing and its anchor's, mean over pairs. 0 is the same "
        "routing, ln 2 = 0.693 no expert in common.",
    ),
    Measure(
        "js_normalised",
        "JS, entropy-normalised",
        "share",
        "The same divergence divided by the most it could be at these routing entropies (0 to 1), so that layers with "
        "sharp and with flat routers can be compared.",
    ),
    Measure(
        "js_of_means",
        "JS of corpus means",
        "nats",
        "Divergence between the mean routing of the whole corpus in the language and in the anchor. Differences that "
        "cancel out over sentences do not show.",
    ),
    Measure(
        "overlap",
        "Overlap of top experts",
        "Jaccard",
        "The k experts that a sentence uses most against those of its anchor: shared divided by all, mean over pairs.",
    ),
    Measure(
        "entropy",
        "Routing entropy",
        "nats",
        "Mean entropy of a token's routing: low is decided, ln(experts) is undecided.",
    ),
    Measure(
        "load_cv",
        "Load imbalance",
        "CV",
        "Standard deviation over mean of how often each expert is chosen. 0 is perfect balance.",
    ),
    Measure(
        "dead_experts", "Experts never chosen", "experts", "Experts that no token of the language's corpus selected."
    ),
    Measure(
        "shared_experts",
        "Shared experts",
        "share",
        "Among the language's most used experts, those that several languages use and none owns.",
    ),
    Measure(
        "exclusive_experts",
        "Exclusive experts",
        "share",
        "Among the language's most used experts, those whose use belongs mostly to this language.",
    ),
)


def measures_of(profiles: Sequence[Profile]) -> list[Measure]:
    """The measures that any of the profiles holds, the known ones first, others under their own key."""
    held = {key for profile in profiles for key in profile.measures}
    known = [measure for measure in MEASURES if measure.key in held]
    others = sorted(held - {measure.key for measure in known})
    return known + [Measure(key, key.replace("_", " "), "", "") for key in others]


def correlations(profile: Profile, results: Results, measure: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pearson's r over languages between `measure` and accuracy, and the number of languages, each (layers,).

    The anchor is left out, it is its own reference. NaN with fewer than three languages or where one side is constant.
    """
    accuracy = results.accuracy.get(profile.label, {})
    rows = profile.measures.get(measure, {})
    codes = [code for code in rows if code in accuracy and code != profile.anchor]
    layers = len(profile.layers)
    r, n = np.full(layers, np.nan), np.zeros(layers, dtype=np.int64)
    for layer in range(layers):
        points = [(rows[code][0, layer], accuracy[code][1] / accuracy[code][0]) for code in codes]
        x, y = np.array([point for point in points if np.isfinite(point[0])], dtype=np.float64).reshape(-1, 2).T
        n[layer] = len(x)
        if len(x) >= 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
            r[layer] = np.corrcoef(x, y)[0, 1]
    return r, n


def wilson(n: int, correct: int) -> tuple[float, float]:
    """The 95 % interval of a proportion by Wilson's score (1927), which stays within 0 and 1."""
    z, p = 1.959963984540054, correct / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)
