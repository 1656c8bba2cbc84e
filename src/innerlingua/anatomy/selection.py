"""Which of a model's MoE layers are meant: lists of decoder-layer indices, checked and in order of depth."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from innerlingua.anatomy.layers import MoELayer
from innerlingua.errors import ModelError

__all__ = ["layer_indices", "select_layers"]


def layer_indices(layers: Iterable[int]) -> list[int]:
    """`layers` as decoder-layer indices in order of depth, each once.

    Any iterable of integers will do (a range, a list, NumPy's integers). Raises `ModelError` for anything else, for no
    layer at all, and for truth values, which Python would take for 0 and 1.
    """
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        form = "; '7-34' is how a recipe writes range(7, 35)" if isinstance(layers, str) else ""
        raise _refused(layers, form)
    given: list[Any] = list(layers)
    if not given:
        raise ModelError("no layer was asked for: name at least one decoder layer, as in range(7, 35) or [7, 8, 9]")
    found = set()
    for layer in given:
        if isinstance(layer, bool):
            raise _refused(given, f": {layer} is a truth value")
        try:
            found.add(operator.index(layer))
        except TypeError:
            raise _refused(given, f": {layer!r} is no integer") from None
    return sorted(found)


def select_layers(available: Sequence[MoELayer], indices: Iterable[int] | None) -> list[MoELayer]:
    """The layers with the given decoder-layer indices, in order of depth; all of them for None.

    Raises `ModelError` as `layer_indices`, and one that names the indices which are no MoE layers, and those which are.
    """
    if indices is None:
        return list(available)
    wanted = set(layer_indices(indices))
    missing = sorted(wanted - {layer.index for layer in available})
    if missing:
        raise ModelError(
            f"no MoE layer at decoder layer {_ranges(missing)}: this model's MoE layers are "
            f"{_ranges([layer.index for layer in available])} (decoder-layer indices, counted from 0)"
        )
    return [layer for layer in available if layer.index in wanted]


def _refused(layers: Any, why: str) -> ModelError:
    return ModelError(f"layers are a list of decoder-layer indices, as range(7, 35) or [7, 8, 9], not {layers!r}{why}")


def _ranges(indices: Sequence[int]) -> str:
    """`[3, 4, 5, 9]` as `3-5, 9`."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
