"""The few functions of SciPy that the statistics need, behind one message for those who have not installed it."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from innerlingua.errors import InnerlinguaError

__all__ = ["normal_tail", "special", "t_quantile"]


@cache
def special() -> Any:
    """`scipy.special`.

    Raises:
        InnerlinguaError: SciPy is not installed.
    """
    try:
        return importlib.import_module("scipy.special")
    except ImportError as error:
        raise InnerlinguaError(
            "comparing results needs the library scipy; install it with: pip install 'innerlingua[evaluate]'"
        ) from error


def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t with `freedom` degrees of freedom."""
    return float(special().stdtrit(freedom, probability))


def normal_tail(x: float) -> float:
    """The probability that a standard normal variable is below `x`."""
    return float(special().ndtr(x))
