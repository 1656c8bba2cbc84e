"""Lengths in tokens, by a tokenizer that is read without its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from innerlingua.errors import DataError

__all__ = ["token_counter"]


def token_counter(path: str | Path | None) -> Callable[[list[str]], list[int]] | None:
    """What counts the tokens of texts, without special ones; None without a path.

    Raises:
        DataError: `path` is neither the folder nor the file of a fast tokenizer.
    """
    if path is None:
        return None
    from tokenizers import Tokenizer

    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    remedy = "give the folder of a model with a tokenizer.json in it, or leave --tokenizer out"
    if not file.is_file():
        raise DataError(f"--tokenizer {path}: no tokenizer.json there; {remedy}")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"--tokenizer {path}: {file.name} is no tokenizer ({error}); {remedy}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(e) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
