"""The hooks of one capture: what they pool while a pass runs, and how they stay true when its layers run again.

On every router a hook takes the logits, makes the routing distribution of them and pools it, all in float32:

    pooled[s, l, :] = sum_t weight[s, t] * p[l, t, :]      with weight[s, t] = 1 / |s| for the tokens t of segment s

so that what stays is (segments, layers, experts) and not (tokens, layers, experts). Whole sequences, sequences in a
packed row and aligned spans are all segments: one matrix product per layer, (rows, slots, tokens) x (rows, tokens,
experts), where a slot is the place of a segment in its row.

Gradient checkpointing. A checkpointed layer runs again during the backward pass, after the context has been left, and
torch demands that it then saves the same tensors. The hook must therefore do the same work in that second run. So the
hooks of a pass stay, dormant, until the autograd graph of its routers is freed: they act when a layer that belongs to
the pass is recomputed, which is told by the memory of the layer's input (torch keeps that tensor for the recomputation
and hands it over again), and the result of the second run is dropped. Without checkpointing nothing stays.

Shape letters: B rows, T tokens of a row, S segments, K slots (most segments in one row), E experts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.hooks import RemovableHandle

from innerlingua.anatomy.captured import PassRouting, RoutingCapture
from innerlingua.anatomy.ending import PassIsDone
from innerlingua.anatomy.layers import MoELayer, on_routing
from innerlingua.anatomy.scores import routing_distribution
from innerlingua.anatomy.segments import call_arguments, pooling_weights
from innerlingua.errors import ModelError

__all__ = ["CaptureHooks"]


@dataclass
class _Pass:
    """One forward pass: how its tokens are pooled, and how its layers are known again when they are recomputed."""

    weight_BKT: Tensor
    place_S: Tensor | None  # flat place (row x slots + slot) of each segment; None for one segment per row
    inputs: dict[int, tuple[int, Any]] = field(default_factory=dict)  # decoder layer -> where its input is

    def note(self, layer: int, hidden_states: Tensor) -> None:
        storage = StorageWeakRef(hidden_states.untyped_storage())  # type: ignore[no-untyped-call]  # torch's own is not
        self.inputs[layer] = (hidden_states.data_ptr(), storage)

    def had(self, layer: int, hidden_states: Tensor) -> bool:
        """Whether this was the input of `layer` in this pass. An address alone may have been given to another tensor
        since."""
        if layer not in self.inputs:
            return False
        address, storage = self.inputs[layer]
        return address == hidden_states.data_ptr() and not storage.expired()


class CaptureHooks:
    """All hooks of one context. Holds results only while the context is open, or the graph could never be freed."""

    def __init__(self, routing: RoutingCapture, *, mask: Tensor | None, segments: Tensor | None, detach: bool) -> None:
        self._routing: RoutingCapture | None = routing
        self._mask = mask
        self._segments = segments
        self._detach = detach
        self._running: tuple[nn.Module, _Pass, PassRouting] | None = None
        self._recomputable: dict[int, _Pass] = {}  # lease id -> pass
        self._recomputed: _Pass | None = None
        self._handles: list[RemovableHandle] = []
        self._leases: dict[int, _Lease] = {}

    def install(self, entries: Sequence[nn.Module], layers: Sequence[MoELayer], score: str | None) -> None:
        """Hook the models through which a pass may enter, and the layers that are captured."""
        for entry in entries:
            self._handles.append(entry.register_forward_pre_hook(self._begin, with_kwargs=True))
            self._handles.append(entry.register_forward_hook(self._end, always_call=True))
        for layer in layers:
            hook = _InputHook(self, layer)
            self._handles.append(layer.decoder_layer.register_forward_pre_hook(hook, with_kwargs=True))
            # A checkpointed layer may be run again by its `forward` alone, past its own hooks but not past its
            # children's.
            for child in _called_children(layer.decoder_layer):
                self._handles.append(child.register_forward_pre_hook(hook, with_kwargs=True))
            self._handles += on_routing(layer, _RouterHook(self, layer, score or layer.score))

    def close(self) -> None:
        """Let go of the results; the hooks go now, or with the last graph whose layers may be recomputed."""
        self._routing = None
        self._running = None
        self._mask = self._segments = None
        self._leases.clear()  # from here on the autograd graph alone holds them
        self._remove_when_idle()

    def _remove_when_idle(self) -> None:
        if self._routing is None and not self._recomputable:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()

    def release(self, lease: int) -> None:
        """The graph of a pass is freed."""
        self._recomputable.pop(lease, None)
        self._remove_when_idle()

    # -- one forward pass ---------------------------------------------------------------------------------------------

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._running is not None or self._routing is None or _in_backward():
            return
        inputs = call_arguments(module, args, kwargs)
        if inputs is None:
            return  # a wrapper that hides its arguments; the model inside is an entry, too
        weight_BKT, place_S = pooling_weights(inputs, mask=self._mask, segments=self._segments)
        self._running = (module, _Pass(weight_BKT, place_S), PassRouting())

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._running is None or self._running[0] is not module:
            return
        result, self._running = self._running[2], None
        if self._routing is None:
            return
        # No output: the pass raised, or it was left because what a tap wanted of it is known.
        left = isinstance(sys.exception(), PassIsDone) and set(self._routing.layers) <= set(result.pooled)
        if output is not None or left:
            self._routing.keep(result)

    def note_input(self, layer: MoELayer, module: nn.Module, hidden_states: Tensor) -> None:
        """Remember the input of a layer, or know the pass again by it when the layer is recomputed."""
        if _in_backward():
            for candidate in self._recomputable.values():
                if candidate.had(layer.index, hidden_states):
                    self._recomputed = candidate
        elif self._running is not None and module is layer.decoder_layer:
            self._running[1].note(layer.index, hidden_states)

    def route(self, layer: MoELayer, score: str, logits: Tensor) -> None:
        """Pool what a router gave; in a recomputation do the same work and drop what it gives."""
        if _in_backward():
            recomputed, self._recomputed = self._recomputed, None
            if recomputed is not None:
                self._pool(layer, score, logits, recomputed)
            return
        if self._running is None or self._routing is None:
            return
        _, current, result = self._running
        pooled, tokens = self._pool(layer, score, logits, current)
        result.pooled[layer.index] = pooled
        if self._routing.keeps_tokens:
            result.per_token[layer.index] = tokens
        if pooled.grad_fn is not None and logits.grad_fn is not None and _saved_tensors_are_hooked():
            if id(current) not in self._leases:
                self._leases[id(current)] = _Lease(self, id(current))
            self._recomputable[id(current)] = current
            # On the logits and not on the pooled routing: the layer is recomputed for the model's own loss, too, also
            # when the pooled routing is not used or was dropped.
            metadata: dict[Any, Any] = logits.grad_fn.metadata  # type: ignore[assignment]  # torch calls it a method
            metadata[("innerlingua", id(current))] = self._leases[id(current)]

    def _pool(self, layer: MoELayer, score: str, logits: Tensor, current: _Pass) -> tuple[Tensor, Tensor]:
        if self._detach:
            logits = logits.detach()
        weight_BKT = current.weight_BKT.to(logits.device)
        rows, slots, tokens = weight_BKT.shape
        if logits.numel() != rows * tokens * layer.num_experts:
            raise ModelError(
                f"the router {layer.name} gave logits of shape {tuple(logits.shape)}, but the batch has {rows} rows of "
                f"{tokens} tokens and the layer {layer.num_experts} experts"
            )
        # Autocast would take the product in bfloat16.
        with torch.autocast(logits.device.type, enabled=False):
            p_BTE = routing_distribution(logits, score).view(rows, tokens, layer.num_experts)
            pooled_BKE = torch.bmm(weight_BKT, p_BTE)
        pooled_SE = pooled_BKE.view(rows * slots, layer.num_experts)
        if current.place_S is not None:
            pooled_SE = pooled_SE.index_select(0, current.place_S.to(logits.device))
        return pooled_SE, p_BTE


class _Lease:
    """Hangs on the autograd graph of a pass; when the graph is freed, no layer of it can be recomputed any more."""

    def __init__(self, hooks: CaptureHooks, key: int) -> None:
        self._hooks = hooks
        self._key = key

    def __del__(self) -> None:
        self._hooks.release(self._key)


class _InputHook:
    def __init__(self, hooks: CaptureHooks, layer: MoELayer) -> None:
        self._hooks = hooks
        self._layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is self._layer.decoder_layer:
            given = [args[0] if args else kwargs.get("hidden_states")]
        else:  # the layer's input may be any argument of its first part
            given = [*args, *kwargs.values()]
        for value in given:
            if isinstance(value, Tensor):
                self._hooks.note_input(self._layer, module, value)


class _RouterHook:
    def __init__(self, hooks: CaptureHooks, layer: MoELayer, score: str) -> None:
        self._hooks = hooks
        self._layer = layer
        self._score = score

    def __call__(self, logits: Tensor, output: Any) -> None:
        self._hooks.route(self._layer, self._score, logits)


def _called_children(layer: nn.Module) -> Iterator[nn.Module]:
    """The parts that a layer calls: its children, and in place of a list or a dict of modules what it holds."""
    for child in layer.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from child.children()
        else:
            yield child


def _in_backward() -> bool:
    """Whether autograd is running a backward pass on this thread: then a forward hook means recomputation."""
    return bool(torch._C._current_graph_task_id() != -1)


def _saved_tensors_are_hooked() -> bool:
    """Whether what is saved for backward goes through hooks, as inside a checkpointed region."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
