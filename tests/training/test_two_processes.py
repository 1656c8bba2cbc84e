"""Two processes give what one gives: the same term, the same loss, the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from runs import ANCHORED, GLOBAL_BATCH, gap, short_run
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from commands import write_launch
from innerlingua.routing import RoutingPrior

TESTS = Path(__file__).parents[1]
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]

# Every case is (anchor, rows of a process, accumulation); the global batch is eight rows.
CASES = {"prior": ("prior", 2, 2), "prior-single": ("prior", 1, 4), "live": ("live", 4, 1)}

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from accelerate import PartialState
from datasets import load_from_disk
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedTokenizerFast
from innerlingua.routing import RoutingPrior
from runs import short_run

folder = Path(sys.argv[1])
dataset = load_from_disk(folder / "rows")
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
prior = RoutingPrior.open(folder / "prior")
for name, (anchor, batch, accumulation) in json.loads(sys.argv[2]).items():
    trainer, logs, evaluation = short_run(folder, dataset, tokenizer, prior, anchor, batch, accumulation)
    state = trainer.accelerator.state
    if PartialState().is_main_process:
        save_file({k: p.detach().clone() for k, p in trainer.model.named_parameters()}, folder / f"{name}.safetensors")
        record = {
            "logs": logs,
            "evaluation": evaluation,
            "world_size": torch.distributed.get_world_size(),
            "distributed_type": str(state.distributed_type),
            "backend": torch.distributed.get_backend(),
            "wrapped": isinstance(trainer.model_wrapped, DistributedDataParallel),
        }
        (folder / f"{name}.json").write_text(json.dumps(record))
# Everything is on disk. gloo's threads may still hold tensors that Python knows, and abort an interpreter that is
# shutting down (pytorch/pytorch#190489), so the process leaves without that.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory,
    tokenised: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    prior: RoutingPrior,
) -> Path:
    """A folder with what two processes made of each case."""
    folder = tmp_path_factory.mktemp("two")
    tokenised.save_to_disk(folder / "rows")
    tokenizer.save_pretrained(folder / "tokenizer")
    prior.save(folder / "prior")
    (folder / "script.py").write_text(SCRIPT)
    write_launch(folder / "launch.yaml")
    paths = os.pathsep.join([str(TESTS), str(TESTS / "training"), *sys.path])
    done = subprocess.run(
        [*LAUNCHER, str(folder / "launch.yaml"), str(folder / "script.py"), str(folder), json.dumps(CASES)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(
    case: str,
    two: Path,
    tmp_path: Path,
    tokenised: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    prior: RoutingPrior,
) -> None:
    anchor, batch, accumulation = CASES[case]
    record = json.loads((two / f"{case}.json").read_text())
    assert record["world_size"] == 2
    assert record["distributed_type"] == "DistributedType.MULTI_CPU"
    assert record["backend"] == "gloo"
    assert record["wrapped"]
    assert 2 * batch * accumulation == GLOBAL_BATCH

    trainer, logs, evaluation = short_run(tmp_path, tokenised, tokenizer, prior, anchor, GLOBAL_BATCH, 1)
    assert gap(load_file(two / f"{case}.safetensors"), dict(trainer.model.named_parameters())) < 1e-6
    assert len(record["logs"]) == len(logs) == 3
    for found, expected in zip(record["logs"], logs, strict=True):
        for key in ("routing_alignment", "loss", "grad_norm"):
            assert found[key] == pytest.approx(expected[key], rel=2e-5), key
    assert record["evaluation"] == pytest.approx(evaluation, rel=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_ranks_do_not_hold_as_many_pairs(case: str) -> None:
    # So that averaging the ranks' means would be seen. Rank r reads every second micro-batch.
    _, batch, _ = CASES[case]
    micro = [sum(ANCHORED[start : start + batch]) for start in range(0, 8, batch)]
    assert sum(micro[0::2]) != sum(micro[1::2])
