"""Whether something can be written to a place, asked before the work whose result is to go there, and what a write says
that fails all the same. Imports no torch.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from innerlingua.errors import InnerlinguaError, RecipeError

__all__ = ["check_writable", "refusing_full", "write_failure"]

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
# safetensors puts the number of the system's error into its words; `torch.save` says only that it failed.
_NUMBERED = re.compile(r"\(os error (\d+)\)")
_ARCHIVE = re.compile(r"PytorchStreamWriter failed|inline_container\.cc.*unexpected pos|file write failed", re.DOTALL)


def check_writable(path: Path, option: str) -> None:
    """Raise `InnerlinguaError` unless a file can be made at `path`, or in it where it is a folder, or is to be one.

    A file is made in the nearest folder that exists and taken away again: permissions alone tell neither of a disk that
    is mounted for reading nor of one without room. `option` names the choice of `path` in the message.
    """
    place = path
    try:
        while not place.exists() and not place.is_symlink() and place != place.parent:
            place = place.parent
        for missing in path.relative_to(place).parts:
            (place / missing).exists()  # raises for a name that is too long for the file system
        if place == path and path.is_file():
            place = path.parent
        descriptor, name = tempfile.mkstemp(prefix=".innerlingua-", dir=place)
        os.close(descriptor)
        os.unlink(name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InnerlinguaError(
            f"{option}: nothing can be written to {path} ({reason}, in {place}); name another place"
        ) from error


def write_failure(error: BaseException) -> str | None:
    """What the file system refused when `error`, or what it came from, is a write that failed; None for other errors.

    A disk or a quota that is full, a file that is too large for either, a disk that fails or is only for reading.
    """
    seen: BaseException | None = error
    while seen is not None:
        words = str(seen)
        number = seen.errno if isinstance(seen, OSError) else None
        if number is None and (match := _NUMBERED.search(words)):
            number = int(match[1])
        if number in _REFUSED:
            name = getattr(seen, "filename", None)
            return f"{os.strerror(number)}{f', {name}' if name else ''}"
        if isinstance(seen, RuntimeError) and _ARCHIVE.search(words):
            return "torch could not write a file to its end; most often the disk is full"
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def refusing_full(place: str) -> Iterator[None]:
    """Inside, a write that the file system refuses is a `RecipeError` that opens with `place`, and not a traceback."""
    try:
        yield
    except InnerlinguaError:
        raise
    except Exception as error:  # safetensors and torch have errors of their own for it
        reason = write_failure(error)
        if reason is None:
            raise
        raise RecipeError(
            f"{place}: nothing more can be written ({reason}). Make room, or name another place, and start again"
        ) from error
