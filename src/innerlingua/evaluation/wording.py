"""Differences in words: what was found, or that nothing could have been."""

from __future__ import annotations

from typing import Literal

__all__ = ["Verdict", "digits_for", "p_text", "points", "sentence", "verdict", "without_answer"]

Verdict = Literal["better", "worse", "noise", "uncorrected", "same"]
"""better and worse: p after correction is at most alpha. uncorrected: only before correction it is. same: no sample
differs. noise: none of these."""


def verdict(difference: float, p: float, corrected: float, *, alpha: float, same: bool) -> Verdict:
    """What a difference is, by its p-value before and after correction."""
    if same:
        return "same"
    if corrected <= alpha:
        return "better" if difference > 0 else "worse"
    return "uncorrected" if p <= alpha else "noise"


def digits_for(standard_errors: list[float]) -> int:
    """Decimals to print for points of 100: one, two where the smallest standard error is below a fifth of a point."""
    return 2 if any(0 < error < 0.2 for error in standard_errors) else 1


def points(value: float, digits: int, *, signed: bool = False) -> str:
    """A number of points with a true minus sign; never "-0.0"."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "\u2212")


def p_text(p: float) -> str:
    """A p-value in three decimals, `<.001` below them."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"


def without_answer(measure: str) -> str:
    """What precedes the counts of samples that were cut, unparsed or overlong, by what they are scored by."""
    if measure in ("chrF++", "BLEU"):
        return "not whole translations, scored as far as they go"
    return "without an answer, scored 0"


def sentence(
    found: Verdict,
    *,
    baseline: str,
    method: str,
    difference: float,
    interval: tuple[float, float] | None,
    level: float,
    p: float,
    corrected: float,
    tests: int,
    smallest: float | None,
    samples: int,
    clusters: int,
    runs: tuple[int, int],
    at_chance: float | None,
    digits: int,
) -> str:
    """One row of a comparison in words. All differences in points.

    Args:
        found: the verdict.
        baseline, method: labels; the difference is of `method` to `baseline`.
        difference, interval, level, p, corrected: as computed.
        tests: how many p-values were corrected together.
        smallest: that could be shown; None when none could.
        samples, clusters: how many, and how many of them are independent.
        runs: of the baseline and the method.
        at_chance: the score of a guess, where neither score can be told from it.
        digits: decimals of points.
    """
    size = points(abs(difference), digits)
    span = "" if interval is None else f", {level:.0%} interval ".replace("%", " %") + _span(interval, digits)
    many = f"these {samples:,} samples" if samples > 1 else "this one sample"
    many += f" ({clusters:,} independent)" if clusters < samples else ""
    many += f" and {runs[0]} + {runs[1]} runs" if max(runs) > 1 else ""
    limit = (
        f"; the smallest they could show is {points(smallest, digits)} points"
        if smallest is not None
        else f"; {'they are' if samples > 1 else 'it is'} too few to show any"
    )
    if found == "same":
        where = f"each of {samples:,} samples" if samples > 1 else "the one sample"
        text = f"{method} has the same score as {baseline} on {where}{limit}"
    elif found == "noise":
        text = f"no difference that {many} could show{limit}"
    elif found == "uncorrected":
        direction = "above" if difference > 0 else "below"
        text = (
            f"{method} is {size} points {direction} {baseline}{span}, but among {tests} tests that is no finding "
            f"(p {p_text(p)} alone, {p_text(corrected)} corrected){limit}"
        )
    else:
        text = f"{method} is {found} than {baseline} by {size} points{span}, p {p_text(corrected)}"
        text += f" corrected for {tests} tests" if tests > 1 else ""
        if smallest is not None and abs(difference) < smallest:
            # Of effects that a study can barely find, those that it finds are too large (Gelman and Carlin, 2014).
            text += (
                f". Likely less in truth: {many} find a difference reliably only from {points(smallest, digits)} "
                "points on, and what is found below that tends to be exaggerated"
            )
    if at_chance is not None:
        text += f". Neither score can be told from guessing ({points(at_chance, digits)})"
    return text


def _span(interval: tuple[float, float], digits: int) -> str:
    return f"{points(interval[0], digits, signed=True)} to {points(interval[1], digits, signed=True)}"
