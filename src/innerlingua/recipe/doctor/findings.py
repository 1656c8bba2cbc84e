"""Collects what is found: notes as they come, and what would have stopped a training, without stopping here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import innerlingua
from innerlingua.errors import InnerlinguaError, file_error
from innerlingua.recipe.doctor.report import Finding, Level
from innerlingua.recipe.loading import placed
from innerlingua.recipe.schema import Recipe

__all__ = ["Findings"]

_OURS = Path(innerlingua.__file__).parent


class Findings:
    """The findings on one recipe, in the order in which they were made; `said` is what a training would have said."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.items: list[Finding] = []
        self.said: list[str] = []

    def add(self, level: Level, key: str, what: str, remedy: str = "") -> None:
        """One finding about `key` of the recipe."""
        self.items.append(Finding(level, key, self._recipe.where(key), what, remedy))

    def say(self, text: str) -> None:
        """What the functions of a training say on their way. A note of theirs is a finding."""
        if text.startswith("note: "):
            self.add("warning", "model.dtype", text.removeprefix("note: "))
        else:
            self.said.append(text)

    @contextmanager
    def stage(self, key: str, fine: str | None = None) -> Iterator[None]:
        """What is raised inside for a user to mend is a refusal of `key`, and what follows goes on.

        `fine` is what is found when nothing is raised.
        The same refusal is not noted twice. Warnings that this package gives are findings; those of others are given.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            try:
                with placed(self._recipe):
                    yield
                if fine is not None:
                    self.add("ok", key, fine)
            except InnerlinguaError as error:
                self._refuse(key, str(error))
            except OSError as error:
                self._refuse(key, file_error(error))
        for warning in caught:
            if _OURS in Path(warning.filename).parents and warning.category is UserWarning:
                self.add("warning", key, " ".join(str(warning.message).split()))
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def _refuse(self, key: str, words: str) -> None:
        if not any(item.level == "refused" and item.what == words for item in self.items):
            self.add("refused", key, words)
