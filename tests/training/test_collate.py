"""A term's entries on their way through the trainer: beside TRL's batch, and with every bit."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from runs import config, model_of
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer
from innerlingua.training.collate import TermCollator, split_batch


class Numbers:
    """A term whose entries are of every type."""

    name = "numbers"
    weight = 1.0
    columns = ()

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.entries: dict[str, Tensor] = {"pair_index": torch.arange(3), "mask": torch.tensor([True, False])}
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            values = torch.randn(2, 3, generator=generator, dtype=torch.float64).to(dtype).T  # not contiguous
            self.entries[str(dtype).removeprefix("torch.")] = values
        self.entries["odd"] = torch.tensor([float("nan"), float("-inf"), -0.0, 1e-45])

    def collate(self, rows: Any, width: int) -> dict[str, Tensor]:
        return self.entries


def collated(term: Any) -> dict[str, Any]:
    return TermCollator(lambda rows: {"input_ids": torch.zeros(2, 4, dtype=torch.long)}, (term,))([{}, {}])


def same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    def bits(tensor: Tensor) -> tuple[torch.dtype, list[int]]:
        return tensor.dtype, tensor.contiguous().view(torch.uint8).flatten().tolist()

    return found.keys() == expected.keys() and all(bits(found[key]) == bits(expected[key]) for key in expected)


def test_entries_of_every_type_arrive_bit_for_bit() -> None:
    term = Numbers()
    inputs, [entries] = split_batch(collated(term), [term])
    assert set(inputs) == {"input_ids"}
    assert same_bits(entries, term.entries)
    assert {key: value.shape for key, value in entries.items()} == {k: v.shape for k, v in term.entries.items()}


def test_nothing_of_a_term_is_a_floating_point_tensor_in_the_batch() -> None:
    batch = collated(Numbers())
    assert len(batch) == 1 + len(Numbers().entries)
    assert not any(value.is_floating_point() for value in batch.values())


@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_the_cast_of_deepspeed_leaves_a_prior_as_it_is(
    anchor: str, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast, tmp_path: Any
) -> None:
    """DeepSpeed itself does not run here; the Trainer's own preparation of a batch under it does."""
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    if anchor == "live":
        term = RoutingAlignment(anchor="live", layers=[1, 2])
    trainer = Trainer(
        model=model_of(),
        args=config(tmp_path, per_device_train_batch_size=8),
        train_dataset=tokenised,
        processing_class=tokenizer,
        terms=[term],
    )
    [batch] = trainer.get_train_dataloader()
    trainer.is_deepspeed_enabled = True
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))
    assert trainer._prepare_inputs({"x": torch.ones(1)})["x"].dtype == torch.bfloat16  # it does cast
    _, [entries] = split_batch(trainer._prepare_inputs(batch), [term])
    rows = tokenised.to_list()
    assert same_bits(entries, term.collate(rows, batch["input_ids"].shape[1]))
    if anchor == "prior":
        ids = [row["id"] for row in rows if row["anchor_input_ids"] is not None]
        assert torch.equal(entries["prior"], prior.rows(ids))
