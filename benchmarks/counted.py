"""What can be counted and not only timed: bytes and floating-point operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def saved_bytes(forward: Callable[[], Any], parameters: Iterable[torch.Tensor]) -> int:
    """Bytes that `forward` saves for the backward pass, each storage once; `parameters` are not counted.

    Under gradient checkpointing that is what the checkpoints keep, and not what a recomputed layer saves.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = forward()
    total = sum(storage.nbytes() for storage in kept.values())
    del alive
    return total


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes that are alive at once during `work`, beyond what was alive before it.

    Counted from every allocation and release, as torch's profiler notes them: recomputed activations, gradients and
    temporary results are all in it. On a GPU it is the allocator's own peak.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and the attention in `work`, backward passes included.

    Attention is counted whole, also where it is causal. The experts must run as plain matrix products (`eager`).
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    # Not among those that torch counts by itself.
    mapping = {attention: _attention_flops, backward: _attention_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return int(counter.get_total_flops())


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))
