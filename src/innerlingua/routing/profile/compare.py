"""What changed between two profiles of one model family: per language, with an interval of the change.

When both profiles have the same ids in a language and the same bootstrap seed, their replicates drew the same
sentences, and the interval of the change is that of the differences, replicate by replicate (paired). Otherwise the
replicates are combined as if independent. A change counts when its 95 % interval leaves 0 out; over 30 languages one
or two such intervals are to be expected where nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from innerlingua.errors import DataError, ModelError
from innerlingua.routing.profile.bootstrap import interval
from innerlingua.routing.profile.layout import MEASURES
from innerlingua.routing.profile.record import interval_kind
from innerlingua.routing.profile.stream import RoutingProfile
from innerlingua.routing.profile.suggestion import format_layers

__all__ = ["SCHEMA", "compare_profiles"]

SCHEMA = 1

_FAMILY = ("model_type", "layers", "experts", "top_k", "score")
_SHARES = ("shared_experts", "exclusive_experts")


def compare_profiles(a: RoutingProfile, b: RoutingProfile, *, layers: Sequence[int] | None = None) -> dict[str, Any]:
    """The change from `a` to `b`, as plain values for JSON.

    `layers` are the decoder layers that the measures are also averaged over; the layers that `a` suggests by default.
    Per language and measure: `all` and `aligned`, the mean over all layers and over those, and `by_layer`, each with
    `a`, `b`, `change`, `low`, `high`; the first two also with `changed`. `paired` says how the interval was made.

    Raises:
        ModelError: the models are of different families, or `layers` are not layers of theirs.
        DataError: the anchors differ, or no language is in both.
    """
    _check_family(a.record, b.record)
    indices: list[int] = a.record["model"]["layers"]
    aligned = list(layers) if layers is not None else list(a.record["suggested_layers"]["layers"])
    unknown = sorted(set(aligned) - set(indices))
    if unknown or not aligned:
        raise ModelError(
            f"no MoE layer {format_layers(unknown)} in these profiles; they have layers {format_layers(indices)}"
            if unknown
            else "no layer was asked for: name at least one decoder layer, as in 2-5"
        )
    columns = [indices.index(layer) for layer in aligned]
    names_a, names_b = list(a.record["languages"]), list(b.record["languages"])
    common = [name for name in names_a if name in names_b]
    if set(common) <= {a.record["anchor"]}:
        raise DataError(
            f"no language in both profiles: {', '.join(names_a)} in {a.record['label']}, {', '.join(names_b)} in "
            f"{b.record['label']}"
        )
    same_rule = all(a.record["settings"][key] == b.record["settings"][key] for key in ("K", "threshold"))
    # Shares depend on which languages share: they compare only over the same set.
    measures = [name for name in MEASURES if name not in _SHARES or (same_rule and set(names_a) == set(names_b))]
    return {
        "schema": SCHEMA,
        "a": _which(a.record),
        "b": _which(b.record),
        "same_weights": a.record["model"]["weights"] == b.record["model"]["weights"],
        "layers": indices,
        "aligned": aligned,
        "level": a.record["settings"]["level"],
        "languages": {
            name: {
                "name": a.record["languages"][name]["name"],
                "pairs": [profile.record["languages"][name]["pairs"] for profile in (a, b)],
                "paired": _paired(a.record, b.record, name),
                **{
                    measure: change
                    for measure in measures
                    if (change := _change(a, b, name, measure, columns)) is not None
                },
            }
            for name in common
        },
        "only_in_a": [name for name in names_a if name not in names_b],
        "only_in_b": [name for name in names_b if name not in names_a],
        "left_out": [name for name in MEASURES if name not in measures],
    }


def _check_family(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    differing = [
        f"{key} ({a['model'][key]} and {b['model'][key]})" for key in _FAMILY if a["model"][key] != b["model"][key]
    ]
    if differing:
        raise ModelError(
            f"{a['label']} and {b['label']} cannot be compared, because their models differ in {', '.join(differing)}: "
            "layers and experts of one mean nothing in the other. Compare two states of one model"
        )
    if a["anchor"] != b["anchor"]:
        raise DataError(
            f"the anchor is {a['anchor']} in {a['label']} and {b['anchor']} in {b['label']}: profile both with one"
        )


def _which(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": record["label"],
        "model": record["model"]["name"],
        "weights": record["model"]["weights"],
        "files": record["data"]["files"],
        "suggested_layers": record["suggested_layers"]["layers"],
    }


def _paired(a: Mapping[str, Any], b: Mapping[str, Any], language: str) -> bool:
    same_draws = a["seed"] == b["seed"] and a["settings"]["bootstrap"] == b["settings"]["bootstrap"]
    digests = {record["languages"][language]["ids_digest"] for record in (a, b)}
    return same_draws and len(digests) == 1


def _change(
    a: RoutingProfile, b: RoutingProfile, language: str, measure: str, columns: Sequence[int]
) -> dict[str, Any] | None:
    stored = [profile.record["measures"][measure][language] for profile in (a, b)]
    if stored[0] is None or stored[1] is None:
        return None
    points = [_tensor(entry["mean"]) for entry in stored]
    draws = [
        profile.replicates[measure][:, list(profile.record["languages"]).index(language)].double() for profile in (a, b)
    ]
    number = min(len(drawn) for drawn in draws)
    # Neighbouring replicates of two profiles are independent unless both drew the same sentences in them.
    shift = 0 if _paired(a.record, b.record, language) else 1
    spread = draws[1][:number].roll(shift, dims=0) - draws[0][:number]
    whole = list(range(len(points[0])))
    sure = min(profile.record["languages"][language]["pairs"] for profile in (a, b)) > 1
    return {
        "all": _summary(points, spread, whole, measure, sure),
        "aligned": _summary(points, spread, columns, measure, sure),
        "by_layer": _by_layer(points, spread, measure, sure),
    }


def _summary(
    points: Sequence[Tensor], spread: Tensor, columns: Sequence[int], measure: str, sure: bool
) -> dict[str, Any]:
    here = list(columns)
    before, after = (float(point[here].mean()) for point in points)
    change = after - before
    summary = {"a": _round(before), "b": _round(after), "change": _round(change)}
    if not sure:
        return {**summary, "low": None, "high": None, "changed": None}
    low, high = (
        float(bound)
        for bound in interval(spread[:, here].mean(dim=1), torch.tensor(change).double(), kind=interval_kind(measure))
    )
    return {**summary, "low": _round(low), "high": _round(high), "changed": bool(low > 0 or high < 0)}


def _by_layer(points: Sequence[Tensor], spread: Tensor, measure: str, sure: bool) -> dict[str, Any]:
    change = points[1] - points[0]
    low, high = interval(spread, change, kind=interval_kind(measure))
    rows = {"a": points[0], "b": points[1], "change": change, **({"low": low, "high": high} if sure else {})}
    return {name: [_round(value) for value in row.tolist()] for name, row in rows.items()}


def _tensor(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)


def _round(value: float) -> float | None:
    return float(f"{value:.8g}") if value == value else None
