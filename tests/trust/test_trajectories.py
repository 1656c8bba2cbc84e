"""The same training however it is cut up: 50 steps through the real command, compared step by step.

Equal are the loss, the term, the norm of the gradient at every step and the weights at every checkpoint, within a
relative tolerance of rounding in float32, and the signed residuals have a mean near zero (`trajectory_runs.check`).
Rows: 47, so that the sixth step of every epoch has seven, and every fifth without an anchor, so that micro-batches and
processes differ in their number of pairs. The balance loss is off: it is a mean over micro-batches by itself.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from soak_record import record
from trajectory_runs import (
    GLOBAL_BATCH,
    TERM,
    Distance,
    Trajectory,
    check,
    deepspeed_launch,
    distance,
    make_world,
    merged,
    rows,
    run,
    shown,
    verdict,
    weights_of,
    write_rows,
)
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig

from commands import TWO_PROCESSES
from innerlingua.errors import RecipeError
from innerlingua.recipe.batches import refuse_uneven

STEPS, SHORT = 50, 12

# Largest relative difference of a logged value at any step, and of the weights from how far they moved. Found are 1e-5
# for the term (a small difference of large numbers) and 1e-6 for the others; the rest is room for other processors.
WITHIN, WEIGHTS = 3e-4, 1e-4

deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed: `make deepspeed` installs it"
)


@dataclass(frozen=True)
class Setting:
    """A way to run one of `BASES`, by what changes in the recipe and who launches it."""

    base: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    zero_stage: int | None = None
    processes: int = 1


def split(batch: int, accumulation: int) -> dict[str, Any]:
    """Micro-batches of so many rows in each process, so many in a step."""
    return {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}


def two(base: str, batch: int, *, zero: int | None = None) -> Setting:
    """Two processes with micro-batches of `batch` rows each: two or four, so that both have as many of them."""
    return Setting(base, {"trainer": split(batch, GLOBAL_BATCH // 2 // batch)}, zero_stage=zero, processes=2)


BASES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"peft": {"r": 4, "alpha": 8, "router": "lora"}},
    "live": {"alignment": {"anchor": "live"}},
    "in order": {"trainer": {"train_sampling_strategy": "sequential"}},
    "eight rows": {"data": {"train": "{world}/eight.jsonl"}},
}
CHECKPOINTED = {"trainer": {"gradient_checkpointing": True}}

PROPERTIES: dict[str, tuple[str, list[Setting]]] = {
    "trajectory: batch and accumulation": (
        "4 x 2 and 1 x 8 against 8 x 1; full, LoRA, live anchors",
        [
            Setting("full", {"trainer": split(4, 2)}),
            Setting("full", {"trainer": split(1, 8)}),
            Setting("lora", {"trainer": split(2, 4)}),
            Setting("live", {"trainer": split(1, 8)}),
        ],
    ),
    "trajectory: padding": (
        "padded to a multiple of 64; a tokenizer that pads on the left",
        [
            Setting("full", {"trainer": {"pad_to_multiple_of": 64}}),
            Setting("full", {"model": {"path": "{world}/left"}}),
            Setting("live", {"trainer": {"pad_to_multiple_of": 64}}),
        ],
    ),
    "trajectory: packing": (
        "eight rows a step, packed into rows of 256 tokens against padded",
        [Setting("eight rows", {"data": {"packing": True}})],
    ),
    "trajectory: order of rows in a batch": (
        "each batch of the file turned round",
        [Setting("in order", {"data": {"train": "{world}/turned.jsonl"}})],
    ),
    "trajectory: gradient checkpointing": (
        "on against off; full, LoRA",
        [Setting("full", CHECKPOINTED), Setting("lora", CHECKPOINTED)],
    ),
    "trajectory: two processes, DDP": (
        "2 x 2 and 4 x 1 in each of two processes against 8 x 1 in one; full, LoRA, live anchors",
        [two("full", 2), two("lora", 4), two("live", 4)],
    ),
}
ZERO: dict[str, tuple[str, list[Setting]]] = {
    "trajectory: two processes, DeepSpeed ZeRO-2": (
        "2 x 2 in each of two processes against 8 x 1 in one; full, LoRA",
        [two("full", 2, zero=2), two("lora", 2, zero=2)],
    ),
    "trajectory: two processes, DeepSpeed ZeRO-3": (
        "2 x 2 in each of two processes against 8 x 1 in one; full, LoRA, live anchors",
        [two("full", 2, zero=3), two("lora", 2, zero=3), two("live", 2, zero=3)],
    ),
}


class Runs:
    """Runs in one folder; those that others are compared with are made once."""

    def __init__(self, world: Path, folder: Path) -> None:
        self.world = world
        self._folder = folder
        self._known: dict[tuple[str, int], Trajectory] = {}
        self._count = 0

    def plain(self, base: str, steps: int) -> Trajectory:
        """One process, a batch of eight."""
        if (base, steps) not in self._known:
            self._known[base, steps] = self.make(Setting(base), steps)
        return self._known[base, steps]

    def make(self, setting: Setting, steps: int) -> Trajectory:
        self._count += 1
        changes = self._placed(merged(BASES[setting.base], setting.changes))
        launch = None if setting.processes == 1 else TWO_PROCESSES
        if setting.zero_stage is not None:
            launch = deepspeed_launch(self._folder, setting.zero_stage)
        found = run(
            self.world,
            self._folder / f"run-{self._count}",
            changes=changes,
            steps=steps,
            save_steps=STEPS // 5 if steps == STEPS else steps // 2,
            launch=launch,
            environment={"DS_ACCELERATOR": "cpu"},
        )
        wrapper = {(1, None): "Qwen3MoeForCausalLM", (2, None): "DistributedDataParallel"}
        assert len(found.steps) == steps
        assert found.result["distributed"] == {
            "processes": setting.processes,
            "kind": "NO" if setting.processes == 1 else "MULTI_CPU" if setting.zero_stage is None else "DEEPSPEED",
            "wrapper": "PeftModelForCausalLM"
            if setting.base == "lora" and setting.processes == 1
            else wrapper.get((setting.processes, setting.zero_stage), "DeepSpeedEngine"),
            "zero_stage": setting.zero_stage,
        }
        return found

    def distance(self, setting: Setting, steps: int) -> Distance:
        """How far a run in this setting lies from the plain one of its base."""
        start = None if setting.base == "lora" else weights_of(self.world / "model")
        return distance(self.make(setting, steps), self.plain(setting.base, steps), start=start)

    def _placed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        def place(value: Any) -> Any:
            return value.replace("{world}", str(self.world)) if isinstance(value, str) else value

        return {name: {key: place(value) for key, value in section.items()} for name, section in changes.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Runs:
    world = make_world(tmp_path_factory.mktemp("world"), tokenizer)
    shutil.copytree(world / "model", world / "left")
    left = PreTrainedTokenizerFast.from_pretrained(world / "left", padding_side="left")
    left.save_pretrained(world / "left")
    batches = [rows()[start : start + GLOBAL_BATCH][::-1] for start in range(0, len(rows()), GLOBAL_BATCH)]
    write_rows(world / "turned.jsonl", [row for batch in batches for row in batch])
    write_rows(world / "eight.jsonl", rows()[:GLOBAL_BATCH])
    return Runs(world, tmp_path_factory.mktemp("runs"))


def test_the_plain_run_learns_and_aligns(runs: Runs) -> None:
    # Otherwise equality would say little.
    plain = runs.plain("full", SHORT)
    assert plain.steps[-1]["loss"] < 0.95 * plain.steps[0]["loss"]
    assert all(entry[f"{TERM}_weighted"] > 1e-3 * entry["loss"] for entry in plain.steps)
    assert all(entry["grad_norm"] > 0.1 for entry in plain.steps)


def test_a_split_batch_with_more_padding_is_the_same_training(runs: Runs) -> None:
    setting = Setting("full", {"trainer": split(1, 8) | {"pad_to_multiple_of": 64}})
    check(runs.distance(setting, SHORT), within=WITHIN, weights=WEIGHTS)


def test_two_processes_are_the_same_training(runs: Runs) -> None:
    check(runs.distance(two("full", 2), SHORT), within=WITHIN, weights=WEIGHTS)


@pytest.mark.parametrize(
    ("rows", "batch", "changes", "refused"),
    [
        (47, 1, {}, True),  # 24 micro-batches in one process, 23 in the other
        (47, 2, {}, False),
        (44, 8, {}, False),
        (49, 8, {}, True),
        (47, 1, {"dataloader_drop_last": True}, False),
        (47, 1, {"accelerator_config": {"even_batches": True}}, False),
    ],
)
def test_processes_that_would_wait_for_each_other_are_refused(
    tmp_path: Path, rows: int, batch: int, changes: dict[str, Any], refused: bool
) -> None:
    given = {"accelerator_config": {"even_batches": False}} | changes
    args = SFTConfig(str(tmp_path), per_device_train_batch_size=batch, use_cpu=True, bf16=False, **given)
    refuse_uneven(args, 1, rows)
    with pytest.raises(RecipeError, match="even_batches: false") if refused else nullcontext():
        refuse_uneven(args, 2, rows)


# -- the whole matrix --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_fifty_steps(name: str, runs: Runs) -> None:
    hold(name, *PROPERTIES[name], runs)


@pytest.mark.slow
@deepspeed
@pytest.mark.parametrize("name", ZERO)
def test_fifty_steps_with_deepspeed(name: str, runs: Runs) -> None:
    hold(name, *ZERO[name], runs)


def hold(name: str, how: str, settings: list[Setting], runs: Runs) -> None:
    """Run all `settings`, record the largest distances, and hold each of them."""
    found = [runs.distance(setting, STEPS) for setting in settings]
    measures = [shown(each) for each in found]
    largest = {key: max(measure[key] for measure in measures) for key in measures[0]}
    record(name, how, STEPS * len(found), "steps", verdict(found, within=WITHIN, weights=WEIGHTS), largest)
    for each in found:
        check(each, within=WITHIN, weights=WEIGHTS)


@pytest.mark.slow
def test_weight_0_is_plain_fine_tuning(runs: Runs) -> None:
    weighed = runs.make(Setting("full", {"alignment": {"weight": 0}}), STEPS)
    plain = run(runs.world, runs.world / "plain", changes={"alignment": None}, steps=STEPS)
    for one, other in zip(weighed.steps, plain.steps, strict=True):
        assert (one["loss"], one["grad_norm"]) == (other["loss"], other["grad_norm"])
        assert one[TERM] > 0
    for step, weights in plain.weights.items():
        assert [key for key, value in weights.items() if not value.equal(weighed.weights[step][key])] == []
    how = "alignment.weight 0 against a recipe without the section"
    record("trajectory: weight 0 is plain fine-tuning", how, STEPS, "steps", "equal bit for bit")
