"""Options that take several values at once: `--tasks a b` is `--tasks a --tasks b`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from innerlingua.errors import DataError

__all__ = ["many_values", "split"]


def many_values(*options: str) -> type[TyperCommand]:
    """A command class whose `options` take every value up to the next option."""

    class ManyValues(TyperCommand):
        """Repeats the option before each further value, then parses."""

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            expanded: list[str] = []
            option: str | None = None
            for position, argument in enumerate(args):
                if argument == "--":
                    expanded += args[position:]
                    break
                if argument.startswith("-") and argument != "-":
                    option = argument if argument in options else None
                elif option is not None and expanded and expanded[-1] != option:
                    expanded.append(option)
                expanded.append(argument)
            return super().parse_args(ctx, expanded)

    return ManyValues


def split(given: Sequence[str] | None, option: str) -> list[str] | None:
    """The values of an option, also where several are in one word: `a,b`. Raises `DataError` when nothing is in it."""
    if given is None:
        return None
    values = [value.strip() for word in given for value in word.split(",") if value.strip()]
    if not values:
        raise DataError(f"{option}: no value in it")
    return values
