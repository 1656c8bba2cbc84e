"""What DeepSpeed ZeRO-3 takes apart: experts that are modules of their own, and a result that would stay in parts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from trajectory_listed import listed_model, trained
from trajectory_runs import TERM, deepspeed_launch, make_world, run
from transformers import PreTrainedTokenizerFast

from innerlingua.anatomy import find_moe_layers
from innerlingua.anatomy.layers import dimensions
from innerlingua.anatomy.leaves import experts_are_fused, gather_experts_together, leaf_of
from innerlingua.errors import RecipeError
from innerlingua.recipe.zero import refuse_parts
from innerlingua.training.divergence import _not_finite
from tiny import tiny_model
from training.processes import run_two
from training.runs import gap, partly_anchored, step_logs

deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed: `make deepspeed` installs it"
)

TWO = """
import deepspeed
from safetensors.torch import save_file
from training.runs import step_logs
from trust.trajectory_listed import trained

model, trainer = None, trained(folder, 1, 4, deepspeed={
    "train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto", "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto", "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True,
                          "reduce_bucket_size": 1000000, "stage3_prefetch_bucket_size": 1000000,
                          "stage3_param_persistence_threshold": 0},
    "zero_allow_untested_optimizer": True})
found = {}
for name, p in trainer.model.named_parameters():
    assert p.numel() == 0, name  # taken apart
    with deepspeed.zero.GatheredParameters(p):
        found[name] = p.detach().clone()
if rank == 0:
    save_file(found, folder / "two.safetensors")
    leaves = [name for name, m in trainer.model.named_modules() if deepspeed.utils.z3_leaf_module(m)]
    record = {"logs": step_logs(trainer), "leaves": leaves, "wrapper": type(trainer.model_wrapped).__name__,
              "world_size": dist.get_world_size(), "backend": dist.get_backend(),
              "kind": str(trainer.accelerator.distributed_type)}
    (folder / "two.json").write_text(json.dumps(record))
"""


def test_a_result_in_parts_is_refused() -> None:
    def given(stage: int, *, whole: bool) -> SimpleNamespace:
        return SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=stage, zero3_save_16bit_model=whole))

    refuse_parts(SimpleNamespace(deepspeed_plugin=None))
    refuse_parts(given(2, whole=False))
    refuse_parts(given(3, whole=True))
    with pytest.raises(RecipeError, match="zero3_save_16bit_model: true"):
        refuse_parts(given(3, whole=False))


def test_dimensions_of_what_was_taken_apart() -> None:
    parameter = nn.Parameter(torch.empty(0))
    parameter.ds_shape = torch.Size([8, 4, 2])  # as DeepSpeed marks it
    assert (dimensions(parameter), dimensions(torch.empty(3, 2))) == (3, 2)


def test_a_part_that_is_not_finite_is_seen() -> None:
    parameter = nn.Parameter(torch.empty(0))
    for part, bad in ((torch.ones(3), False), (torch.tensor([1.0, float("nan")]), True)):
        parameter.ds_tensor = part
        flag = _not_finite(parameter)
        assert flag is not None
        assert bool(flag) is bad


def test_experts_in_a_list_are_told_from_fused_ones() -> None:
    fused, listed = tiny_model("olmoe"), listed_model(vocab_size=64)
    assert all(experts_are_fused(layer) for layer in find_moe_layers(fused))
    assert not any(experts_are_fused(layer) for layer in find_moe_layers(listed))
    ids = torch.arange(3, 20)[None]
    assert torch.allclose(fused(input_ids=ids).logits, listed(input_ids=ids).logits, atol=1e-6)


@deepspeed
def test_experts_in_a_list_are_gathered_together() -> None:
    from deepspeed.utils import z3_leaf_module

    fused, listed = tiny_model("olmoe"), listed_model(vocab_size=64)
    for model, wanted in ((fused, []), (listed, [leaf_of(layer) for layer in find_moe_layers(listed)])):
        gather_experts_together(model)
        assert [module for module in model.modules() if z3_leaf_module(module)] == wanted
    gather_experts_together(nn.Linear(2, 2))  # nothing to gather, and no error


@pytest.mark.slow
@deepspeed
def test_an_expert_that_one_process_does_not_use_stops_nobody(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    partly_anchored(pairs, tokenizer).save_to_disk(tmp_path / "rows")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    run_two(TWO, tmp_path)
    two, one = json.loads((tmp_path / "two.json").read_text()), trained(tmp_path, 8, 1)
    assert (two["world_size"], two["backend"], two["kind"]) == (2, "gloo", "DistributedType.DEEPSPEED")
    assert two["wrapper"] == "DeepSpeedEngine"
    assert two["leaves"] == [f"model.layers.{layer}.mlp" for layer in range(4)]
    assert gap(load_file(tmp_path / "two.safetensors"), dict(one.model.named_parameters())) < 1e-6
    for found, expected in zip(two["logs"], step_logs(one), strict=True):
        for key in ("loss", "grad_norm", TERM):
            assert found[key] == pytest.approx(expected[key], rel=2e-5), key


@pytest.mark.slow
@deepspeed
def test_the_command_refuses_a_result_in_parts(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    launch = deepspeed_launch(tmp_path, 3, stage3_gather_16bit_weights_on_model_save=False)
    world = make_world(tmp_path / "world", tokenizer)
    with pytest.raises(AssertionError, match="zero3_save_16bit_model: true"):
        run(world, tmp_path / "run", steps=1, launch=launch, environment={"DS_ACCELERATOR": "cpu"})
    assert not (tmp_path / "run" / "out").exists()


@pytest.mark.slow
@deepspeed
def test_the_command_refuses_benchmarks_of_weights_taken_apart(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    launch = deepspeed_launch(tmp_path, 3)
    world = make_world(tmp_path / "world", tokenizer)
    asked = {"evaluation": {"tasks": ["belebele"], "languages": ["swh_Latn"]}}
    with pytest.raises(AssertionError, match="ZeRO-3 spreads the weights over processes") as refused:
        run(world, tmp_path / "run", steps=1, changes=asked, launch=launch, environment={"DS_ACCELERATOR": "cpu"})
    assert "47 of 47 rows" not in str(refused.value)  # before the rows are read, and long before the model is
    assert not (tmp_path / "run" / "out").exists()
