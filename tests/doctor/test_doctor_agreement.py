"""What the doctor says is what a training does: its first step, what is trained, the rows, the steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innerlingua.recipe.doctor.report import Report

ONE_STEP = ("--trainer.max-steps", "1")
LORA = ("--peft.r", "2", "--peft.parts", "[attention, experts]")

CASES = [
    pytest.param("qwen3_moe", ("--trainer.gradient-checkpointing",), id="checkpointing"),
    pytest.param("qwen3_moe", ("--trainer.bf16",), id="bfloat16"),
    pytest.param("qwen3_moe", (*LORA, "--peft.router", "train"), id="lora"),
    pytest.param("qwen3_moe", ("--alignment", "null", "--model.train", "[router, experts]"), id="plain"),
    pytest.param("qwen3_moe", ("--data.packing", "--data.max-length", "90"), id="packed"),
    pytest.param("gpt_oss", ("--trainer.gradient-accumulation-steps", "4"), id="gpt-oss"),
    pytest.param("deepseek_v3", ("--alignment.anchor", "live"), id="deepseek-live"),
    pytest.param("deepseek_v3", (*LORA, "--peft.router", "lora", "--alignment.pooling", "completion"), id="deepseek"),
    # PhiMoE draws its experts at random in training.
    pytest.param("phimoe", (), id="phimoe"),
    pytest.param("phimoe", ("--peft.parts", "[attention]", "--peft.dropout", "0.2"), id="phimoe-lora-dropout"),
]


@pytest.mark.parametrize(("family", "options"), CASES)
def test_the_first_step_is_that_of_a_training(
    family: str,
    options: tuple[str, ...],
    examined: Callable[..., Report],
    trained: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    report = examined(*ONE_STEP, *options, family=family)
    assert not report.refused, report.findings
    assert not (tmp_path / "out").exists()
    assert report.losses is not None
    assert report.parameters is not None

    result = trained(*ONE_STEP, *options, family=family)
    logged, step = result["metrics"], report.losses.step
    tolerance = 1e-3 if "--trainer.bf16" in options else 1e-5
    assert step.loss == pytest.approx(logged["loss"], rel=tolerance)
    assert step.gradients.total == pytest.approx(logged["grad_norm"], rel=tolerance)
    terms = {key for key in logged if key.startswith(("routing_alignment", "aux_loss"))}
    assert len(terms) == 2 * ("null" not in options) + (family != "deepseek_v3")
    for key in terms:
        assert step.logged[key] == pytest.approx(logged[key], rel=tolerance, abs=1e-7), key
    everything = sum(part.parameters for part in report.parameters)
    trainable = sum(part.trainable for part in report.parameters)
    assert any(line.startswith(f"trainable: {trainable:,} of {everything:,} parameters") for line in result["said"])


def test_rows_steps_layers_and_the_stored_recipe(
    examined: Callable[..., Report], trained: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    options = (
        *("--trainer.max-steps", "-1", "--trainer.num-train-epochs", "1.5"),
        *("--trainer.per-device-train-batch-size", "5", "--trainer.gradient-accumulation-steps", "2"),
        *("--data.max-length", "30", "--data.overlong", "drop"),
    )
    report = examined(*options)
    result = trained(*options)
    assert report.data is not None
    assert report.schedule is not None
    assert report.model is not None
    assert report.data[0].counts == result["rows"]["train"]
    assert 0 < report.data[0].everything.rows == result["rows"]["train"]["kept"] < 24
    assert report.schedule.steps == result["steps"]
    assert report.model.aligned == result["layers"]

    from innerlingua.recipe import load_recipe

    assert report.recipe == load_recipe(tmp_path / "out" / "recipe.resolved.yaml").values()


def test_packed_rows(examined: Callable[..., Report], trained: Callable[..., dict[str, Any]]) -> None:
    options = (
        *("--data.packing", "--data.max-length", "90", "--trainer.max-steps", "-1", "--trainer.num-train-epochs", "2"),
        *("--trainer.per-device-train-batch-size", "3"),
    )
    report = examined(*options)
    result = trained(*options)
    assert report.schedule is not None
    assert report.losses is not None
    assert report.schedule.rows == 24
    assert report.schedule.packed_rows is not None
    assert report.schedule.packed_rows < 24
    assert report.schedule.steps == result["steps"] == 2 * -(-report.schedule.packed_rows // 6)
    assert report.losses.step.rows > 3
    [said] = [line for line in result["said"] if line.startswith("packed: ")]
    assert said.startswith(f"packed: 24 rows in {report.schedule.packed_rows} of 90 tokens, ")


def test_a_stored_prior_and_one_in_memory_give_the_same_step(
    examined: Callable[..., Report], recipe_of: Callable[..., Any]
) -> None:
    from innerlingua.recipe.build import run_prior

    options = (*ONE_STEP, *LORA, "--peft.router", "train")
    missing = examined(*options)
    run_prior(recipe_of(*options), say=lambda text: None)
    fresh = examined(*options)
    assert missing.prior is not None
    assert fresh.prior is not None
    assert (missing.prior.state, fresh.prior.state) == ("missing", "fresh")
    assert missing.prior.anchors == fresh.prior.anchors == 12
    assert missing.losses is not None
    assert fresh.losses is not None
    assert missing.losses.step.loss == pytest.approx(fresh.losses.step.loss, rel=1e-6)
    for name, value in fresh.losses.step.logged.items():
        assert missing.losses.step.logged[name] == pytest.approx(value, rel=1e-5), name
