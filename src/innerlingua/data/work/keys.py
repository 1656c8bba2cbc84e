"""Keys of servers: from the environment or a file, and into no log, card, journal or error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

from innerlingua.errors import DataError

__all__ = ["ApiKey", "read_key"]

_MASK: Final = "[key]"


class ApiKey:
    """A key that prints as a mask and can take itself out of any text. An empty key sends no header."""

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, origin: str) -> None:
        self._value = value
        self.origin = origin

    def __repr__(self) -> str:
        return _MASK if self._value else "[no key]"

    def headers(self) -> dict[str, str]:
        """The HTTP header that carries the key."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def redact(self, text: str) -> str:
        """`text` without the key, however it is written: servers repeat keys in their errors."""
        if self._value:
            for written in {self._value, json.dumps(self._value)[1:-1], quote(self._value, safe="")}:
                text = text.replace(written, _MASK)
        return text


def read_key(*, environment: str | None = None, file: str | Path | None = None, option: str = "--key") -> ApiKey:
    """The key from an environment variable or a file; an empty one when neither is named.

    Args:
        environment: the variable's name.
        file: the file's path.
        option: what the options of the two begin with, for messages.

    Raises:
        DataError: both are named, the variable is not set, or the file is missing, empty, or holds several lines.
    """
    if environment and file:
        raise DataError(f"{option}-env and {option}-file: name one place for the key, not two")
    if environment:
        value, origin = os.environ.get(environment, "").strip(), f"the variable {environment}"
        if not value:
            raise DataError(f"{option}-env {environment}: the variable is not set. Set it to the key, or leave it out.")
    elif file:
        value, origin = _read(Path(file), f"{option}-file {file}"), f"the file {file}"
        if not value or len(value.split()) != 1:
            raise DataError(f"{option}-file {file}: the file must hold the key and nothing else")
    else:
        return ApiKey("", "no key")
    if not value.isascii() or not value.isprintable():
        raise DataError(f"the key in {origin} holds characters that no HTTP header can carry")
    return ApiKey(value, origin)


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError as error:
        raise DataError(f"{where}: no such file") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); it must be a readable file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: no text; the file must hold the key and nothing else") from error
