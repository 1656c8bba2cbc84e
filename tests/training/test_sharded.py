"""FSDP2 over two processes gives what one process gives: the term, the loss, the gradients of the routers, the weights.

The parameters are sharded in earnest (DTensors over gloo). Micro-batches without any anchor stand beside others that
have some, so whoever leaves out the pass of a live anchor there leaves the other process waiting.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from processes import run_two
from runs import ALIGNED, ANCHORED, GLOBAL_BATCH, gap, model_of, plain_step, prior_of, short_run
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.distributed import DistributedConfig

from innerlingua.routing import RoutingAlignment, RoutingPrior
from trust.soak_record import record
from trust.trajectory_runs import Trajectory, check, distance, shown, verdict

WEIGHT = 20.0
# The rows of each process: all of those without an anchor in the second, and nothing else there.
RANKS = ([0, 2, 3, 6, 7], [1, 4, 5])
ANCHORS = ("prior", "live", "live, gradient")
# (anchor, rows of a process, accumulation): a global batch of eight rows.
RUNS = {"prior": ("prior", 2, 2), "live": ("live", 1, 4)}

LOADS_SHARDED = "fsdp_size" in DistributedConfig.__dataclass_fields__
loads_sharded = pytest.mark.skipif(
    not LOADS_SHARDED,
    reason="this version of transformers does not shard a model while loading it",
)

SHARED = """
from datasets import load_from_disk
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from innerlingua.routing import RoutingAlignment, RoutingPrior
from runs import ALIGNED, model_of, short_run, step_logs

dataset = load_from_disk(folder / "rows")
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
prior = RoutingPrior.open(folder / "prior")

def whole(tensors):
    return {name: tensor.full_tensor().detach().clone().contiguous() for name, tensor in tensors.items()}

def keep(name, tensors, **record):
    record |= {"world_size": dist.get_world_size(), "backend": dist.get_backend()}
    if rank == 0:
        save_file(tensors, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(record))
"""

# One step by hand: fully_shard, the term around the forward pass, the sums of all processes.
STEP = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

mesh = init_device_mesh("cpu", (2,))
rows = [dataset[row] for row in json.loads((folder / "ranks.json").read_text())[rank]]
width = max(len(row["input_ids"]) for row in rows)
ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
labels = torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in rows])

def summed(value):
    total = torch.tensor(float(value), dtype=torch.float64)
    dist.all_reduce(total)
    return float(total)

for anchor in ("prior", "live", "live, gradient"):
    print(anchor, flush=True)
    model = model_of()
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    given = {"anchor": prior, "verify_weights": False}
    if anchor != "prior":
        given = {"anchor": "live", "layers": ALIGNED, "anchor_gradient": anchor == "live, gradient"}
    term = RoutingAlignment(weight=20.0, **given)
    term.check(model)
    entries = term.collate(rows, width)
    with term.capture(model, entries) as captured:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    total, pairs = term.loss(captured, entries)
    entropy = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    tokens, all_pairs = summed((labels[:, 1:] != -100).sum()), summed(pairs)
    loss = entropy / tokens + 20.0 * total / all_pairs
    (2 * loss).backward()  # FSDP takes the mean over the two
    keep(
        f"step {anchor}",
        whole({name: p.grad for name, p in model.named_parameters() if p.grad is not None}),
        term=summed(total.detach()) / all_pairs,
        pairs=all_pairs,
        sharded=all(isinstance(p, DTensor) for p in model.parameters()) and isinstance(model, FSDPModule),
        own_pairs=pairs,
    )
trainer = None
"""

# Three steps of the real trainer on a model that transformers shards while it loads it.
TRAIN = """
from torch.distributed.fsdp import FSDPModule
from transformers.distributed import DistributedConfig

def load():
    return AutoModelForCausalLM.from_pretrained(folder / "base", distributed_config=DistributedConfig(fsdp_size=2))

model = load()
computed = RoutingPrior.compute(model, dataset, tokenizer, layers=ALIGNED, progress=False)
keep("computed", {"prior": computed.rows(computed.ids)}, ids=computed.ids, weights=computed.fingerprint["weights"])
for name, (anchor, batch, accumulation) in json.loads((folder / "runs.json").read_text()).items():
    trainer, logs, evaluation = short_run(folder, dataset, tokenizer, prior, anchor, batch, accumulation, load())
    for module in trainer.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # some are left whole after a pass without backward
    parameters = dict(trainer.model.named_parameters())
    keep(
        f"run {name}",
        whole(parameters),
        logs=logs,
        evaluation=evaluation,
        sharded=all(isinstance(p, DTensor) for p in parameters.values()),
        shares=[p.to_local().numel() / p.numel() for p in parameters.values()],
    )

# What one process refuses is raised in both: only the first has a model that the prior does not belong to.
from innerlingua.errors import PriorError
from innerlingua.training import Trainer
from runs import config

try:
    Trainer(model=model_of(seed=5 if rank == 0 else 1), args=config(folder), train_dataset=dataset,
            processing_class=tokenizer, terms=[RoutingAlignment(anchor=prior)])
except PriorError as error:
    assert "computed with other weights" in str(error), error
    (folder / f"refused {rank}").touch()
"""

# Fifty steps of it, with the optimiser that moments make more sensitive.
LONG = """
from torch.distributed.fsdp import FSDPModule
from transformers.distributed import DistributedConfig

for name, (anchor, batch, accumulation) in json.loads((folder / "runs.json").read_text()).items():
    model = AutoModelForCausalLM.from_pretrained(folder / "base", distributed_config=DistributedConfig(fsdp_size=2))
    changes = json.loads((folder / "long.json").read_text())
    trainer, logs, _ = short_run(folder, dataset, tokenizer, prior, anchor, batch, accumulation, model, **changes)
    for module in trainer.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    parameters = dict(trainer.model.named_parameters())
    sharded = all(isinstance(p, DTensor) for p in parameters.values())
    keep(f"long {name}", whole(parameters), logs=logs, sharded=sharded)
"""
STEPS = 50
FIFTY = {"max_steps": STEPS, "learning_rate": 1e-3, "optim": "adamw_torch", "max_grad_norm": 1.0}


@pytest.fixture(scope="module")
def sharded(
    tmp_path_factory: pytest.TempPathFactory,
    tokenised: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    prior: RoutingPrior,
) -> Path:
    """A folder with what two processes made of each case."""
    folder = tmp_path_factory.mktemp("sharded")
    tokenised.save_to_disk(folder / "rows")
    tokenizer.save_pretrained(folder / "tokenizer")
    prior.save(folder / "prior")
    model_of().save_pretrained(folder / "base")
    (folder / "ranks.json").write_text(json.dumps(RANKS))
    (folder / "runs.json").write_text(json.dumps(RUNS))
    run_two(SHARED + STEP + (TRAIN if LOADS_SHARDED else ""), folder)
    return folder


def read(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    record = json.loads((folder / f"{name}.json").read_text())
    assert (record["world_size"], record["backend"]) == (2, "gloo")
    return record, load_file(folder / f"{name}.safetensors")


def test_only_one_process_has_anchors() -> None:
    assert sorted([*RANKS[0], *RANKS[1]]) == list(range(len(ANCHORED)))
    assert all(ANCHORED[row] for row in RANKS[0])
    assert not any(ANCHORED[row] for row in RANKS[1])
    # Rank r of the trainer reads every second row, one at a time: in some steps one rank has an anchor, one has none.
    assert any(left != right for left, right in zip(ANCHORED[0::2], ANCHORED[1::2], strict=True))


def expected_step(
    anchor: str, rows: list[dict[str, Any]], prior: RoutingPrior, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> tuple[dict[str, Tensor], float]:
    """Gradients and term of one step in this process. A gradient through the anchor has no slow implementation."""
    if anchor != "live, gradient":
        anchors = prior if anchor == "prior" else prior_of(pairs, tokenizer, seed=0)
        gradients, divergence = plain_step(model_of(), rows, anchors, WEIGHT)
        assert divergence is not None
        return gradients, divergence
    model = model_of()
    gradients, _ = plain_step(model, rows, prior, 0.0)
    term = RoutingAlignment(anchor="live", weight=WEIGHT, layers=ALIGNED, anchor_gradient=True)
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    model.zero_grad()
    entries = term.collate(rows, width)
    with term.capture(model, entries) as captured:
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    total, count = term.loss(captured, entries)
    (WEIGHT * total / count).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[name] = gradients[name] + parameter.grad
    return gradients, float(total.detach()) / count


@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_sharded_step_is_that_of_one_process(
    anchor: str,
    sharded: Path,
    tokenised: Dataset,
    prior: RoutingPrior,
    pairs: Dataset,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    record, found = read(sharded, f"step {anchor}")
    assert record["sharded"]
    assert (record["pairs"], record["own_pairs"]) == (5, 5)
    expected, divergence = expected_step(anchor, tokenised.to_list(), prior, pairs, tokenizer)
    assert record["term"] == pytest.approx(divergence, rel=1e-5)
    assert gap(found, expected) < 2e-6
    routers = [name for name in expected if name.endswith("gate.weight")]
    assert len(routers) == 4
    assert all(float(found[name].norm()) > 0 for name in routers)
    assert gap({name: found[name] for name in routers}, {name: expected[name] for name in routers}) < 1e-5


@loads_sharded
@pytest.mark.parametrize("case", RUNS)
def test_a_sharded_training_is_that_of_one_process(
    case: str,
    sharded: Path,
    tmp_path: Path,
    tokenised: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    prior: RoutingPrior,
) -> None:
    anchor, batch, accumulation = RUNS[case]
    assert 2 * batch * accumulation == GLOBAL_BATCH
    record, found = read(sharded, f"run {case}")
    assert record["sharded"]
    assert max(record["shares"]) < 1  # every parameter is in two pieces
    trainer, logs, evaluation = short_run(tmp_path, tokenised, tokenizer, prior, anchor, GLOBAL_BATCH, 1)
    assert gap(found, dict(trainer.model.named_parameters())) < 1e-6
    assert len(record["logs"]) == len(logs) == 3
    for two, one in zip(record["logs"], logs, strict=True):
        for key in ("routing_alignment", "loss", "grad_norm"):
            assert two[key] == pytest.approx(one[key], rel=2e-5), key
    assert record["evaluation"] == pytest.approx(evaluation, rel=2e-5)


@loads_sharded
def test_a_prior_of_a_sharded_model_is_that_of_the_whole_one(
    sharded: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    record, found = read(sharded, "computed")
    whole = prior_of(pairs, tokenizer, seed=0)
    assert record["ids"] == ["sky", "snow", "sun"]  # the rows of grass have no anchor there
    assert torch.allclose(found["prior"], whole.rows(record["ids"]), atol=1e-6)
    assert record["weights"] == whole.fingerprint["weights"]


@loads_sharded
def test_what_one_process_refuses_is_raised_in_both(sharded: Path) -> None:
    assert sorted(path.name for path in sharded.glob("refused *")) == ["refused 0", "refused 1"]


@pytest.mark.slow
@loads_sharded
def test_fifty_sharded_steps(
    tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast, prior: RoutingPrior
) -> None:
    tokenised.save_to_disk(tmp_path / "rows")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    prior.save(tmp_path / "prior")
    model_of().save_pretrained(tmp_path / "base")
    (tmp_path / "runs.json").write_text(json.dumps(RUNS))
    (tmp_path / "long.json").write_text(json.dumps(FIFTY))
    run_two(SHARED + LONG, tmp_path)
    start = {name: parameter.detach() for name, parameter in model_of().named_parameters()}
    found = []
    for case, (anchor, _, _) in RUNS.items():
        trainer, logs, _ = short_run(tmp_path, tokenised, tokenizer, prior, anchor, GLOBAL_BATCH, 1, **FIFTY)
        logged, weights = read(tmp_path, f"long {case}")
        assert logged["sharded"]
        assert len(logs) == STEPS
        expected = {name: parameter.detach() for name, parameter in trainer.model.named_parameters()}
        one = Trajectory(logs, {STEPS: expected}, {})
        found.append(distance(Trajectory(logged["logs"], {STEPS: weights}, {}), one, start=start))
    measures = [shown(each) for each in found]
    record(
        "trajectory: two processes, FSDP2",
        "fully_shard over gloo, the trainer in a script: 2 x 2 and 1 x 4 in each of two processes against 8 x 1; "
        "stored prior, live anchors",
        STEPS * len(found),
        "steps",
        verdict(found, within=1e-3, weights=1e-4),
        {key: max(measure[key] for measure in measures) for key in measures[0]},
    )
    for each in found:
        check(each, within=1e-3, weights=1e-4)
