"""An append-only record of finished tasks: one JSON object a line, on disk before it counts.

The first line names the job: everything that decides an answer (model, template, settings, inputs). Continuing with
another job is refused, naming what differs. A line cut off by a kill or a power failure is dropped on opening; damage
elsewhere is an error. Two processes cannot hold one journal. Results stay on disk; memory holds a place per key.

A finished task can be opened again, to be done anew; what earlier rounds came to stands beside it as its past.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from innerlingua.errors import DataError

__all__ = ["Journal"]

_SCHEMA = "innerlingua.journal/1"
_HEADER = b'{"schema"'


class Journal:
    """The finished and failed tasks of one job.

    Args:
        path: the file; made when it is missing.
        job: JSON object of all that decides the answers, compared with the one in the file.
        restart: throw away what the file holds.

    Raises:
        DataError: another job's journal, a damaged one, or one that another process holds.
    """

    def __init__(self, path: str | Path, job: Mapping[str, Any], *, restart: bool = False) -> None:
        self.path = Path(path)
        self.failed: dict[str, str] = {}
        self.past: dict[str, Any] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a write that failed must not be tried again by a later one.
        self._file: IO[bytes] = open(self.path, "a+b", buffering=0)  # noqa: SIM115  (closed by close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise DataError(f"{path}: another process is working on it; wait for it, or end it") from error
        try:
            if restart:
                self._file.truncate(0)
            self._end = 0
            self._load(dict(job))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Let go of the file. Nothing is lost without it."""
        self._file.close()

    def _load(self, job: dict[str, Any]) -> None:
        start = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                entry = _parse(line, first=number == 1)
                if entry is None or (number > 1 and "key" not in entry):
                    begun = number > 1 or line.startswith(_HEADER[: len(line)])
                    if lines.read(1) or not begun:
                        raise DataError(
                            f"{self.path}, line {number}: damaged. Restore the file, or begin anew with --restart."
                        )
                    break  # the last line, cut off while it was written
                if number == 1:
                    self._check_job(entry, job)
                else:
                    self._take(entry, (start, len(line)))
                start += len(line)
        self._file.truncate(start)
        self._end = start
        if start == 0:
            self._write([{"schema": _SCHEMA, "job": job}])

    def _take(self, entry: dict[str, Any], place: tuple[int, int]) -> None:
        key = entry["key"]
        if "reason" in entry:
            self.failed[key] = entry["reason"]
        elif "past" in entry:
            self._places.pop(key, None)
            self.past[key] = entry["past"]
        else:
            self._places.setdefault(key, place)
            self.failed.pop(key, None)

    def _check_job(self, entry: dict[str, Any], job: dict[str, Any]) -> None:
        if entry.get("schema") != _SCHEMA:
            raise DataError(
                f"{self.path}: not a journal of this version ({entry.get('schema')!r}); begin with --restart"
            )
        if not isinstance(entry.get("job"), dict):
            raise DataError(f"{self.path}, line 1: damaged. Restore the file, or begin anew with --restart.")
        stored, given = _flat(entry["job"]), _flat(json.loads(json.dumps(job)))
        differ = sorted(name for name in {*stored, *given} if stored.get(name) != given.get(name))
        if differ:
            told = "; ".join(f"{n}: {stored.get(n)!r} then, {given.get(n)!r} now" for n in differ)
            raise DataError(
                f"{self.path}: begun with other settings ({told}). Continue with those of then, write to another "
                "output, or begin anew with --restart."
            )

    def append(self, done: Sequence[tuple[str, Any]], failed: Sequence[tuple[str, str]] = ()) -> None:
        """Record results and failures; when it returns they are on disk. A key that is done stays as it is."""
        fresh = [(key, result) for key, result in done if key not in self._places]
        lines = self._write([{"key": k, "result": r} for k, r in fresh] + [{"key": k, "reason": r} for k, r in failed])
        for (key, _), place in zip(fresh, lines, strict=False):
            self._places.setdefault(key, place)
            self.failed.pop(key, None)
        self.failed.update((key, reason) for key, reason in failed if key not in self._places)

    def reopen(self, pasts: Mapping[str, Any]) -> None:
        """Make finished tasks unfinished: key -> what is remembered of them in `past`. On disk when it returns."""
        self._write([{"key": key, "past": past} for key, past in pasts.items()])
        for key, past in pasts.items():
            self._places.pop(key, None)
            self.past[key] = past

    def _write(self, entries: list[dict[str, Any]]) -> list[tuple[int, int]]:
        lines = [json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for entry in entries]
        try:
            data = memoryview(b"".join(lines))
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            # A full disk, often: half a line must not stay, or what comes after it would be damage.
            self._file.truncate(self._end)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        places = []
        for line in lines:
            places.append((self._end, len(line)))
            self._end += len(line)
        return places

    def result(self, key: str) -> Any:
        """The result of a task that is done.

        Raises:
            KeyError: it is not.
        """
        start, length = self._places[key]
        return json.loads(os.pread(self._file.fileno(), length, start))["result"]

    def reply(self, key: str) -> dict[str, Any]:
        """The result of a task that is done, where results are objects.

        Raises:
            DataError: it is none, which only an edit by hand makes.
        """
        result = self.result(key)
        if not isinstance(result, dict):
            raise DataError(
                f"{self.path}: damaged: the result of {key!r} is no object, so it was edited. Take its line out and "
                "the task is done anew, or begin anew with --restart."
            )
        return result


def _flat(job: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, so that a difference is named by its own name."""
    flat: dict[str, Any] = {}
    for name, value in job.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _parse(line: bytes, *, first: bool) -> dict[str, Any] | None:
    """The entry on a line, the `first` of which names the job; None when it is damaged, or was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    told = isinstance(entry.get("key"), str) and any(name in entry for name in ("result", "reason", "past"))
    return entry if told or (first and "schema" in entry) else None
