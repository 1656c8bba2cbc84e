"""A forward pass for its routing alone: it ends as soon as the last router that is wanted has run.

What comes after that router, its experts and the layers above, changes nothing of what is captured, and need not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from innerlingua.anatomy.layers import MoELayer, on_routing

__all__ = ["PassIsDone", "ending_with_the_last"]


class PassIsDone(Exception):  # noqa: N818  # no error
    """Leaves a forward pass whose routing is known."""


@contextmanager
def ending_with_the_last(layers: Sequence[MoELayer], *, experts: bool = False) -> Iterator[None]:
    """Leave the pass of the backbone inside when the last router of `layers` has run.

    With `experts` only where the next layer would begin, so that the last one's experts run; and so with a gradient: a
    checkpointed layer that was left in its middle could not be recomputed.
    """
    # DeepSpeed ZeRO-3 keeps account of the modules of a pass from beginning to end.
    partitioned = any(hasattr(parameter, "ds_id") for parameter in layers[0].backbone.parameters())
    handles: list[RemovableHandle] = []
    if not partitioned:
        last = max(layers, key=lambda layer: layer.index)
        if not experts and not torch.is_grad_enabled():
            handles = on_routing(last, _end_the_pass)  # after the hooks of a capture, which is there already
        elif (following := _layer_after(last)) is not None:
            handles = [following.register_forward_pre_hook(_end_the_pass)]
    try:
        yield
    except PassIsDone:
        pass
    finally:
        for handle in handles:
            handle.remove()


def _end_the_pass(*_: Any) -> None:
    raise PassIsDone


def _layer_after(layer: MoELayer) -> nn.Module | None:
    """The decoder layer that runs next after `layer`, where both stand in one list; None for the last one."""
    for module in layer.backbone.modules():
        if isinstance(module, nn.ModuleList):
            places = [place for place, child in enumerate(module) if child is layer.decoder_layer]
            if places:
                return module[places[0] + 1] if places[0] + 1 < len(module) else None
    return None
