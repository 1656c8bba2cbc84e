"""Two processes compute the prior that one computes, each a share of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from innerlingua.routing import RoutingPrior
from tiny import tiny_model
from training.processes import run_two

VOCAB = 64
LENGTHS = [3, 17, 5, 8, 30, 4, 9, 2, 12, 6, 7, 11]
# At two rows of the longest: three batches, so one process has one more than the other.
ROWS_OF_BATCHES = [2, 5, 5]

SCRIPT = """
import os
from datasets import load_from_disk
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedTokenizerFast
from innerlingua.errors import PriorError
from innerlingua.routing import RoutingPrior, prior_partial
from tiny import tiny_model

prior_partial.PIECE_BYTES = 1
rows = load_from_disk(folder / "rows")
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
passes = []

def compute(model, given=rows, **options):
    passes.clear()
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True)
    try:
        return RoutingPrior.compute(model, given, tokenizer, batch_size=2, split=True, progress=False, **options)
    finally:
        hook.remove()

def keep(name, prior, **record):
    save_file({"prior": prior.rows(prior.ids)}, folder / f"{name} {rank}.safetensors")
    record |= {"passes": list(passes), "ids": prior.ids, "weights": prior.fingerprint["weights"]}
    record |= {"world_size": dist.get_world_size(), "backend": dist.get_backend()}
    (folder / f"{name} {rank}.json").write_text(json.dumps(record))

model = tiny_model(vocab_size=64)
keep("memory", compute(model))
said = []
keep("folder", compute(model, folder=folder / "stored", say=said.append), said=said)

# The first process alone has the weights, as under FSDP's cpu_ram_efficient_loading.
keep("one has the weights", compute(model if rank == 0 else tiny_model(vocab_size=64).to("meta")))

# One fails after its first batch: both hear of it, and what was finished stays for the next start.
class Failure(Exception):
    pass

def fail(module, args):
    if rank == 1:
        raise Failure("out of luck")

hook = model.model.layers[2].register_forward_pre_hook(fail)
try:
    compute(model, folder=folder / "cut short")
except (Failure, RuntimeError) as error:
    (folder / f"failure {rank}").write_text(f"{type(error).__name__}: {error}")
hook.remove()

# Different rows in the two.
try:
    compute(model, rows.select(range(6 + rank)))
except PriorError as error:
    (folder / f"different {rank}").write_text(str(error))

mesh = init_device_mesh("cpu", (2,))
model = tiny_model(vocab_size=64)
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
keep("sharded", compute(model))
keep("sharded folder", compute(model, folder=folder / "stored sharded"))
trainer = None
"""


@pytest.fixture(scope="module")
def rows() -> Dataset:
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, VOCAB, length).tolist() for length in LENGTHS]
    return Dataset.from_list(
        [{"id": f"{at:02d}", "language": "swh_Latn", "input_ids": x, "anchor_input_ids": x} for at, x in enumerate(ids)]
    )


@pytest.fixture(scope="module")
def one(rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> RoutingPrior:
    """The prior that one process computes."""
    model = tiny_model(vocab_size=VOCAB)
    return RoutingPrior.compute(model, rows, tokenizer, batch_size=2, progress=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with what two processes made."""
    folder = tmp_path_factory.mktemp("two")
    rows.save_to_disk(folder / "rows")
    tokenizer.save_pretrained(folder / "tokenizer")
    run_two(SCRIPT, folder)
    return folder


def check(folder: Path, name: str, one: RoutingPrior) -> list[dict[str, Any]]:
    """That both processes have the prior that one computes; what each recorded."""
    records = [json.loads((folder / f"{name} {rank}.json").read_text()) for rank in (0, 1)]
    for rank, record in enumerate(records):
        assert (record["world_size"], record["backend"]) == (2, "gloo")
        assert record["ids"] == one.ids
        assert record["weights"] == one.fingerprint["weights"]
        found = load_file(folder / f"{name} {rank}.safetensors")["prior"]
        assert torch.allclose(found, one.rows(one.ids), rtol=0, atol=1e-6)
    return records


@pytest.mark.parametrize("name", ["memory", "folder"])
def test_each_computes_its_share(name: str, two: Path, one: RoutingPrior) -> None:
    first, second = check(two, name, one)
    assert first["passes"] == ROWS_OF_BATCHES[0::2]
    assert second["passes"] == ROWS_OF_BATCHES[1::2]


def test_the_stored_one_is_whole(two: Path, one: RoutingPrior) -> None:
    assert sorted(path.name for path in (two / "stored").iterdir()) == ["prior.json", "prior.safetensors"]
    stored = RoutingPrior.open(two / "stored")
    assert torch.allclose(stored.rows(one.ids), one.rows(one.ids), rtol=0, atol=1e-6)
    said = [json.loads((two / f"folder {rank}.json").read_text())["said"] for rank in (0, 1)]
    assert ([len(texts) for texts in said], "in 3 batches" in said[0][0]) == ([1, 0], True)


def test_a_process_without_the_weights_leaves_the_work_to_the_others(two: Path, one: RoutingPrior) -> None:
    first, second = check(two, "one has the weights", one)
    assert (first["passes"], second["passes"]) == (ROWS_OF_BATCHES, [])


@pytest.mark.parametrize("name", ["sharded", "sharded folder"])
def test_sharded_processes_make_as_many_passes_as_each_other(name: str, two: Path, one: RoutingPrior) -> None:
    first, second = check(two, name, one)
    assert first["passes"] == ROWS_OF_BATCHES[0::2]
    assert second["passes"] == [*ROWS_OF_BATCHES[1::2], 1]  # the last over one token that is thrown away


def test_what_one_raises_is_raised_in_both_and_finished_rows_stay(
    two: Path, one: RoutingPrior, rows: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert (two / "failure 0").read_text() == "RuntimeError: process 1 failed: Failure: out of luck"
    assert (two / "failure 1").read_text() == "Failure: out of luck"
    said: list[str] = []
    model = tiny_model(vocab_size=VOCAB)
    goes_on = RoutingPrior.compute(
        model, rows, tokenizer, batch_size=2, folder=two / "cut short", progress=False, say=said.append
    )
    assert said[0] == "routing prior: an earlier pass was cut short; 7 of 12 anchors are done"
    assert torch.allclose(goes_on.rows(one.ids), one.rows(one.ids), rtol=0, atol=1e-6)


def test_different_rows_are_refused_in_both(two: Path) -> None:
    for rank in (0, 1):
        assert "process 1 was given another model, other anchors" in (two / f"different {rank}").read_text()
