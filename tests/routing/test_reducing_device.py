"""Where processes add up. What a backend reduces itself is in `test_prior_processes.py`, for the one that CPUs have."""

from __future__ import annotations

import pytest
import torch

from innerlingua.routing.processes import _reducing_device


@pytest.mark.parametrize(
    ("backend", "weights", "expected"),
    [
        ("gloo", "cpu", "cpu"),
        ("gloo", "cuda:1", "cpu"),
        ("cpu:gloo,cuda:nccl", "meta", "cpu"),
        ("nccl", "cuda:1", "cuda:1"),
        ("nccl", "cpu", "cuda:3"),  # offloaded
        ("nccl", "meta", "cuda:3"),  # under ZeRO-3 or before the weights are loaded
    ],
)
def test_sums_are_made_where_the_backend_can_make_them(
    monkeypatch: pytest.MonkeyPatch, backend: str, weights: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert _reducing_device(backend, torch.device(weights)) == torch.device(expected)
