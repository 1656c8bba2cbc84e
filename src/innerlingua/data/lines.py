"""One line of a text file, as text and as a row of JSON; every fault is named with its column and a remedy.

What plain `json.loads` would let pass in silence is refused as well: a key that occurs twice (the last would win), NaN
and Infinity (which are no JSON), and half a surrogate pair (which is no character).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from innerlingua.errors import DataError

__all__ = ["Row", "json_row", "text_line"]

Row = dict[str, Any]
"""Column -> value."""

_MAGIC: Final = (
    (b"\x1f\x8b", "it is compressed by gzip; let its name end with .gz"),
    (b"PAR1", "it is a Parquet file; let its name end with .parquet"),
    (b"PK\x03\x04", "it is a zip archive or a spreadsheet; unpack it, or save it as CSV"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd; decompress it, or compress it by gzip"),
    (b"BZh", "it is compressed by bzip2; decompress it, or compress it by gzip"),
    (b"\xfd7zXZ", "it is compressed by xz; decompress it, or compress it by gzip"),
    (b"\xff\xfe\0\0", "it is UTF-32; save it as UTF-8"),
    (b"\0\0\xfe\xff", "it is UTF-32; save it as UTF-8"),
    (b"\xff\xfe", "it is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16; save it as UTF-8"),
)
"""What a file begins with that is no UTF-8 text of rows."""
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


class _RowError(ValueError):
    """JSON that Python reads and that is no row."""


def text_line(where: str, line: bytes, *, first: bool) -> str:
    """A line as text.

    Raises:
        DataError: it is not UTF-8, or, in the `first` line, the file is of another kind than its name says.
    """
    if first:
        for magic, remedy in _MAGIC:
            if line.startswith(magic):
                raise DataError(f"{where}: this is no text in UTF-8: {remedy}.")
        if b"\0" in line[:4]:
            raise DataError(f"{where}: this is no text in UTF-8: it may be UTF-16 or UTF-32; save it as UTF-8.")
    try:
        # Some editors put a byte order mark before the first line; it belongs to no row.
        return line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}). Save the file as UTF-8."
        ) from error


def json_row(where: str, line: bytes, *, first: bool) -> Row:
    """A line of JSON Lines as a row.

    Raises:
        DataError: as `text_line`; also broken JSON, a key that occurs twice, or anything but an object.
    """
    text = text_line(where, line, first=first)
    try:
        row = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: {_broken(error, text)}") from error
    except RecursionError as error:
        raise DataError(f"{where}: broken JSON: nested too deeply to be a row.") from error
    except _RowError as error:
        raise DataError(f"{where}: {error}.") from error
    except ValueError as error:
        raise DataError(f"{where}: a number with thousands of digits; write it as a text, in quotes.") from error
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: {_KINDS[type(row)]} where a row must be an object, such as "
            f'{{"id": "1", "language": "swh_Latn", ...}}{_several_lines(text)}.'
        )
    if "\\u" in text:
        _refuse_half_pairs(row, where)
    return row


_KINDS: Final = {
    list: "a JSON array",
    str: "a JSON text",
    int: "a JSON number",
    float: "a JSON number",
    bool: "a JSON true or false",
    type(None): "a JSON null",
}


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RowError(f"the key {twice!r} occurs twice in one object; keep one of the two")
    return row


def _constant(name: str) -> Any:
    raise _RowError(f"{name} is no JSON; write null, or leave the key out")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _broken(error: json.JSONDecodeError, text: str) -> str:
    end = len(text.rstrip())
    if error.pos >= end or error.msg.startswith("Unterminated string"):
        return (
            f"broken JSON: the line ends at column {end} before its object does. It was cut off, or the object goes "
            f"over several lines; each line must be one whole JSON object{_several_lines(text)}."
        )
    return (
        f"broken JSON at column {error.pos + 1}: {error.msg}. Each line must be one whole JSON object"
        f"{_several_lines(text)}."
    )


def _several_lines(text: str) -> str:
    begun = text.strip()
    if begun.startswith("["):
        return "; this looks like one JSON array, which `jq -c '.[]'` turns into lines"
    return "; `jq -c .` writes each object on one line" if begun == "{" else ""


def _refuse_half_pairs(row: Row, where: str) -> None:
    for name, value in row.items():
        if _HALF_PAIR.search(json.dumps({name: value}, ensure_ascii=False)):
            raise DataError(f"{where}: {name} holds half a surrogate pair (such as \\ud800), which is not a character")
