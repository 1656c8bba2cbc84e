"""Where the values of a recipe come from, so that a message can name the place. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from innerlingua.recipe.overrides import Override
from innerlingua.recipe.reading import Document

__all__ = ["Origin"]


@dataclass(frozen=True)
class Origin:
    """The file and the command-line options of a recipe. Any two are equal: recipes are compared by what they say."""

    document: Document | None = field(default=None, compare=False)
    overrides: tuple[Override, ...] = field(default=(), compare=False)

    def override(self, path: tuple[str, ...]) -> Override | None:
        """The option that set the key at `path`, a part of it, or a mapping that it is in; the last one wins."""
        for override in reversed(self.overrides):
            shared = min(len(path), len(override.path))
            inside = len(override.path) > len(
                path
            )  # an option for a part of a key; for one of a section it says little
            if path[:shared] == override.path[:shared] and (len(path) > 1 if inside else shared > 0):
                return override
        return None

    def written(self, path: tuple[str, ...]) -> str | None:
        """The words of the option that set the key at `path` itself, None where there is no such option."""
        override = self.override(path)
        return override.text if override is not None and override.path == path else None

    def where(self, path: tuple[str, ...]) -> str:
        """`command line, --trainer.seed`, or `recipe.yaml, line 7`, or `recipe.yaml` for a key that stands nowhere."""
        override = self.override(path)
        if override is not None:
            return f"command line, {override.written}"
        if self.document is None:
            return "recipe"
        for depth in range(len(path), 0, -1):
            if path[:depth] in self.document.lines:
                return f"{self.document.name}, line {self.document.lines[path[:depth]]}"
        return self.document.name
