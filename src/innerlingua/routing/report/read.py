"""Stored profiles and results, read and checked before anything is drawn.

A profile is a folder with `profile.json` (numbers per language and layer), `profile.safetensors` (mean routing and
load per expert) and, optionally, `samples.json` (sentence pairs kept for a closer look). The report trusts none of
them: what is missing, damaged or of another shape than the rest says is one message with the file and the remedy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from innerlingua.errors import DataError

__all__ = ["Between", "Profile", "Results", "read_profile", "read_profiles", "read_results"]

SCHEMA = 1
INTERVAL = ("mean", "low", "high")


@dataclass(frozen=True, slots=True)
class Between:
    """How far languages are routed from one another.

    Attributes:
        order: language codes of the rows and columns.
        js: (n, n) mean over layers, nats; NaN where two languages share no id.
        js_by_layer: (layers, n, n), nats.
        ids: (n, n) shared ids.
    """

    order: list[str]
    js: NDArray[np.float64]
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
        between: language-to-language divergence, None when the profile has none.
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
    between: Between | None
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


@dataclass(frozen=True, slots=True)
class Results:
    """Accuracy per profile label and language: label -> language -> (n, correct); other runs of the file by name."""

    accuracy: Mapping[str, Mapping[str, tuple[int, int]]]
    unmatched: list[str]


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
    """Read one profile.

    Raises:
        DataError: a file is missing, is no JSON, lacks a key, or its arrays have other shapes than its lists say.
    """
    path = directory / "profile.json"
    if not path.is_file():
        raise DataError(
            f"{directory}: no profile.json here. Give a folder that `innerlingua routing profile MODEL ... -o DIR` "
            "wrote; an interrupted profile has none, run it again."
        )
    record = _json(path)
    if record.get("schema") != SCHEMA:
        raise DataError(
            f"{path}: schema {record.get('schema')!r}, this version reads {SCHEMA}. Profile the model again."
        )
    try:
        return _profile(directory, record)
    except KeyError as missing:
        raise DataError(f"{path}: the key {missing} is missing. Profile the model again.") from None


def read_results(path: Path, profiles: Sequence[Profile]) -> Results:
    """Accuracy of `result.json` for the profiles, matched by label without regard to case.

    Raises:
        DataError: the file cannot be read, has no accuracy, or none of its runs has the label of a profile.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. --results takes the result.json of an evaluation or the demo.")
    runs = _json(path).get("runs")
    if not isinstance(runs, dict) or not any(isinstance(run, dict) and run.get("accuracy") for run in runs.values()):
        raise DataError(
            f"{path}: no accuracy in it. Expected runs: {{label: {{accuracy: {{language: {{n, correct}}}}}}}}."
        )
    labels = {profile.label.casefold(): profile.label for profile in profiles}
    accuracy: dict[str, dict[str, tuple[int, int]]] = {}
    for name, run in runs.items():
        if name.casefold() in labels and run.get("accuracy"):
            accuracy[labels[name.casefold()]] = _accuracy(path, name, run["accuracy"])
    if not accuracy:
        raise DataError(
            f"{path}: its runs {', '.join(runs)} match none of the profiles {', '.join(labels.values())}. "
            "Name the profiles like the runs: innerlingua routing profile ... --label NAME."
        )
    return Results(accuracy=accuracy, unmatched=[name for name in runs if name.casefold() not in labels])


def _accuracy(path: Path, run: str, stored: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    for language, entry in stored.items():
        counts = isinstance(entry, dict) and isinstance(entry.get("n"), int) and isinstance(entry.get("correct"), int)
        if not counts or not 0 <= entry["correct"] <= entry["n"] or entry["n"] == 0:
            raise DataError(f"{path}: runs.{run}.accuracy.{language}: expected whole numbers n > 0 and correct <= n.")
    return {language: (entry["n"], entry["correct"]) for language, entry in stored.items()}


def _profile(directory: Path, record: Mapping[str, Any]) -> Profile:
    path = directory / "profile.json"
    model, languages = record["model"], record["languages"]
    for key in ("name", "model_type", "layers", "experts", "top_k", "score"):
        model[key]  # a missing key is reported by the caller
    if not languages or not model["layers"]:
        raise DataError(f"{path}: no language or no layer in it. Profile the model again.")
    layers = len(model["layers"])
    tensors = _tensors(directory / "profile.safetensors", (len(languages), layers, int(model["experts"])))
    unknown = [code for stored in record["measures"].values() for code in stored if code not in languages]
    if unknown:
        raise DataError(f"{path}: measures name {unknown[0]!r}, which is not in languages. Profile the model again.")
    return Profile(
        directory=directory,
        label=str(record.get("label") or directory.name),
        model=model,
        anchor=record["anchor"],
        languages=languages,
        data=record["data"],
        measures={
            measure: {
                code: _interval(entry, layers, f"{path}: measures.{measure}.{code}") for code, entry in rows.items()
            }
            for measure, rows in record["measures"].items()
        },
        mean=tensors["mean"],
        load=tensors["load"],
        between=_between(record.get("between_languages"), layers, path),
        suggested=record["suggested_layers"],
        samples=_samples(directory / "samples.json", model, languages),
        record=record,
    )


def _interval(entry: Any, layers: int, where: str) -> NDArray[np.float64]:
    """(3, layers) of mean, low, high. A whole entry, one of the three or one layer may be null."""
    table = np.full((3, layers), np.nan)
    if entry is None:
        return table
    for row, key in enumerate(INTERVAL):
        values = entry.get(key)
        if values is None:
            continue
        if len(values) != layers:
            raise DataError(f"{where}.{key}: {len(values)} values for {layers} layers. Profile the model again.")
        table[row] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return table


def _between(stored: Mapping[str, Any] | None, layers: int, path: Path) -> Between | None:
    if not stored or not stored["order"]:
        return None
    n = len(stored["order"])
    between = Between(
        order=list(stored["order"]),
        js=np.array(stored["js"], dtype=np.float64).reshape(-1),
        js_by_layer=np.array(stored["js_by_layer"], dtype=np.float64).reshape(-1),
        ids=np.array(stored["ids"], dtype=np.int64).reshape(-1),
    )
    if between.js.size != n * n or between.ids.size != n * n or between.js_by_layer.size != layers * n * n:
        raise DataError(f"{path}: between_languages is not {n} x {n} (by {layers} layers). Profile the model again.")
    return replace(
        between,
        js=between.js.reshape(n, n),
        js_by_layer=between.js_by_layer.reshape(layers, n, n),
        ids=between.ids.reshape(n, n),
    )


def _tensors(path: Path, shape: tuple[int, int, int]) -> dict[str, NDArray[np.float32]]:
    if not path.is_file():
        raise DataError(f"{path}: missing beside profile.json. Profile the model again.")
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: cannot be read ({error}). Profile the model again.") from None
    tensors: dict[str, NDArray[np.float32]] = {}
    for key in ("mean", "load"):
        if key not in stored or stored[key].shape != shape:
            found = stored[key].shape if key in stored else "nothing"
            raise DataError(
                f"{path}: {key}: expected (languages, layers, experts) {shape}, found {found}. Profile the model again."
            )
        tensors[key] = stored[key].astype(np.float32, copy=False)
    return tensors


def _samples(path: Path, model: Mapping[str, Any], languages: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The kept pairs; none when the file is missing (`--samples 0`)."""
    if not path.is_file():
        return []
    pairs: list[Mapping[str, Any]] = _json(path)["pairs"]
    for number, pair in enumerate(pairs, start=1):
        for side in ("target", "anchor"):
            tokens, experts = pair[side]["tokens"], pair[side]["experts"]
            if len(experts) != len(model["layers"]) or any(len(layer) != len(tokens) for layer in experts):
                raise DataError(
                    f"{path}: pair {number} (id {pair['id']!r}), {side}: experts are not (layers, tokens, k). "
                    "Profile the model again."
                )
        if pair["language"] not in languages:
            raise DataError(
                f"{path}: pair {number}: language {pair['language']!r} is not in the profile. Profile again."
            )
    return pairs


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no readable JSON ({error}). Write it again with the command that made it.") from None
    if not isinstance(stored, dict):
        raise DataError(f"{path}: expected a JSON object. Write it again with the command that made it.")
    return stored


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
