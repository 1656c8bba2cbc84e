"""From the sums of a profile to its numbers: estimates with intervals, shares of experts, the suggested layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from innerlingua.anatomy import MoELayer
from innerlingua.routing.divergence import js_divergence
from innerlingua.routing.profile.bootstrap import interval
from innerlingua.routing.profile.layout import MEASURES, PAIR_MEASURES
from innerlingua.routing.profile.measures import dead_experts, expert_shares, load_variation
from innerlingua.routing.profile.sides import Sides
from innerlingua.routing.profile.suggestion import suggest_layers
from innerlingua.routing.profile.totals import Totals
from innerlingua.routing.profile.windows import Skipped

__all__ = ["Estimates", "assemble", "interval_kind", "numbers"]

# Sampling pushes these to one side (see `bootstrap.interval`); neither is below 0.
_BASIC = ("load_cv", "dead_experts")


@dataclass(frozen=True)
class Estimates:
    """The tensors of a profile, float32: `mean` and `load` (G, L, E), `replicates` by measure (R, G, L)."""

    mean: Tensor
    load: Tensor
    replicates: dict[str, Tensor]


def assemble(
    totals: Totals,
    sides: Sides,
    skipped: Skipped,
    *,
    layers: Sequence[MoELayer],
    depth: int,
    top: int,
    threshold: float,
) -> tuple[dict[str, Any], Estimates]:
    """The part of `profile.json` that is measured, and the tensors beside it.

    A language all of whose pairs were left out has no row; it stays in the counts. At least one target must have pairs.
    """
    languages = [sides.anchor, *sides.targets]
    present = [at for at, number in enumerate(totals.sides) if number]
    names = [languages[at] for at in present]
    estimates, spread = _estimates(totals, present, top=top, threshold=threshold)
    mean_routing = totals.mean_routing[present]
    curve = estimates["js"][1:].mean(dim=0).tolist()
    suggestion = suggest_layers(curve, [layer.index for layer in layers], depth)
    record = {
        "anchor": sides.anchor,
        "data": _data_record(sides, totals, skipped),
        "languages": {
            languages[at]: {
                "name": sides.names[languages[at]],
                "pairs": totals.sides[at],
                "tokens": totals.tokens[at],
                "anchor_tokens": totals.anchor_tokens[at],
                "ids_digest": f"{totals.digests[at]:016x}",
            }
            for at in present
        },
        "measures": _measures_record(names, estimates, spread, [totals.sides[at] for at in present], mean_routing),
        "between_languages": _between_record(totals, names, present),
        "suggested_layers": {"layers": suggestion.layers, "trough": suggestion.trough, "rule": suggestion.rule},
    }
    counts = totals.counts.cpu()[present]
    load = counts / counts.sum(dim=-1, keepdim=True)
    replicates = {name: values.float().contiguous() for name, values in spread.items()}
    return record, Estimates(mean_routing.float().contiguous(), load.float().contiguous(), replicates)


def interval_kind(name: str) -> Literal["percentile", "basic"]:
    """The kind of bootstrap interval that suits the measure `name`."""
    return "basic" if name in _BASIC else "percentile"


def _estimates(
    totals: Totals, present: list[int], *, top: int, threshold: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By measure, the estimates (G, L) and the replicates (R, G, L), of the languages that are `present`."""
    estimates: dict[str, Tensor] = {}
    spread: dict[str, Tensor] = {}
    for name in (*PAIR_MEASURES, "entropy"):
        point, draws = totals.ratios(name)
        estimates[name], spread[name] = point[present], draws[:, present]
    counts = totals.counts.cpu()[present]
    of_counts: dict[str, list[Tensor]] = {name: [] for name in MEASURES if name not in estimates}
    # Replicate by replicate: all of them in double precision would be twice the largest tensor of the profile.
    for draw in range(-1, totals.replicates):
        drawn = counts if draw < 0 else totals.replicate_counts[present, draw].cpu().double().view(counts.shape)
        shared, exclusive = expert_shares(drawn, top=top, threshold=threshold)
        found = (load_variation(drawn), dead_experts(drawn).double(), shared, exclusive)  # as in MEASURES
        for values, value in zip(of_counts.values(), found, strict=True):
            values.append(value)
    for name, values in of_counts.items():
        estimates[name], spread[name] = values[0], torch.stack(values[1:])
    return estimates, spread


def _measures_record(
    names: Sequence[str],
    estimates: Mapping[str, Tensor],
    spread: Mapping[str, Tensor],
    sentences: Sequence[int],
    mean_routing: Tensor,
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name in MEASURES:
        point = estimates[name]
        low, high = interval(spread[name], point, kind=interval_kind(name))
        if name in _BASIC:
            low, high = low.clamp(min=0.0), high.clamp(min=0.0)
        record[name] = {
            language: None
            if at == 0 and name in PAIR_MEASURES
            # One sentence has no spread.
            else {
                "mean": numbers(point[at]),
                "low": numbers(low[at]) if sentences[at] > 1 else None,
                "high": numbers(high[at]) if sentences[at] > 1 else None,
            }
            for at, language in enumerate(names)
        }
    of_means = js_divergence(mean_routing, mean_routing[:1])
    record["js_of_means"] = {
        language: {"mean": numbers(of_means[at]), "low": None, "high": None} if at else None
        for at, language in enumerate(names)
    }
    return record


def _between_record(totals: Totals, names: list[str], present: list[int]) -> dict[str, Any]:
    found = totals.between()
    mean, by_layer = found.mean[present][:, present], found.by_layer[:, present][:, :, present]
    low, high = interval(found.replicates[:, present][:, :, present], mean)
    ids = found.ids[present][:, present]
    # One common sentence has no spread, and neither has a language beside itself.
    sure = (ids > 1) & ~torch.eye(len(names), dtype=torch.bool)
    return {
        "order": names,
        "js": [numbers(row) for row in mean],
        "low": [numbers(row) for row in low.where(sure, torch.nan)],
        "high": [numbers(row) for row in high.where(sure, torch.nan)],
        "js_by_layer": [[numbers(row) for row in layer] for layer in by_layer],
        "ids": [[int(number) for number in row] for row in ids.tolist()],
    }


def _data_record(sides: Sides, totals: Totals, skipped: Skipped) -> dict[str, Any]:
    return {
        "files": sides.files,
        "ids_read": sides.ids if sides.limit is None else min(sides.ids, sides.limit),
        "pairs_read": skipped.read,
        "pairs": sum(totals.sides[1:]),
        "excluded_rows": sides.excluded,
        "skipped": {
            "missing_side": {code: number for code, number in sorted(skipped.missing_side.items()) if number},
            "without_anchor": sum(skipped.without_anchor.values()),
            "empty": sum(skipped.empty.values()),
            "overlong": sum(skipped.overlong.values()),
        },
        "skipped_by_language": {
            "without_anchor": dict(sorted(skipped.without_anchor.items())),
            "empty": dict(sorted(skipped.empty.items())),
            "overlong": dict(sorted(skipped.overlong.items())),
        },
        "same_as_anchor": dict(sorted(skipped.same_as_anchor.items())),
    }


def numbers(values: Tensor) -> list[float | None]:
    """A row of numbers for JSON, with eight digits; what is no number is null."""
    return [float(f"{value:.8g}") if value == value else None for value in values.tolist()]
