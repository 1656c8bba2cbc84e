"""Where rows come from: JSON Lines, Parquet, CSV, a saved `datasets` folder, or a dataset in memory.

Every source yields `(number, row)` one at a time, so a file of any size is read in constant memory, and every fault of
a file is named with its place: `pairs.jsonl, line 7` (counted from 1) or `pairs.parquet, row 6` (counted from 0).
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from innerlingua.data.files import check_name, place_of
from innerlingua.data.lines import Row, json_row, text_line
from innerlingua.data.wording import counted
from innerlingua.errors import DataError, nearest

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["Row", "Source", "open_sources"]

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_STRUCTURED = ("messages", "anchor_messages", "spans", "choices")  # cells of a CSV file that hold JSON
_READABLE = (
    "JSON Lines (.jsonl, .json, .ndjson), CSV (.csv, .tsv), each also with .gz, Parquet (.parquet), or a folder of "
    "save_to_disk"
)
_BATCH = 1000
_LONGEST_LINE = 1 << 26  # bytes; a small compressed file can hold one that fills the memory
_LONGEST_CELL = 1 << 24  # characters; the library's own limit is 2^17, less than a long conversation


@dataclass(frozen=True)
class Source:
    """One place that rows come from: its name as the user wrote it, how its rows are counted, and the rows."""

    name: str
    unit: str
    rows: Callable[[], Iterator[tuple[int, Row]]]

    def place(self, number: int) -> str:
        """The place of a row in words, such as `pairs.jsonl, line 7`."""
        return f"{self.name}, {self.unit} {number}"


def open_sources(paths: str | Path | Dataset | Sequence[str | Path | Dataset]) -> list[Source]:
    """The sources behind one path or several, checked for existence and format before any row is read.

    Args:
        paths: JSON Lines, CSV or Parquet files, folders written by `save_to_disk` (`folder:split` where it
            holds several splits), or `datasets.Dataset` objects.

    Raises:
        DataError: nothing given, a file is missing (with the nearest name), a format is unknown, a split is needed.
    """
    listed = [paths] if isinstance(paths, str | Path) else _listed(paths)
    if not listed:
        raise DataError("no data: the list of paths is empty. Give at least one file of rows.")
    return [_open(path) for path in listed]


def _listed(paths: Any) -> list[Any]:
    if isinstance(paths, list | tuple):
        return list(paths)
    # Only what is no path needs the library to be named; importing it takes a second.
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    if isinstance(paths, Dataset):
        return [paths]
    if isinstance(paths, DatasetDict | IterableDatasetDict):
        raise DataError(
            f"the dataset has splits ({', '.join(map(str, paths))}); pass one of them, such as data['train']"
        )
    if isinstance(paths, IterableDataset):
        raise DataError("a streamed dataset cannot be checked as a whole; load it without streaming=True")
    return list(paths)


def _open(path: str | Path | Dataset) -> Source:
    if not isinstance(path, str | Path):
        from datasets import Dataset

        if isinstance(path, Dataset):
            return _dataset_source("dataset in memory", path)
        raise DataError(f"a path must be text or a Path, not {type(path).__name__} ({path!r})")
    file, split = place_of(path)
    check_name(file)
    if not file.exists():
        told = ": a link that leads nowhere" if file.is_symlink() else f": no such file{_nearest_file(file)}"
        raise DataError(f"{path}{told}")
    if file.is_dir():
        return _folder(str(path), file, split)
    if split is not None:
        raise DataError(f"{path}: a split ({split!r}) can be chosen only in a folder of save_to_disk; {file} is a file")
    if not file.is_file():
        raise DataError(f"{path}: a pipe or a device, and rows are read more than once; write them to a file first")
    suffixes = file.name.lower().removesuffix(".gz")
    if suffixes.endswith(_JSON_LINES):
        return Source(str(path), "line", lambda: _json_lines(str(path), file))
    if (delimiter := _DELIMITERS.get(Path(suffixes).suffix)) is not None:
        return Source(str(path), "line", lambda: _csv(str(path), file, delimiter))
    if file.suffix.lower() == ".parquet":
        return Source(str(path), "row", lambda: _parquet(str(path), file))
    raise DataError(f"{path}: unknown format {file.suffix!r}. What can be read: {_READABLE}.")


def _nearest_file(file: Path) -> str:
    """A hint for a missing file: the nearest name beside it, or what is wrong with its folder."""
    folder = file.parent
    if not folder.is_dir():
        return f", and no such folder either: {folder}"
    names = [entry.name for entry in folder.iterdir()]
    close = difflib.get_close_matches(file.name, names, n=1, cutoff=0.5)
    return (
        f"; did you mean {str(file.with_name(close[0]))!r}?" if close else f" (nothing in {folder} has a name like it)"
    )


def _folder(name: str, folder: Path, split: str | None) -> Source:
    import pyarrow as pa
    from datasets import Dataset, load_from_disk

    def load(part: Path) -> Source:
        try:
            return _dataset_source(name, cast(Dataset, load_from_disk(str(part))))
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{name}: {part} is damaged ({error}); write it anew by save_to_disk") from error

    splits_file = folder / "dataset_dict.json"
    if splits_file.is_file():
        splits = _splits(name, splits_file)
        if split is None:
            raise DataError(f"{name}: holds the splits {', '.join(splits)}; say which, such as '{folder}:{splits[0]}'")
        if split not in splits:
            raise DataError(f"{name}: no split {split!r}{nearest(split, splits)}")
        return load(folder / split)
    if split is not None:
        raise DataError(f"{name}: {folder} holds one dataset without splits; leave out ':{split}'")
    if (folder / "state.json").is_file():
        return load(folder)
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith((".jsonl", ".gz", ".parquet")))
    listed = (
        f" It holds {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}: give the files one by one."
        if files
        else ""
    )
    raise DataError(f"{name}: a folder that save_to_disk did not write.{listed} What can be read: {_READABLE}.")


def _splits(name: str, file: Path) -> list[str]:
    try:
        splits = json.loads(file.read_text(encoding="utf-8"))["splits"]
        if splits and all(isinstance(split, str) for split in splits):
            return list(splits)
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{name}: {file.name} names no splits; write the folder anew by save_to_disk")


def _dataset_source(name: str, dataset: Dataset) -> Source:
    def rows() -> Iterator[tuple[int, Row]]:
        number = 0
        for table in dataset.with_format("arrow").iter(batch_size=_BATCH):
            for row in _rows(name, table, number):
                yield number, row
                number += 1

    return Source(name, "row", rows)


def _parquet(name: str, file: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH):
                for row in _rows(name, batch, number):
                    yield number, row
                    number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last one, of names in the footer
        raise DataError(f"{name}: cannot be read as Parquet after row {number}: {error}") from error


def _rows(name: str, batch: pa.Table | pa.RecordBatch, number: int) -> list[Row]:
    """The rows of a batch whose first one has this number; Arrow holds values that Python cannot."""
    names = batch.schema.names
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise DataError(f"{name}: the column {twice[0]!r} occurs twice; give each column one name")
    try:
        return cast(list[Row], batch.to_pylist())
    except (ValueError, OverflowError, KeyError) as error:  # text that is not UTF-8, a date or a time zone beyond all
        last = number + batch.num_rows - 1
        raise DataError(
            f"{name}, rows {number} to {last}: {_unreadable(batch)}. Mend the column, or drop it."
        ) from error


def _unreadable(batch: pa.Table | pa.RecordBatch) -> str:
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values.to_pylist()
        except (ValueError, OverflowError, KeyError) as error:
            return f"column {column!r} ({values.type}) holds what cannot be read: {error}"
    return "a column holds what cannot be read"


def _json_lines(name: str, file: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        with _binary(file) as stream:
            for number, line in _bounded(stream, name):
                if line.strip():
                    yield number, json_row(f"{name}, line {number}", line, first=number == 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: cannot be read after line {number}: {_told(error)}") from error


def _csv(name: str, file: Path, delimiter: str) -> Iterator[tuple[int, Row]]:
    """Rows of a CSV file with a header; an empty cell is no value. A row is counted by the line that it ends on."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    reader = csv.reader(_text_lines(name, file), delimiter=delimiter, strict=True)
    before = 0
    try:
        header = next(reader, None)
        if header is None:
            return
        _check_header(header, delimiter, f"{name}, line 1")
        before = reader.line_num
        for cells in reader:
            if cells:
                if len(cells) != len(header):
                    raise DataError(
                        f"{name}, line {reader.line_num}: {counted(len(cells), 'cell')} where the header names "
                        f"{counted(len(header), 'column')}. Quote cells that hold {delimiter!r}, quotes or line breaks."
                    )
                yield reader.line_num, _cells(header, cells, f"{name}, line {reader.line_num}")
            before = reader.line_num
    except csv.Error as error:
        # The reader finds out at the end of a broken row; the fault stands somewhere between.
        lines = f"line {before + 1}" if reader.line_num <= before + 1 else f"lines {before + 1} to {reader.line_num}"
        if "new-line character" in str(error):
            raise DataError(
                f"{name}, {lines}: broken CSV: a carriage return that ends no line. End lines with line feeds, and "
                "quote cells that hold either."
            ) from error
        raise DataError(
            f"{name}, {lines}: broken CSV: {error}. Cells that hold {delimiter!r}, quotes or line breaks stand in "
            "quotes, and a quote inside them is written twice (RFC 4180)."
        ) from error


def _check_header(header: list[str], delimiter: str, where: str) -> None:
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise DataError(f"{where}: the column {twice[0]!r} occurs twice; give each column one name")
    other = next((mark for mark in ";\t,|" if mark != delimiter and len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise DataError(
            f"{where}: the header is one column {header[0]!r}; cells are separated by {delimiter!r} here, not by "
            f"{other!r} (.csv has commas, .tsv has tabs)"
        )


def _cells(header: list[str], cells: list[str], where: str) -> Row:
    row: Row = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
    for column in _STRUCTURED:
        if column in row:
            try:
                row[column] = json.loads(row[column])
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: {column} must hold JSON in a CSV file: {error}") from error
    return row


def _text_lines(name: str, file: Path) -> Iterator[str]:
    number = 0
    try:
        with _binary(file) as stream:
            for number, line in _bounded(stream, name):
                yield text_line(f"{name}, line {number}", line, first=number == 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: cannot be read after line {number}: {_told(error)}") from error


def _bounded(stream: IO[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a stream with their numbers; one that is longer than any row is refused before it is held whole."""
    for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), start=1):
        if len(line) > _LONGEST_LINE:
            raise DataError(
                f"{name}, line {number}: is longer than {_LONGEST_LINE // 2**20} MiB; a row is one line. Does the file "
                "hold rows?"
            )
        yield number, line


def _binary(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb")) if file.name.lower().endswith(".gz") else file.open("rb")


def _told(error: Exception) -> str:
    if isinstance(error, gzip.BadGzipFile):
        return "not compressed by gzip, as its name says; rename or compress it"
    if isinstance(error, EOFError | zlib.error):
        return f"{error}. The file is cut off or damaged; get it anew."
    return str(error)
