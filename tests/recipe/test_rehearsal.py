"""The section `trainer` before anything is loaded: numbers out of range, and what only the libraries can judge."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from innerlingua.errors import RecipeError
from innerlingua.recipe import Recipe, load_recipe, rehearsal
from innerlingua.recipe.rehearsal import TERM_NAMES, rehearse
from innerlingua.recipe.trainer import resolve_trainer

RECIPE = """\
model: {path: m}
data: {train: a.jsonl}
alignment: {anchor: live}
trainer:
  output_dir: runs/x
  use_cpu: true
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))  # nobody is logged in
    monkeypatch.chdir(tmp_path)


def tried(path: Path, **trainer: Any) -> Recipe:
    """The recipe in `path` with these fields of the section trainer, checked and rehearsed."""
    recipe = load_recipe(path)
    recipe = recipe.model_copy(update={"trainer": {**recipe.trainer, **trainer}})
    resolve_trainer(recipe)
    rehearse(recipe)
    return recipe


def message(path: Path, **trainer: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        tried(path, **trainer)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("per_device_train_batch_size", 0, "at least 1"),
        ("per_device_eval_batch_size", 0, "at least 1"),
        ("gradient_accumulation_steps", 0, "at least 1"),
        ("learning_rate", -1, "at least 0"),
        ("learning_rate", float("nan"), "a finite number"),
        ("weight_decay", float("inf"), "a finite number"),
        ("adam_beta1", 2, "at least 0 and below 1"),
        ("adam_beta2", 1.0, "at least 0 and below 1"),
        ("max_grad_norm", -1, "at least 0"),
        ("seed", -5, "at least 0 and below 4294967296"),
        ("seed", 2**32, "at least 0 and below 4294967296"),
        ("dataloader_num_workers", -1, "at least 0"),
        ("max_steps", 0, "at least 1; leave it out"),
        ("max_steps", -2, "at least 1; leave it out"),
        ("num_train_epochs", 0, "above 0"),
        ("save_steps", 0, "save_steps is 0; it must be above 0"),
        ("warmup_steps", -1, "warmup_steps is -1; it must be at least 0"),
        ("save_total_limit", 0, "leave it out to keep every checkpoint"),
        ("lr_scheduler_kwargs", {"min_lr": float("nan")}, "of finite numbers"),
        ("lr_scheduler_type", "cosin", "did you mean 'cosine'?"),
        ("optim", "adamw", "did you mean"),
        ("logging_steps", True, "a number"),
        ("lr_scheduler_type", 5, "text"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_place(path: Path, key: str, value: Any, says: str) -> None:
    path.write_text(RECIPE + "  seed: 1\n")
    said = message(path, **{key: value})
    assert f"trainer.{key} is " in said
    assert says in said
    assert said.startswith(f"{path}, line {7 if key == 'seed' else 4}: ")


def test_all_that_is_out_of_range_comes_at_once(path: Path) -> None:
    assert len(message(path, max_steps=0, seed=-1, nonsense=1).splitlines()) == 3


def test_an_option_means_text_where_text_is_meant_and_a_whole_number_is_a_number(path: Path) -> None:
    words = ["--trainer.run-name", "5", "--trainer.output-dir", "2026", "--trainer.router-aux-loss-coef", "0"]
    resolved = resolve_trainer(load_recipe(path, words)).trainer
    assert (resolved["run_name"], resolved["output_dir"]) == ("5", "2026")
    assert isinstance(resolved["router_aux_loss_coef"], float)
    path.write_text(RECIPE + "  run_name: 5\n")
    assert f"{path}, line 7: trainer.run_name is 5; it must be text" in message(path)


def test_a_place_is_the_keys_own(path: Path) -> None:
    recipe = load_recipe(
        path, ["--trainer.accelerator-config.split-batches", "--trainer.seed", "1", "--peft", "{r: 2}"]
    )
    assert recipe.where("trainer.accelerator_config") == "command line, --trainer.accelerator-config.split-batches"
    assert recipe.where("peft.r") == "command line, --peft"
    assert recipe.where("trainer.max_steps") == recipe.where("trainer") == f"{path}, line 4"
    assert recipe.where("trainer.use_cpu") == f"{path}, line 6"


@pytest.mark.parametrize(("key", "needed"), [("fsdp_config", "fsdp"), ("liger_kernel_config", "use_liger_kernel")])
def test_a_field_that_nobody_would_read_is_refused(path: Path, key: str, needed: str) -> None:
    path.write_text(RECIPE + f"  {key}: {{a: true}}\n")
    with pytest.raises(RecipeError, match=rf"line 7: trainer.{key} does nothing without trainer.{needed}"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("trainer", "says"),
    [
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"nonsense": 1}}, "nonsense"),
        ({"accelerator_config": {"foo": 1}}, "foo"),
        ({"accelerator_config": "absent.json"}, "absent.json"),
        ({"torch_compile_backend": "foo"}, "foo"),
        ({"fsdp": "full_shard"}, "distributed"),
        ({"report_to": "foo"}, "foo is not supported"),
        ({"report_to": ["wandb"]}, "wandb"),
        ({"optim": "adamw_bnb_8bit"}, "bitsandbytes"),
        ({"optim": "galore_adamw", "optim_target_modules": ["attn"]}, "galore"),
        ({"optim_args": "nonsense"}, "unpack"),
        ({"use_liger_kernel": True}, "liger"),
        ({"deepspeed": "nope.json"}, "deepspeed"),
        ({"push_to_hub": True}, "hub"),
        ({"hub_model_id": "a/b/c"}, "a/b/c"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}, "gradient_checkpointing": True}, "reentrant"),
        ({"label_smoothing_factor": 0.1}, "cannot be combined with the term routing_alignment"),
        ({"dataloader_persistent_workers": True}, "persistent_workers"),
        ({"debug": "foo"}, "foo"),
        ({"pad_to_multiple_of": "foo"}, "foo"),
        ({"fp16": True, "bf16": True}, "fp16"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_a_library_refuses_is_a_message_with_the_key(path: Path, trainer: dict[str, Any], says: str) -> None:
    before = sorted(path.parent.iterdir())
    said = message(path, **trainer)
    assert says in said
    assert any(f"trainer.{key}: " in said for key in trainer)
    assert not any(f"trainer.{key}: " in said for key in ("use_cpu", "output_dir"))
    assert said.startswith(f"{path}, line 4: ")
    assert sorted(path.parent.iterdir()) == before


def test_two_faults_that_hide_each_other_are_both_named(path: Path) -> None:
    said = message(path, lr_scheduler_type="cosine_with_min_lr", optim="adamw_bnb_8bit")
    assert "trainer.lr_scheduler_type: " in said
    assert "trainer.optim: " in said


@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"optim": "adafactor", "lr_scheduler_type": "constant"},
        {"optim": "sgd", "max_grad_norm": 0},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 10}},
        {"gradient_checkpointing": True, "gradient_accumulation_steps": 64, "per_device_train_batch_size": 512},
        {"dataloader_num_workers": 4, "dataloader_prefetch_factor": 2, "dataloader_persistent_workers": True},
        {"neftune_noise_alpha": 5, "save_strategy": "epoch", "save_total_limit": 1, "run_name": "x"},
        {"train_sampling_strategy": "group_by_length", "dataloader_drop_last": True, "save_only_model": True},
        {"loss_type": "dft", "warmup_steps": 0.1, "adam_epsilon": 1e-6, "include_num_input_tokens_seen": True},
        {"assistant_only_loss": True, "completion_only_loss": False, "num_train_epochs": 0.5, "logging_steps": 0.1},
    ],
    ids=lambda value: "+".join(value),
)
def test_what_works_is_let_through(path: Path, trainer: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.parent.iterdir())
    tried(path, **trainer)
    assert sorted(path.parent.iterdir()) == before
    assert capfd.readouterr() == ("", "")


EVALUATING = RECIPE.replace("a.jsonl", "a.jsonl, eval: b.jsonl")


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "routing_alignment", "eval_entropy"])
def test_a_metric_that_an_evaluation_gives_is_let_through(path: Path, metric: str) -> None:
    path.write_text(f"{EVALUATING}peft: {{r: 2}}\n")
    tried(path, metric_for_best_model=metric, load_best_model_at_end=True, save_strategy="epoch")


def test_a_metric_that_none_gives_is_named_with_the_nearest(path: Path) -> None:
    path.write_text(EVALUATING)
    said = message(path, metric_for_best_model="routing_alignmen")
    assert "trainer.metric_for_best_model: 'routing_alignmen'" in said
    assert "did you mean 'eval_routing_alignment'?" in said


def test_a_fault_of_ours_is_not_put_on_the_recipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("ours")

    monkeypatch.setattr(rehearsal, "_tokenizer", broken)
    with pytest.raises(ValueError, match=r"^ours$"):
        tried(path, seed=3)


def test_every_term_has_its_name_here() -> None:
    from innerlingua.recipe.terms import TERMS

    assert TERM_NAMES.keys() == TERMS.keys()


def test_the_group_that_a_run_makes_is_taken_down() -> None:
    from innerlingua.recipe.group import own_group

    def start() -> None:
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)

    def gloo() -> list[str]:
        tasks = Path(f"/proc/{os.getpid()}/task")
        names = [(task / "comm").read_text() for task in tasks.iterdir()] if tasks.exists() else []
        return [name for name in names if "gloo" in name]

    with own_group():
        start()
    assert not torch.distributed.is_initialized()
    assert not gloo()

    def fail() -> None:
        with own_group():
            start()
            raise RecipeError("x")

    with pytest.raises(RecipeError):
        fail()
    assert not torch.distributed.is_initialized()
    start()
    try:
        with own_group():
            torch.distributed.barrier()
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()
