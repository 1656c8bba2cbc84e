"""Profiles packed small enough for one page.

Numbers per language and layer travel as float64 and come out of the page as they went in. The distributions over
experts are many (languages x layers x experts): up to `EXACT` values they travel as float32, above that as one byte
each, the square root of the value relative to the largest of its row (language, layer), which keeps small shares apart.
Every array is gzipped and in base64. Sentence pairs fill what is left of the profile's share of the page; how many were
left out is part of the data and shown.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerlingua.page import CATEGORIES, DIVERGING, SEQUENTIAL
from innerlingua.routing.report.order import similarity_order
from innerlingua.routing.report.read import Profile
from innerlingua.routing.report.results import Results
from innerlingua.routing.report.summary import Measure, correlations, measures_of

__all__ = ["payload"]

EXACT = 60_000
"""Values per array of expert distributions that still travel exactly."""
SHARES = (4_000_000, 1_400_000)
"""Bytes that the first and every further profile may take in the page; sentence pairs stop there."""

Json = dict[str, Any]


def payload(profiles: Sequence[Profile], results: Results | None = None) -> Json:
    """All that the page shows, ready for JSON. Languages are the union over the profiles, in the first one's order."""
    first = profiles[0]
    languages = list(dict.fromkeys(code for profile in profiles for code in profile.languages))
    measures = measures_of(profiles)
    return {
        "schema": 1,
        "anchor": first.anchor,
        "layers": first.layers,
        "experts": int(first.model["experts"]),
        "top_k": int(first.model["top_k"]),
        "model_type": first.model["model_type"],
        "score": first.model["score"],
        "languages": [{"code": code, "name": _name(code, profiles)} for code in languages],
        "measures": [
            {"key": measure.key, "name": measure.name, "unit": measure.unit, "meaning": measure.meaning}
            for measure in measures
        ],
        "profiles": [
            _profile(profile, languages, measures, share=SHARES[min(index, 1)])
            for index, profile in enumerate(profiles)
        ],
        "results": _results(profiles, results, measures),
        "palette": {"categories": CATEGORIES, "sequential": SEQUENTIAL, "diverging": DIVERGING},
    }


def pack(values: NDArray[Any], kind: str) -> Json:
    """An array of `kind` (f8, f4, u1, u2) as shape and base64 of its gzipped little-endian bytes."""
    data = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<")).tobytes()
    text = base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode("ascii")
    return {"kind": kind, "shape": list(values.shape), "data": text}


def pack_distribution(values: NDArray[np.float32]) -> Json:
    """Shares over experts, (languages, layers, experts), exact when few and as one byte each when many."""
    if values.size <= EXACT:
        return pack(values, "f4")
    top = values.max(axis=-1, keepdims=True)
    relative = np.divide(values, top, out=np.zeros_like(values), where=top > 0)
    bytes_ = pack(np.rint(np.sqrt(relative) * 255), "u1")
    return {**bytes_, "kind": "sqrt", "top": pack(top[..., 0], "f4")}


def _profile(profile: Profile, languages: Sequence[str], measures: Sequence[Measure], *, share: int) -> Json:
    """One profile of the page, its sentence pairs last and within the bytes that are left."""
    table = np.full((len(measures), len(languages), 3, len(profile.layers)), np.nan)
    for row, measure in enumerate(measures):
        for code, interval in profile.measures.get(measure.key, {}).items():
            table[row, languages.index(code)] = interval
    unseen = profile.unseen
    packed: Json = {
        "label": profile.label,
        "model": dict(profile.model),
        "created": profile.record.get("created"),
        "command": profile.record.get("command"),
        "versions": profile.record.get("versions", {}),
        "seed": profile.record.get("seed"),
        "settings": profile.record.get("settings", {}),
        "data": dict(profile.data),
        "unseen": None if unseen is None else sorted(unseen),
        "languages": {code: dict(entry) for code, entry in profile.languages.items()},
        "suggested": dict(profile.suggested),
        "measures": pack(table, "f8"),
        "mean": pack_distribution(profile.mean),
        "load": pack_distribution(profile.load),
        "between": _between(profile),
    }
    return {**packed, "samples": _samples(profile, share - len(json.dumps(packed)))}


def _between(profile: Profile) -> Json:
    """Language-to-language divergence: the order of the rows that puts alike ones together, and the upper triangles."""
    between = profile.between
    upper = np.triu_indices(len(between.order), k=1)
    return {
        "languages": between.order,
        "order": similarity_order(between.js),
        "js": pack(np.stack([table[upper] for table in (between.js, between.low, between.high)]), "f8"),
        "by_layer": pack(between.js_by_layer[:, upper[0], upper[1]], "f4"),
        "ids": pack(between.ids[upper], "f4"),
    }


def _samples(profile: Profile, room: int) -> Json:
    """As many sentence pairs as fit into `room` bytes, each language's first before any language's second."""
    rank: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []
    for index, pair in enumerate(profile.samples):
        turns.append((rank[pair["language"]], index))
        rank[pair["language"]] += 1
    kept: dict[int, Json] = {}
    for _, index in sorted(turns):
        packed = _sample(profile.samples[index], int(profile.model["experts"]))
        room -= len(json.dumps(packed)) + 2
        if room < 0:
            break
        kept[index] = packed
    return {"pairs": [kept[index] for index in sorted(kept)], "of": len(profile.samples)}


def _sample(pair: Mapping[str, Any], experts: int) -> Json:
    kind = "u1" if experts <= 256 else "u2"
    return {
        "id": str(pair["id"]),
        "language": pair["language"],
        "js": [None if value is None else float(value) for value in pair["js"]],
        **{
            side: {
                "tokens": [str(token) for token in pair[side]["tokens"]],
                "experts": pack(np.array(pair[side]["experts"], dtype=np.int64), kind),
            }
            for side in ("target", "anchor")
        },
    }


def _results(profiles: Sequence[Profile], results: Results | None, measures: Sequence[Measure]) -> Json | None:
    if results is None:
        return None
    return {
        "accuracy": {
            label: {code: {"n": n, "correct": correct} for code, (n, correct) in rows.items()}
            for label, rows in results.accuracy.items()
        },
        "unmatched": results.unmatched,
        "other_languages": results.other_languages,
        "benchmark": results.benchmark,
        "chance": results.chance,
        "r": {
            profile.label: {
                measure.key: [
                    float(x) if np.isfinite(x) else None for x in correlations(profile, results, measure.key)[0]
                ]
                for measure in measures
            }
            for profile in profiles
            if profile.label in results.accuracy
        },
    }


def _name(code: str, profiles: Sequence[Profile]) -> str:
    return next((str(p.languages[code].get("name", code)) for p in profiles if code in p.languages), code)
