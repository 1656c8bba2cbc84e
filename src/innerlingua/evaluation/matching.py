"""The same samples under every run, or a refusal that says where they differ.

Two scores are compared only when they answer the same questions in the same way: samples are matched by id and by the
digest of their content, the benchmark's version must be one, and so must the settings (few-shot examples, chat
template, limits). A paired test over different samples gives a number too, and it means nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from innerlingua.errors import DataError, nearest
from innerlingua.evaluation.selection import Method
from innerlingua.evaluation.store import RUN, STATUSES, RunResults, Samples

__all__ = ["Matched", "match"]

_NAMED: Final = 5  # ids that a message names

Run = tuple[Path, Mapping[tuple[str, str], Samples]]


@dataclass(frozen=True)
class Matched:
    """One benchmark, its samples in one order under all runs.

    Attributes:
        benchmark: its name.
        metric: what its scores are.
        languages: those that every run has, the anchor first, then by code.
        anchor: the anchor language, None when no run has it.
        ids: per language.
        clusters: how many there are over all languages.
        members: per language, the cluster of each sample.
        scores: per language, (runs, samples).
        texts: per language and run, (hypotheses, references); None when the benchmark is no translation.
        statuses: per language and run, counts by status.
        chance: per language.
    """

    benchmark: str
    metric: str
    languages: list[str]
    anchor: str | None
    ids: list[list[str]]
    clusters: int
    members: list[NDArray[np.int64]]
    scores: list[NDArray[np.float64]]
    texts: list[list[tuple[list[str], list[str]]]] | None
    statuses: list[list[dict[str, int]]]
    chance: list[float | None]


def match(
    methods: Sequence[Method],
    *,
    benchmarks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    allow_settings: bool = False,
) -> tuple[list[Matched], list[str]]:
    """What all runs of `methods` have in common, by benchmark, and notes on what was left out.

    Args:
        methods: at least two.
        benchmarks, languages: only these; None for all.
        allow_settings: compare results of different settings, with a note, instead of refusing them.

    Raises:
        DataError: nothing is common to all runs; samples, versions, metrics or settings differ; a file holds scores
        that
            are no numbers or an id twice; or a benchmark or language that was asked for is in no run.
    """
    runs: list[Run] = [
        (folder, run.tables) for method in methods for folder, run in zip(method.folders, method.runs, strict=True)
    ]
    notes = _same_settings(methods, allow=allow_settings)
    keys = _wanted({key for _, tables in runs for key in tables}, benchmarks, languages)
    common = [key for key in keys if all(key in tables for _, tables in runs)]
    if not common:
        held = "; ".join(f"{folder} has {_listed(tables)}" for folder, tables in runs)
        raise DataError(f"the runs have no benchmark and language in common: {held}. Evaluate them on the same")
    notes += _left_out(runs, keys, common)
    found = []
    for benchmark in dict.fromkeys(name for name, _ in common):
        found.append(_matched(benchmark, [language for name, language in common if name == benchmark], runs))
    return found, notes


def _wanted(
    keys: set[tuple[str, str]], benchmarks: Sequence[str] | None, languages: Sequence[str] | None
) -> list[tuple[str, str]]:
    for what, asked, place in (("benchmark", benchmarks, 0), ("language", languages, 1)):
        held = {key[place] for key in keys}
        if asked is not None and not asked:
            raise DataError(
                f"no {what} was named; name one or leave the option out. There are {', '.join(sorted(held))}"
            )
        for name in asked or ():
            if name not in held:
                raise DataError(f"no run has results for {what} {name!r}{nearest(name, held)}")
    return sorted(
        (name, language)
        for name, language in keys
        if (benchmarks is None or name in benchmarks) and (languages is None or language in languages)
    )


def _left_out(runs: Sequence[Run], keys: Sequence[tuple[str, str]], common: Sequence[tuple[str, str]]) -> list[str]:
    """What some run has and another lacks, by the folder that lacks it."""
    notes = []
    for folder, tables in runs:
        missing = [key for key in keys if key not in tables]
        if missing:
            notes.append(f"not compared, because {folder} lacks it: {_listed(missing)}")
    return notes


def _listed(keys: Any) -> str:
    by_benchmark: dict[str, list[str]] = {}
    for benchmark, language in sorted(keys):
        by_benchmark.setdefault(benchmark, []).append(language)
    return ", ".join(f"{benchmark} ({', '.join(codes)})" for benchmark, codes in by_benchmark.items()) or "nothing"


def _same_settings(methods: Sequence[Method], *, allow: bool) -> list[str]:
    pairs = [(folder, run) for method in methods for folder, run in zip(method.folders, method.runs, strict=True)]
    first, reference = pairs[0]
    notes = []
    for folder, run in pairs[1:]:
        before, after = _settings(first, reference), _settings(folder, run)
        differing = [
            f"{key} {_plain(after.get(key))} against {_plain(before.get(key))}"
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
        if differing and not allow:
            raise DataError(
                f"{folder} was evaluated with other settings than {first}: {'; '.join(differing)}. Evaluate both "
                "alike, or pass --allow-settings to compare them all the same, with a mark"
            )
        if differing:
            notes.append(f"SETTINGS DIFFER: {folder} against {first}: {'; '.join(differing)}")
    return notes


def _settings(folder: Path, run: RunResults) -> dict[str, Any]:
    """The settings that results depend on, the backend among them."""
    settings = run.run.get("settings") or {}
    if not isinstance(settings, dict):
        raise DataError(f"{folder / RUN} is damaged: its settings are {settings!r}; evaluate into another folder")
    return {"backend": run.run.get("backend"), **settings}


def _plain(value: object) -> str:
    return "not stated" if value is None else json.dumps(value, ensure_ascii=False)


def _matched(benchmark: str, languages: Sequence[str], runs: Sequence[Run]) -> Matched:
    tables = {
        language: [_checked(folder, held, benchmark, language) for folder, held in runs] for language in languages
    }
    folders = [folder for folder, _ in runs]
    for language in languages:
        _same_samples(benchmark, language, folders, tables[language])
    metric = _one("metric", benchmark, folders, languages, tables, lambda samples: samples.metric)
    _one("texts", benchmark, folders, languages, tables, lambda samples: "none" if samples.texts is None else "some")
    for language in languages:
        _one("chance", benchmark, folders, [language], tables, lambda samples: str(samples.chance))
    anchors = [language for language in languages if tables[language][0].anchor]
    if len(anchors) > 1:
        raise DataError(
            f"{folders[0]}: {benchmark} has several anchor languages, {', '.join(anchors)}: evaluate with one"
        )
    ordered = anchors + [language for language in languages if language not in anchors]
    orders = {
        language: [np.argsort(np.array(one.ids), kind="stable") for one in tables[language]] for language in ordered
    }
    ids = [[tables[language][0].ids[place] for place in orders[language][0]] for language in ordered]
    groups = [[tables[language][0].groups[place] for place in orders[language][0]] for language in ordered]
    clusters, members = _clusters(ids, groups)
    return Matched(
        benchmark=benchmark,
        metric=metric,
        languages=ordered,
        anchor=anchors[0] if anchors else None,
        ids=ids,
        clusters=clusters,
        members=members,
        scores=[
            np.stack([one.scores[order] for one, order in zip(tables[language], orders[language], strict=True)])
            for language in ordered
        ],
        texts=_texts(ordered, tables, orders),
        statuses=[
            [{status: Counter(one.statuses)[status] for status in STATUSES} for one in tables[language]]
            for language in ordered
        ],
        chance=[tables[language][0].chance for language in ordered],
    )


def _checked(folder: Path, held: Mapping[tuple[str, str], Samples], benchmark: str, language: str) -> Samples:
    """The samples of one file, whose scores are finite and whose ids are there once."""
    samples = held[benchmark, language]
    where = f"{folder}: {benchmark} {language}"
    if not len(samples.ids):
        raise DataError(f"{where}: there is no sample; evaluate it again")
    wrong = np.flatnonzero(~np.isfinite(samples.scores))
    if len(wrong):
        raise DataError(
            f"{where}: the score of {samples.ids[wrong[0]]!r} is {samples.scores[wrong[0]]} ({len(wrong)} of "
            f"{len(samples.ids)} are no numbers); evaluate it again"
        )
    if samples.metric == "accuracy" and ((samples.scores < 0) | (samples.scores > 1)).any():
        place = int(np.flatnonzero((samples.scores < 0) | (samples.scores > 1))[0])
        raise DataError(
            f"{where}: {samples.ids[place]!r} has accuracy {samples.scores[place]:g}, which is not in 0 to 1"
        )
    chance = samples.chance
    if chance is not None and not (isinstance(chance, int | float) and 0 <= chance <= 1):
        raise DataError(f"{where}: the score of a guess is {chance!r}, which is not in 0 to 1; evaluate it again")
    if samples.texts is not None:
        for name, *texts in zip(samples.ids, samples.texts.hypotheses, samples.texts.references, strict=True):
            if not all(isinstance(text, str) for text in texts):
                raise DataError(f"{where}: the translation of {name!r} is no text; evaluate it again")
    twice = [name for name, count in Counter(samples.ids).items() if count > 1]
    if twice:
        raise DataError(f"{where}: {len(twice)} ids are there more than once, first {_some(twice)}; evaluate it again")
    return samples


def _same_samples(benchmark: str, language: str, folders: Sequence[Path], tables: Sequence[Samples]) -> None:
    first = dict(zip(tables[0].ids, tables[0].hashes, strict=True))
    for folder, samples in zip(folders[1:], tables[1:], strict=True):
        other = dict(zip(samples.ids, samples.hashes, strict=True))
        where = f"{benchmark} {language}: {folders[0]} and {folder} do not hold the same samples"
        lacking = [name for name in first if name not in other]
        extra = [name for name in other if name not in first]
        if lacking or extra:
            parts = [
                f"{len(names)} only in {place}, first {_some(names)}"
                for names, place in ((lacking, folders[0]), (extra, folder))
                if names
            ]
            raise DataError(
                f"{where}: {'; '.join(parts)}. Evaluate both on the same samples (the same data and --limit)"
            )
        changed = [name for name in first if first[name] != other[name]]
        if changed:
            raise DataError(
                f"{where}: {len(changed)} of {len(first)} have another content under the same id, first "
                f"{_some(changed)}. Evaluate both on the same version of the data"
            )
        if samples.version != tables[0].version:
            raise DataError(
                f"{benchmark} {language}: {folder} is of another benchmark version ({samples.version}) than "
                f"{folders[0]} ({tables[0].version}): the same samples, asked by another task file. Evaluate "
                "one of them again"
            )
        if samples.anchor != tables[0].anchor:
            raise DataError(
                f"{benchmark}: {language} is the anchor language in {(folders[0], folder)[samples.anchor]} and a "
                f"target in {(folder, folders[0])[samples.anchor]}: evaluate both with one anchor"
            )


def _one(
    what: str,
    benchmark: str,
    folders: Sequence[Path],
    languages: Sequence[str],
    tables: Mapping[str, Sequence[Samples]],
    read: Callable[[Samples], str],
) -> str:
    """The one value that all tables of a benchmark agree on."""
    reference = read(tables[languages[0]][0])
    for language in languages:
        for folder, samples in zip(folders, tables[language], strict=True):
            if read(samples) != reference:
                raise DataError(
                    f"{folder}: {benchmark} {language} has {what} {read(samples)}, and {folders[0]} {languages[0]} has "
                    f"{reference}: these are different things. Evaluate them alike"
                )
    return reference


def _texts(
    languages: Sequence[str], tables: Mapping[str, Sequence[Samples]], orders: Mapping[str, Sequence[NDArray[np.int64]]]
) -> list[list[tuple[list[str], list[str]]]] | None:
    found = []
    for language in languages:
        row = []
        for samples, order in zip(tables[language], orders[language], strict=True):
            if samples.texts is None:
                return None
            row.append(
                (
                    [samples.texts.hypotheses[place] for place in order],
                    [samples.texts.references[place] for place in order],
                )
            )
        found.append(row)
    return found


def _clusters(ids: Sequence[Sequence[str]], groups: Sequence[Sequence[str]]) -> tuple[int, list[NDArray[np.int64]]]:
    """Which samples are drawn as one piece: those that share an id (in several languages) or a group, in any chain."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for name, group in {pair for row in zip(ids, groups, strict=True) for pair in zip(*row, strict=True)}:
        parent[root(("id", name))] = root(("group", group))
    places: dict[tuple[str, str], int] = {}
    for name in sorted({name for row in ids for name in row}):
        places.setdefault(root(("id", name)), len(places))
    return len(places), [np.array([places[root(("id", name))] for name in row], dtype=np.int64) for row in ids]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    return shown + (", ..." if len(names) > _NAMED else "")
