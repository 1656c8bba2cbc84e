"""The errors that a user can meet.

Each message says what was wrong, where, and how to mend it, in one piece of text. The command line prints it without a
traceback and ends with exit code 2; from Python it is an ordinary exception. Whatever is not one of these is a fault of
ours and keeps its traceback (exit code 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["DataError", "InnerlinguaError", "ModelError", "PriorError", "RecipeError", "file_error", "nearest"]


class InnerlinguaError(Exception):
    """Bad input, or a request that is refused. The message is for the user: what, where, remedy."""


class RecipeError(InnerlinguaError):
    """A recipe, or an option that overrides one, says something that cannot be run."""


class DataError(InnerlinguaError):
    """A data file or a row cannot be used as it stands."""


class ModelError(InnerlinguaError):
    """A model that cannot be captured, aligned or trained as asked."""


class PriorError(InnerlinguaError):
    """A stored routing prior that is missing, damaged, or belongs to another model, tokenizer or text."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt `word`: `"; did you mean 'weight'?"`, or the known words when none is close."""
    candidates = sorted(known)
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(candidates)}" if candidates else ""


def file_error(error: OSError) -> str:
    """What the file system refused, for a user: a folder that cannot be written, a full disk, a file in the way."""
    return f"{error.filename or 'file system'}: {error.strerror or error}"
