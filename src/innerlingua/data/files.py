"""Writing rows so that a killed run leaves no half file that looks whole: a temporary name, fsync, then rename.

What a path ends with says the format: JSON Lines (.jsonl, .jsonl.gz), Parquet (.parquet), or, without an ending, a
folder of `datasets.save_to_disk`.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from innerlingua.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "check_beside",
    "check_name",
    "check_output",
    "place_of",
    "put_rows",
    "put_tables",
    "replaced",
    "write_rows",
    "write_text",
]

_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


def check_output(path: str | Path, *, overwrite: bool, inputs: Sequence[Any] = ()) -> Path:
    """The path of an output, refused before any work when it cannot be written.

    Args:
        path: as the user gave it.
        overwrite: whether what is there may be replaced.
        inputs: what is read; an output never takes the place of an input.

    Raises:
        DataError: it exists and `overwrite` is false, its ending names no format, it is one of the inputs or lies in
            one, or is a folder that `save_to_disk` did not write, a pipe or a device, or its own folder is a file.
    """
    out = Path(path)
    check_name(out)
    if not out.name or out.name in (".", ".."):
        raise DataError(f"{path}: give the output a name of its own")
    if out.suffix and not out.name.endswith(_ENDINGS):
        raise DataError(f"{path}: unknown format; an output ends with {', '.join(_ENDINGS)}, or is a folder's name")
    _check_inputs(out, inputs)
    if out.exists() and not out.is_file() and not out.is_dir():
        raise DataError(f"{path}: a pipe or a device; rows are written to files. Choose another name.")
    if out.exists() and not overwrite:
        raise DataError(f"{path}: exists already; choose another name, or --overwrite")
    if out.is_dir() and (out.suffix or not _is_dataset(out)):
        raise DataError(f"{path}: a folder that save_to_disk did not write is not overwritten; choose another name")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise DataError(f"{path}: {folder} is no folder")
    if not os.access(folder, os.W_OK):
        raise DataError(f"{path}: nothing can be written in {folder}")
    return out


def check_beside(paths: Sequence[Path], *, overwrite: bool, inputs: Sequence[Any] = ()) -> None:
    """Refuse, before any work, to write what goes beside an output over something that is not ours.

    Args:
        paths: what will be written beside it.
        overwrite: whether what is there may be replaced, such as by a run that goes on from its own journal.
        inputs: what is read.

    Raises:
        DataError: one of the paths is an input, a folder, or there already while `overwrite` is false.
    """
    for path in paths:
        _check_inputs(path, inputs, ", which is written beside the output,")
        if path.is_dir():
            raise DataError(f"{path}: a folder, where a file is written beside the output; choose another output")
        if path.exists() and not overwrite:
            raise DataError(
                f"{path}: exists already, and is written beside the output; choose another output, or --overwrite"
            )


def place_of(path: str | Path) -> tuple[Path, str | None]:
    """The file or folder that an input names, and the split that it chooses there (`folder:split`); None for no split.

    What is there under the whole of the name is that, colon and all.
    """
    place = Path(path)
    stem, _, split = place.name.rpartition(":")
    if stem in ("", ".") or place.exists():
        return place, None
    return place.with_name(stem), split


def check_name(path: Path) -> None:
    """Refuse a file name that no UTF-8 text can hold: it goes into rows, cards and messages.

    Raises:
        DataError: with the name, its odd bytes spelt out.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{str(path)!a}: the name is not UTF-8, and goes into rows and cards; rename it") from error


def _check_inputs(out: Path, inputs: Sequence[Any], told: str = "") -> None:
    for given in inputs:
        if not isinstance(given, str | Path):
            continue
        path, _ = place_of(given)
        if not path.exists():
            continue
        inside = any((path / name).is_file() for name in ("state.json", "dataset_dict.json")) and (
            out.resolve().is_relative_to(path.resolve())
        )
        if inside or (out.exists() and out.samefile(path)):
            where = f"lies in the input {given}" if inside else "is an input as well"
            raise DataError(f"{out}{told or ':'} {where}; inputs are never changed. Choose another name.")


def _is_dataset(folder: Path) -> bool:
    """Whether a folder is what `save_to_disk` writes and nothing else, so that it may be replaced."""
    names = {entry.name for entry in folder.iterdir()}
    return {"state.json", "dataset_info.json"} <= names and all(
        name.endswith(".arrow") or name in ("state.json", "dataset_info.json") or name.startswith(".") for name in names
    )


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed when it does not.

    What belongs to an output is written inside of its block: where the output is, all of it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        if path.is_dir() and temporary.is_dir():
            # Out of the way first: at every moment one of the two is whole.
            before = path.with_name(f"{temporary.name}.before")
            path.replace(before)
            temporary.replace(path)
            shutil.rmtree(before)
        else:
            temporary.replace(path)
    except OSError as error:
        if error.filename is not None:
            raise
        # A full disk, often; say which file could not be written.
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON rows (.jsonl, .jsonl.gz) whole or not at all; null values are left out. The number of rows."""
    with replaced(path) as temporary:
        return put_rows(temporary, path, rows)


def put_rows(temporary: Path, path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON rows to the temporary path of `replaced(path)`, in the format that `path` names; their number."""
    count = 0
    with _binary(temporary, path) as stream:
        for row in rows:
            stream.write(_line(row))
            count += 1
    return count


def put_tables(temporary: Path, path: Path, tables: Iterable[pa.Table]) -> int:
    """Write Arrow tables of one schema to the temporary path of `replaced(path)`, in the format that `path` names.

    They are not held together in memory.

    Returns:
        The number of rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return put_rows(temporary, path, (row for table in tables for row in table.to_pylist()))
    count = 0
    stream = temporary if path.suffix == ".parquet" else temporary.with_name(temporary.name + ".arrow")
    writer: Any = None
    try:
        for table in tables:
            if writer is None:
                opened = pq.ParquetWriter if path.suffix == ".parquet" else pa.ipc.new_stream
                writer = opened(str(stream), table.schema)
            writer.write_table(table)
            count += len(table)
        if writer is not None:
            writer.close()
        if path.suffix != ".parquet":
            from datasets import Dataset

            Dataset.from_file(str(stream)).save_to_disk(str(temporary))
    finally:
        if stream != temporary:
            stream.unlink(missing_ok=True)
    return count


def _binary(temporary: Path, path: Path) -> IO[bytes]:
    # mtime 0: the same rows give the same bytes.
    if path.name.endswith(".gz"):
        return cast(IO[bytes], gzip.GzipFile(temporary, "wb", compresslevel=6, mtime=0))
    return temporary.open("wb")


def _line(row: Mapping[str, Any]) -> bytes:
    given = {name: value for name, value in row.items() if value is not None}
    return json.dumps(given, ensure_ascii=False).encode() + b"\n"
