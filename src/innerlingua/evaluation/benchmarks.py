"""From what a user asks for to benchmarks: names of tasks, the files behind them, and the languages that they have.

A name means a local file where the data folder has one of that name, else a benchmark of lm-evaluation-harness, whose
data comes from the hub; `local:NAME` and `harness:NAME` say which. `NAME_into` and `NAME_from` are translation from a
parallel file, from the anchor language into the others and back. A path to a file works as a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from innerlingua.data.languages import ENGLISH, check_language, known_languages
from innerlingua.data.parallel import PACK_VARIABLE
from innerlingua.errors import DataError, nearest
from innerlingua.evaluation.harness import HARNESS, HarnessBenchmark, require_harness
from innerlingua.evaluation.local import ENDINGS, LocalBenchmark, find_file, read_benchmark
from innerlingua.evaluation.parallel_files import Direction, ParallelBenchmark, is_parallel, read_parallel_benchmark

__all__ = ["Chosen", "choose", "data_folder"]

Benchmark = LocalBenchmark | HarnessBenchmark | ParallelBenchmark

_DIRECTIONS: Final[tuple[Direction, ...]] = ("into", "from")
_QUESTIONS: Final = "mcq"
_SENTENCES: Final = "parallel"


@dataclass(frozen=True)
class Chosen:
    """What is to be asked: each benchmark with its languages, the anchor language first; and what was left out."""

    benchmarks: list[tuple[Benchmark, list[str]]]
    missing: list[tuple[str, str]]
    anchor: str


def data_folder(folder: Path | None) -> Path | None:
    """The folder of local benchmarks: the given one, else what `INNERLINGUA_DATA` names, else None.

    Raises:
        DataError: it does not exist.
    """
    if folder is None:
        value = os.environ.get(PACK_VARIABLE, "")
        if not value:
            return None
        folder = Path(value)
        if not folder.is_dir():
            raise DataError(f"{PACK_VARIABLE} names {value!r}, which is not a folder; --data DIR names another")
    if not folder.is_dir():
        raise DataError(f"--data {folder}: no such folder")
    return folder


def choose(
    names: Sequence[str],
    languages: Sequence[str] | None,
    *,
    data: Path | None,
    anchor: str = ENGLISH,
    skip_missing: bool = False,
    language_names: Mapping[str, str] | None = None,
) -> Chosen:
    """Find and read the benchmarks called `names`, in `languages` and the anchor language where they have it.

    Args:
        names: of tasks; see the module.
        languages: FLORES-200 codes; all that a local file has unless given. The harness's benchmarks need them.
        data: the folder of local benchmarks (`data_folder`).
        anchor: the language that stands beside all others.
        skip_missing: leave out a language that a benchmark lacks, and list it in `missing`.
        language_names: English names of languages outside FLORES-200, which prompts of translation say.

    Raises:
        DataError: an unknown name, a benchmark that lacks a language, or a damaged file.
    """
    require_harness()
    if not names:
        raise DataError("--tasks: no benchmark is named")
    benchmarks: list[tuple[Benchmark, list[str]]] = []
    missing: list[tuple[str, str]] = []
    for name in dict.fromkeys(names):
        benchmark = _find(name, data, anchor, language_names)
        if any(benchmark.name == other.name for other, _ in benchmarks):
            raise DataError(f"--tasks: {benchmark.name} is named twice")
        has = benchmark.languages
        if languages is None and isinstance(benchmark, HarnessBenchmark):
            raise DataError(f"--languages: say in which languages {name} is asked; it has {', '.join(has)}")
        wanted = list(dict.fromkeys(has if languages is None else languages))
        if isinstance(benchmark, ParallelBenchmark):
            wanted = [code for code in wanted if code != anchor]
        lacking = [code for code in wanted if code not in has]
        if lacking and not skip_missing:
            check_language(lacking[0], "--languages", known=known_languages(language_names))
            raise DataError(
                f"{benchmark.name} has no {', '.join(lacking)}; it has {', '.join(has)}. Leave them out of "
                "--languages, or ask with --skip-missing for what each benchmark has"
            )
        missing += [(benchmark.name, code) for code in lacking]
        for code in wanted:
            if isinstance(benchmark, ParallelBenchmark) and code in has:
                benchmark.named_sides(code)
        first = [anchor] if anchor in has else []
        asked = first + [code for code in wanted if code in has and code != anchor]
        if not asked:
            raise DataError(f"{benchmark.name} has none of the languages asked for; it has {', '.join(has)}")
        benchmarks.append((benchmark, asked))
    held = {code for benchmark, _ in benchmarks for code in benchmark.languages}
    for _, code in missing:
        if code not in held:  # misspelt, it would be missing everywhere, and left out
            check_language(code, "--languages", known=known_languages(language_names))
    if not any(isinstance(found, ParallelBenchmark) or anchor in asked for found, asked in benchmarks):
        # Benchmarks without the anchor language there are (XCOPA has no English); misspelt codes too.
        check_language(anchor, "--anchor", known=known_languages(language_names))
    return Chosen(benchmarks, missing, anchor)


def _find(name: str, data: Path | None, anchor: str, names: Mapping[str, str] | None) -> Benchmark:
    where, _, bare = name.rpartition(":")
    if where not in ("", "local", "harness"):
        raise DataError(f"--tasks {name}: {where}: is unknown; a benchmark is NAME, local:NAME or harness:NAME")
    if where == "harness":
        if bare not in HARNESS:
            raise DataError(f"--tasks {name}: the harness has no such benchmark here{nearest(bare, HARNESS)}")
        return HARNESS[bare]
    if os.sep in bare or bare.endswith(ENDINGS):
        return _from_path(Path(bare), anchor, names)
    if data is not None:
        path = find_file(bare, data, inside=_QUESTIONS)
        if path is not None and not is_parallel(path):
            return read_benchmark(bare, path)
        stem, direction = _direction(bare)
        path = find_file(stem, data, inside=_SENTENCES)
        if path is not None and is_parallel(path):
            return read_parallel_benchmark(f"{stem}_{direction}", path, direction, anchor=anchor, names=names)
    if where == "" and bare in HARNESS:
        return HARNESS[bare]
    known = [*_local_names(data), *(HARNESS if where == "" else [])]
    place = f"in {data}" if data is not None else f"(no folder of local benchmarks: --data DIR or {PACK_VARIABLE})"
    kind = "local benchmark" if where == "local" else "benchmark"
    raise DataError(f"--tasks {name}: no such {kind} {place}{nearest(bare, known)}")


def _from_path(path: Path, anchor: str, names: Mapping[str, str] | None) -> Benchmark:
    stem, direction = path, None
    if not path.exists():
        base, direction = _direction(str(path))
        stem = Path(base)
        if not stem.is_file():
            raise DataError(f"--tasks {path}: no such file")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem.name.split(".")[0])
    if is_parallel(stem):
        return read_parallel_benchmark(
            f"{name}_{direction or 'into'}", stem, direction or "into", anchor=anchor, names=names
        )
    return read_benchmark(name, stem)


def _direction(name: str) -> tuple[str, Direction]:
    for direction in _DIRECTIONS:
        if name.endswith(f"_{direction}"):
            return name.removesuffix(f"_{direction}"), direction
    return name, "into"


def _local_names(data: Path | None) -> list[str]:
    if data is None:
        return []
    names = []
    for folder in (data / _QUESTIONS, data, data / _SENTENCES):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
            if path.is_file() and ending is not None:
                stem = path.name.removesuffix(ending)
                names += [f"{stem}_{way}" for way in _DIRECTIONS] if folder.name == _SENTENCES else [stem]
    return names
