"""The numbers of a stored prior: each row is a distribution per layer, which is looked at when the row is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from innerlingua.errors import PriorError
from innerlingua.routing import RoutingPrior

ROWS = torch.rand((4, 2, 8), generator=torch.Generator().manual_seed(0)).softmax(-1)


def stored(folder: Path, change: Callable[[Tensor], Tensor] = lambda row: row) -> RoutingPrior:
    """A prior of four anchors whose file was changed at the anchor `c`, the record untouched."""
    record = {
        "ids": ["a", "b", "c", "d"],
        "layers": [1, 2],
        "pooling": "sequence",
        "score": "softmax",
        "texts": ["0", "1", "2", "3"],
        "fingerprint": {"weights": {}, "compute": "float32"},
    }
    path = RoutingPrior(record, tensor=ROWS).save(folder) / "prior.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    rows = load_file(path)["prior"]
    rows[2] = change(rows[2].clone())
    save_file({"prior": rows}, path, metadata=metadata)
    return RoutingPrior.open(folder)


def one(row: Tensor, value: float) -> Tensor:
    row[1, 3] = value
    return row


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row * 5,
        lambda row: row * 0,
        lambda row: -row,
        lambda row: one(row, float("nan")),
        lambda row: one(row, float("inf")),
        lambda row: one(row, float(row[1, 3]) + 0.01),
        lambda row: row + torch.tensor([-1.0, 1.0, 0, 0, 0, 0, 0, 0]),  # sums to 1, below 0
    ],
)
def test_a_row_that_is_no_distribution_is_told_when_it_is_read(
    change: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    prior = stored(tmp_path, change)  # opens: nothing is read yet
    assert torch.equal(prior.rows(["d", "a", "b"]), ROWS[[3, 0, 1]])
    words = (
        f"{tmp_path} is damaged: what it holds for the anchor 'c' is no distribution over experts .prior.safetensors"
    )
    for read in (lambda: prior.rows(["d", "c"]), prior.check_rows):
        with pytest.raises(PriorError, match=words) as caught:
            read()
        assert "--overwrite" in str(caught.value)


def test_what_was_stored_and_what_rounding_leaves_is_read(tmp_path: Path) -> None:
    prior = stored(tmp_path, lambda row: row * 1.0004)
    prior.check_rows()
    assert torch.equal(prior.rows(["a", "b"]), ROWS[:2])
