"""Results of benchmarks on disk: one folder per run, one line per sample.

    DIR/<label>/
        run.json                                what was run: model, backend, settings, versions, command
        samples/<benchmark>.<language>.jsonl    one sample a line, in the order of the benchmark
        results.json                            one summary per benchmark and language

A training that asks benchmarks on its way (`watching.py`) has such a folder for each time that it asked, `step-N`, and
`history.json` beside them.

A run is one model under one setting. A file of samples is there when all of them are (it is written to a temporary name
and renamed), so whether a benchmark in a language is finished is whether its file exists. The digest of all samples'
content, `version`, says whether two runs answered the same questions. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from innerlingua.data.files import replaced, write_text
from innerlingua.errors import DataError

__all__ = [
    "HISTORY",
    "RESULTS",
    "RUN",
    "SCHEMA",
    "STATUSES",
    "RunResults",
    "Samples",
    "Texts",
    "benchmark_version",
    "clear_history",
    "content_hash",
    "read_results",
    "read_run",
    "read_sample_rows",
    "read_summaries",
    "samples_path",
    "summarise",
    "wilson_interval",
    "write_results",
    "write_run",
    "write_samples",
]

SCHEMA: Final = 1
RUN: Final = "run.json"
RESULTS: Final = "results.json"
HISTORY: Final = "history.json"
STATUSES: Final = ("answered", "cut", "unparsed", "overlong")
"""answered; cut by the token limit; no answer to be found in the text; the prompt had no room in the model's context
and was never run. All but the first are counted apart and have score 0, except that a cut translation is scored as far
as it goes."""

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_ENTRY: Final = (
    "benchmark",
    "language",
    "anchor",
    "metric",
    "n",
    "score",
    "chance",
    "task_version",
    "benchmark_version",
)
_SUMMARIES_REMEDY: Final = "delete it, and run `innerlingua evaluate` again: it is made anew from the samples"


@dataclass(frozen=True)
class Texts:
    """What corpus measures of translation need, sample by sample."""

    hypotheses: list[str]
    references: list[str]


@dataclass(frozen=True)
class Samples:
    """One benchmark in one language under one run; all lists have the same length and order.

    `scores` is 0 or 1 for accuracy, 0..1 for F1, 0..100 for chrF++ of a sentence. `groups` names what a sample shares
    with others (a passage, a document), its id where it shares nothing. `chance` is the score of a guess, or None.
    """

    ids: list[str]
    scores: NDArray[np.float64]
    statuses: list[str]
    hashes: list[str]
    groups: list[str]
    metric: str
    chance: float | None
    version: str
    anchor: bool
    texts: Texts | None


@dataclass(frozen=True)
class RunResults:
    """A results folder: its label, `run.json`, and the samples of every finished (benchmark, language)."""

    label: str
    run: dict[str, Any]
    tables: dict[tuple[str, str], Samples]


def content_hash(*content: object) -> str:
    """16 hexadecimal digits that name a question's content (not its prompt); `content` is whatever JSON can hold."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]


def benchmark_version(task_version: str, hashes: Sequence[str]) -> str:
    """The version of a benchmark in a language: digest of its task's version and of all samples, in order."""
    return hashlib.sha256("\n".join([task_version, *hashes]).encode()).hexdigest()[:16]


def samples_path(folder: Path, benchmark: str, language: str) -> Path:
    """Where the samples of `benchmark` in `language` lie."""
    for name in (benchmark, language):
        if not _NAME.match(name):
            raise DataError(f"{name!r} cannot name a benchmark or language: use letters, digits, hyphen and underscore")
    return folder / "samples" / f"{benchmark}.{language}.jsonl"


def write_samples(folder: Path, benchmark: str, language: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write the samples of a finished benchmark in a language, whole or not at all."""
    path = samples_path(folder, benchmark, language)
    with replaced(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def write_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    _write_json(folder / RUN, {"schema": SCHEMA, **run})


def write_results(folder: Path, summaries: Iterable[Mapping[str, Any]]) -> None:
    """Write `results.json`: the summaries in the order of benchmark and language."""
    ordered = sorted((dict(entry) for entry in summaries), key=lambda entry: (entry["benchmark"], entry["language"]))
    _write_json(folder / RESULTS, {"schema": SCHEMA, "results": ordered})


def summarise(
    benchmark: str,
    language: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    chance: float | None,
    task_version: str,
    anchor: bool,
    seconds: float | None,
) -> dict[str, Any]:
    """The summary of one benchmark in one language, an entry of `results.json`.

    `score` is the mean over all samples, with 0 for those that gave no answer; `score_answered` the mean over the
    answered. The 95 % interval is Wilson's for accuracies, else mean ± 1.96 standard errors (None where all scores are
    equal, which says nothing of the next sample); both take samples as independent. Where choices were made, `answers`
    counts how often each was taken and was right, and `against_chance` says where the interval of the answered ones
    lies: a guesser would not have answered the others either.
    """
    scores = np.array([row["score"] for row in rows], dtype=np.float64)
    statuses = Counter(row["status"] for row in rows)
    answered = np.array([row["status"] == "answered" for row in rows])
    n = len(rows)
    mean = float(scores.mean())
    error = float(scores.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    interval: list[float] | None = None
    if metric == "accuracy":
        interval = list(wilson_interval(int(scores.sum()), n))
    elif error:
        interval = [mean - 1.96 * error, mean + 1.96 * error]
    choices = {key: Counter(str(row.get(key)) for row in rows) for key in ("prediction", "target")}
    chosen = chance is not None
    return {
        "benchmark": benchmark,
        "language": language,
        "anchor": anchor,
        "metric": metric,
        "n": n,
        "score": mean,
        "score_answered": float(scores[answered].mean()) if answered.any() else None,
        "standard_error": error,
        "interval": interval,
        "chance": chance,
        "against_chance": None if chance is None else _against(scores[answered], chance),
        "answers": {key: dict(sorted(counts.items())) for key, counts in choices.items()} if chosen else None,
        "statuses": {status: statuses[status] for status in STATUSES},
        "benchmark_version": benchmark_version(task_version, [row["hash"] for row in rows]),
        "task_version": task_version,
        "seconds": seconds,
    }


def _against(scores: NDArray[np.float64], chance: float) -> str | None:
    if not len(scores):
        return None
    low, high = wilson_interval(int(scores.sum()), len(scores))
    return "above" if low > chance else "below" if high < chance else "no different"


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927, JASA 22:209). `n` is at least 1."""
    z = 1.959963984540054
    share = successes / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def read_run(folder: Path) -> dict[str, Any]:
    """`run.json` of a results folder. Raises `DataError` when there is none, or it is damaged or of another schema."""
    path = folder / RUN
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else f"no results of a run in it (no {RUN})"
        inside = sorted(child.name for child in folder.iterdir() if (child / RUN).is_file()) if folder.is_dir() else []
        hint = f"; the runs in it are {', '.join(str(folder / name) for name in inside[:8])}" if inside else ""
        raise DataError(f"{folder}: {what}{hint}; `innerlingua evaluate MODEL --tasks ... -o DIR` makes them")
    run = _read_json(path)
    for key in ("model", "settings"):
        if not isinstance(run.get(key, {}), dict):
            raise DataError(f"{path} is damaged: its {key} are {run[key]!r}; evaluate into another folder")
    return run


def read_summaries(folder: Path) -> list[dict[str, Any]]:
    """The entries of `results.json`; none where nothing is finished. Raises `DataError` when it is damaged."""
    path = folder / RESULTS
    if not path.is_file():
        return []
    entries = _read_json(path, remedy=_SUMMARIES_REMEDY).get("results")
    if not isinstance(entries, list):
        raise DataError(f"{path} is damaged: it lists no results; {_SUMMARIES_REMEDY}")
    seen = set()
    for entry in entries:
        lacking = [key for key in _ENTRY if not isinstance(entry, dict) or key not in entry]
        if lacking:
            raise DataError(f"{path} is damaged: an entry has no {lacking[0]}; {_SUMMARIES_REMEDY}")
        names = (entry["benchmark"], entry["language"])
        if not all(isinstance(name, str) and _NAME.match(name) for name in names):
            raise DataError(f"{path} is damaged: {names!r} name no benchmark and language; {_SUMMARIES_REMEDY}")
        if names in seen:
            raise DataError(f"{path} is damaged: {' '.join(names)} is in it twice; {_SUMMARIES_REMEDY}")
        seen.add(names)
    return entries


def read_results(folder: str | Path) -> RunResults:
    """All finished results of one run.

    Raises:
        DataError: no run is there, a file is damaged or of another schema, or samples and summary do not belong
            together.
    """
    folder = Path(folder)
    run = read_run(folder)
    path = folder / RESULTS
    if not path.is_file():
        raise DataError(f"{folder}: nothing in this run is finished (no {RESULTS}); run `innerlingua evaluate` again")
    tables = {}
    for entry in read_summaries(folder):
        try:
            key = (entry["benchmark"], entry["language"])
            tables[key] = _samples(samples_path(folder, *key), entry)
        except TypeError as error:
            raise DataError(f"{path} is damaged ({error}); {_SUMMARIES_REMEDY}") from error
    return RunResults(label=str(run.get("label", folder.name)), run=run, tables=tables)


def read_sample_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of samples. Raises `DataError` when it is missing or damaged."""
    remedy = "delete the file, and run `innerlingua evaluate` again to compute it anew"
    if not path.exists():
        raise DataError(f"{path} is missing, though {RESULTS} names it; run `innerlingua evaluate` again")
    rows = []
    number = 0
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):  # not at U+2028
            if not line:
                continue
            row = _parsed(line)
            whole = {"id", "score", "status", "hash"} <= row.keys() and type(row["score"]) in (int, float)
            if not whole or row["status"] not in STATUSES:
                raise DataError(f"{path}:{number}: no sample of this version; {remedy}")
            if not math.isfinite(row["score"]):
                raise DataError(f"{path}:{number}: the score of {row['id']!r} is {row['score']}, no number; {remedy}")
            rows.append(row)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} cannot be read (line {number}: {error.msg}); {remedy}") from error
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from error
    if not rows:
        raise DataError(f"{path} is empty; {remedy}")
    return rows


def _samples(path: Path, entry: Mapping[str, Any]) -> Samples:
    rows = read_sample_rows(path)
    hashes = [str(row["hash"]) for row in rows]
    if benchmark_version(entry["task_version"], hashes) != entry["benchmark_version"]:
        raise DataError(
            f"{path} and {RESULTS} beside it do not belong together; delete the file of samples and run "
            "`innerlingua evaluate` again"
        )
    if entry["n"] != len(rows) or not _mean_is(entry["score"], rows):
        raise DataError(
            f"{path} and {RESULTS} beside it do not belong together: the mean of the samples' scores is not the one "
            "that is stored, so one of the two was changed. Delete the file of samples and run `innerlingua evaluate` "
            "again"
        )
    texts = None
    if all("hypothesis" in row and "reference" in row for row in rows):
        texts = Texts([row["hypothesis"] for row in rows], [row["reference"] for row in rows])
    return Samples(
        ids=[str(row["id"]) for row in rows],
        scores=np.array([row["score"] for row in rows], dtype=np.float64),
        statuses=[row["status"] for row in rows],
        hashes=hashes,
        groups=[str(row.get("group", row["id"])) for row in rows],
        metric=entry["metric"],
        chance=entry["chance"],
        version=entry["benchmark_version"],
        anchor=bool(entry["anchor"]),
        texts=texts,
    )


def _mean_is(stored: object, rows: Sequence[Mapping[str, Any]]) -> bool:
    mean = sum(row["score"] for row in rows) / len(rows)
    return isinstance(stored, int | float) and math.isclose(stored, mean, rel_tol=1e-9, abs_tol=1e-9)


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def _parsed(text: str, **options: Any) -> Any:
    """The JSON value in `text`. Raises `ValueError`, also for half a surrogate pair, which no output could hold."""
    value = json.loads(text, **options)
    if _ESCAPED_SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("it holds half a surrogate pair (such as \\ud800), which is not a character") from error
    return value


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is no number of JSON that can be reckoned with")
    return number


def _read_json(path: Path, *, remedy: str = "evaluate into another folder") -> dict[str, Any]:
    try:
        record = _parsed(path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
        schema = record["schema"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error!r}): {remedy}") from error
    if schema != SCHEMA:
        raise DataError(f"{path} has schema {schema}, and this version reads {SCHEMA}: evaluate into another folder")
    assert isinstance(record, dict)
    return record


def clear_history(folder: Path) -> None:
    """Remove what an earlier training left in `folder`, told by its history: its steps would stand among another's.

    What else is there stays, and the folder with it. Links are not followed.
    """
    if folder.is_symlink() or not (folder / HISTORY).is_file():
        return
    for path in folder.glob("step-*"):
        if (path / RUN).is_file() and not path.is_symlink():
            shutil.rmtree(path)
    (folder / HISTORY).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
