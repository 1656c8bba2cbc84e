"""Stored profiles, read and checked before anything is drawn.

A profile is a folder with `profile.json` (numbers per language and layer), `profile.safetensors` (mean routing and
load per expert) and, optionally, `samples.json` (sentence pairs kept for a closer look). What is missing, damaged or of
another shape than the rest says is one message with the file and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerlingua.errors import DataError
from innerlingua.routing.profile.stored import read_distributions, read_record, read_samples

__all__ = ["Between", "Profile", "read_profile", "read_profiles"]

INTERVAL = ("mean", "low", "high")


@dataclass(frozen=True, slots=True)
class Between:
    """How far languages are routed from one another.

    Attributes:
        order: language codes of the rows and columns.
        js, low, high: (n, n) mean over layers and its 95 % interval, nats; NaN where two languages share too few ids.
        js_by_layer: (layers, n, n), nats.
        ids: (n, n) shared ids.
    """

    order: list[str]
    js: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    js_by_layer: NDArray[np.float64]
    ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Profile:
    """One profiled model.

    Attributes:
        directory: where it was read from.
        label: what tells it from the others on the page; unique among the profiles of one report.
        model: name, model_type, layers, depth, experts, top_k, score, weights.
        anchor: code of the anchor language.
        languages: code -> name, pairs, tokens, anchor_tokens; its order is the row order of the arrays.
        data: files, pairs_read, skipped, seen_in_training.
        measures: measure -> language -> (3, layers) array of mean, low and high; NaN where not defined.
        mean: (languages, layers, experts) mean routing distribution.
        load: (languages, layers, experts) share of the top-k selections.
        between: language-to-language divergence.
        suggested: layers, trough, rule.
        samples: the kept sentence pairs, as stored.
        record: profile.json as stored.
    """

    directory: Path
    label: str
    model: Mapping[str, Any]
    anchor: str
    languages: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]
    measures: Mapping[str, Mapping[str, NDArray[np.float64]]]
    mean: NDArray[np.float32]
    load: NDArray[np.float32]
    between: Between
    suggested: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    record: Mapping[str, Any]

    @property
    def layers(self) -> list[int]:
        """Decoder-layer indices of the MoE layers, in the order of the arrays."""
        return list(self.model["layers"])

    @property
    def unseen(self) -> set[str] | None:
        """Codes of the languages that training never saw; None when the profile does not know."""
        seen = self.data.get("seen_in_training")
        return None if seen is None else set(self.languages) - set(seen)


def read_profiles(directories: Sequence[Path]) -> list[Profile]:
    """Read the profiles of one report and see that they can be compared.

    Raises:
        DataError: a profile cannot be read, or one is of another family, depth, expert count or anchor than the first.
    """
    if not directories:
        raise DataError(
            "no profile to report on. Name one or several folders that `innerlingua routing profile` wrote."
        )
    profiles = [read_profile(directory) for directory in directories]
    first = profiles[0]
    for other in profiles[1:]:
        differs = [
            f"{key} {first.model[key]!r} against {other.model[key]!r}"
            for key in ("model_type", "experts", "top_k", "score")
            if first.model[key] != other.model[key]
        ]
        if first.layers != other.layers:
            differs.append(f"MoE layers {_span(first.layers)} against {_span(other.layers)}")
        if first.anchor != other.anchor:
            differs.append(f"anchor {first.anchor!r} against {other.anchor!r}")
        if differs:
            raise DataError(
                f"{other.directory}: this profile cannot be compared with {first.directory}: {'; '.join(differs)}. "
                "One report compares states of one model; write a report for each."
            )
    return _with_unique_labels(profiles)


def read_profile(directory: Path) -> Profile:
    """Read one profile. Raises `DataError` when it is missing or damaged (`routing.profile.layout` has what is asked
    of it)."""
    record = read_record(directory)
    mean, load = read_distributions(directory, record)
    layers, between = len(record["model"]["layers"]), record["between_languages"]
    return Profile(
        directory=directory,
        label=record["label"] or directory.resolve().name,
        model=record["model"],
        anchor=record["anchor"],
        languages=record["languages"],
        data=record["data"],
        measures={
            measure: {code: _interval(entry, layers) for code, entry in rows.items()}
            for measure, rows in record["measures"].items()
        },
        mean=mean,
        load=load,
        between=Between(
            order=between["order"],
            **{key: np.array(between[key], dtype=np.float64) for key in ("js", "low", "high", "js_by_layer")},
            ids=np.array(between["ids"], dtype=np.int64),
        ),
        suggested=record["suggested_layers"],
        samples=read_samples(directory, record),
        record=record,
    )


def _interval(entry: Mapping[str, Any] | None, layers: int) -> NDArray[np.float64]:
    """(3, layers) of mean, low, high. A whole entry, one of the three or one layer may be null."""
    table = np.full((3, layers), np.nan)
    for row, key in enumerate(INTERVAL):
        if entry is not None and entry[key] is not None:
            table[row] = np.array(entry[key], dtype=np.float64)
    return table


def _span(layers: Sequence[int]) -> str:
    """A list of layers in few words: how many and which."""
    listed = ", ".join(map(str, layers)) if len(layers) <= 8 else f"{layers[0]}, {layers[1]}, ..., {layers[-1]}"
    return f"{len(layers)} ({listed})"


def _with_unique_labels(profiles: list[Profile]) -> list[Profile]:
    """Labels told apart by the folder's name, then by a number, where two profiles carry the same one."""
    taken: set[str] = set()
    unique: list[Profile] = []
    labels = [profile.label for profile in profiles]
    for profile in profiles:
        label = profile.label
        if labels.count(label) > 1 and profile.directory.name not in ("", label):
            label = f"{label} ({profile.directory.name})"
        base, number = label, 2
        while label in taken:
            label, number = f"{base} {number}", number + 1
        taken.add(label)
        unique.append(replace(profile, label=label))
    return unique
