"""Whether something can be written to a place, asked before the work whose result is to go there. Imports no torch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from innerlingua.errors import InnerlinguaError

__all__ = ["check_writable"]


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
