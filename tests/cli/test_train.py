"""`innerlingua train` and `innerlingua routing prior` on a tiny model, through the command's entry point."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, pairs, write_rows

from innerlingua.recipe import load_recipe

SHORT = ("--trainer.max-steps", "2")


def weights(folder: Path, name: str = "model.safetensors") -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / name)


def same(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The names of the tensors that are bit-equal in both."""
    assert first.keys() == second.keys()
    return [name for name in first if first[name].equal(second[name])]


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "train_result.json").read_text())
    return result


# -- what a run leaves behind ---------------------------------------------------------------------------------------


def test_the_result_loads_with_plain_transformers(tiny: Path, finished: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, base = (AutoModelForCausalLM.from_pretrained(folder) for folder in (finished, tiny / "model"))
    tokens = AutoTokenizer.from_pretrained(finished)("jua", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert not torch.allclose(model(tokens).logits, base(tokens).logits)


def test_every_weight_is_trained_by_default(tiny: Path, finished: Path) -> None:
    assert same(weights(tiny / "model"), weights(finished)) == []


def test_counts_in_are_counts_out(finished: Path) -> None:
    rows = result_of(finished)["rows"]["train"]
    assert rows["read"] == 40
    assert rows["kept"] + sum(count for name, count in rows.items() if name.startswith("dropped_")) == 40


def test_the_term_is_in_the_result(finished: Path) -> None:
    result = result_of(finished)
    assert result["steps"] == 12
    assert 0 < result["metrics"]["routing_alignment"] < 0.6932
    assert result["layers"] == [0, 1, 2]


def test_the_stored_recipe_says_everything_and_reads_back(finished: Path) -> None:
    recipe = load_recipe(finished / "recipe.resolved.yaml")
    assert recipe.alignment is not None
    assert recipe.alignment.layers == [0, 1, 2]
    assert recipe.trainer["max_length"] is None
    assert (recipe.trainer["use_cpu"], recipe.trainer["bf16"], recipe.trainer["adam_beta2"]) == (True, False, 0.95)


def test_nothing_unfinished_is_left(finished: Path) -> None:
    assert not [path.name for path in finished.iterdir() if path.name.startswith(".")]
    assert set(result_of(finished)["files"]) <= {path.name for path in finished.iterdir()}


# -- anchors --------------------------------------------------------------------------------------------------------


def test_a_live_anchor_needs_no_prior(innerlingua: Run, tmp_path: Path) -> None:
    innerlingua("train", *SHORT, "--alignment.anchor", "live")
    assert not (tmp_path / "out" / "prior").exists()
    assert result_of(tmp_path / "out")["metrics"]["routing_alignment"] > 0


def test_a_prior_computed_ahead_is_used(innerlingua: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    innerlingua("routing", "prior")
    assert [path.name for path in out.iterdir()] == ["prior"]
    stored = (out / "prior" / "prior.safetensors").stat()
    assert "is up to date" in innerlingua("routing", "prior").out
    assert "is up to date" in innerlingua("train", *SHORT).out
    assert (out / "prior" / "prior.safetensors").stat().st_mtime_ns == stored.st_mtime_ns


def test_a_stale_prior_is_refused_and_replaced_when_asked(innerlingua: Run, tmp_path: Path) -> None:
    innerlingua("routing", "prior")
    before = (tmp_path / "out" / "prior" / "prior.json").read_bytes()
    rows = pairs()
    rows[3]["anchor_prompt"] = "quite another question?"
    other = ("--data.train", str(write_rows(tmp_path / "other.jsonl", rows)))
    for verb in (["train"], ["routing", "prior"]):
        done = innerlingua(*verb, *other, code=2)
        assert "'p003'" in done.err
        assert "stale" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prior"]
    assert (tmp_path / "out" / "prior" / "prior.json").read_bytes() == before
    assert "replaced" in innerlingua("routing", "prior", *other, "--overwrite").out
    assert "is up to date" in innerlingua("routing", "prior", *other).out


def test_a_recipe_without_a_prior_has_none_to_compute(innerlingua: Run) -> None:
    assert "alignment.anchor: live" in innerlingua("routing", "prior", "--alignment.anchor", "live", code=2).err
    assert "no section alignment" in innerlingua("routing", "prior", "--alignment", "null", code=2).err


def test_evaluation_rows_have_their_anchors_in_the_prior(innerlingua: Run, tmp_path: Path) -> None:
    rows = [{**row, "id": f"e{row['id']}"} for row in pairs(6)]
    held_out = write_rows(tmp_path / "eval.jsonl", rows)
    innerlingua(
        "train", *SHORT, "--data.eval", str(held_out), "--trainer.eval-strategy", "steps", "--trainer.eval-steps", "2"
    )
    assert result_of(tmp_path / "out")["metrics"]["eval_routing_alignment"] > 0


# -- what is trained ------------------------------------------------------------------------------------------------


def test_without_alignment_it_is_plain_tuning_and_weight_0_changes_nothing(innerlingua: Run, tmp_path: Path) -> None:
    innerlingua("train", *SHORT, "--alignment.weight", "0")
    innerlingua("train", *SHORT, "--alignment", "null", "--trainer.output-dir", str(tmp_path / "plain"))
    measured, plain = weights(tmp_path / "out"), weights(tmp_path / "plain")
    assert same(measured, plain) == list(plain)
    assert "routing_alignment" not in result_of(tmp_path / "plain")["metrics"]


def test_only_the_parts_asked_for_are_trained(innerlingua: Run, tiny: Path, tmp_path: Path) -> None:
    innerlingua("train", *SHORT, "--model.train", "[router]")
    changed = set(weights(tiny / "model")) - set(same(weights(tiny / "model"), weights(tmp_path / "out")))
    assert changed == {f"model.layers.{layer}.mlp.gate.weight" for layer in range(3)}


@pytest.mark.parametrize("router", ["freeze", "lora", "train"])
def test_lora_on_experts_reloads_in_plain_peft(innerlingua: Run, tiny: Path, tmp_path: Path, router: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    innerlingua("train", "--trainer.max-steps", "3", "--peft.r", "2", "--peft.router", router)
    adapter = weights(tmp_path / "out", "adapter_model.safetensors")
    assert any(".experts." in name and "lora_B" in name for name in adapter)
    stored = {"freeze": None, "lora": "lora_B", "train": "gate.weight"}[router]
    assert [name for name in adapter if ".gate." in name and stored is not None and stored in name] or stored is None
    assert stored is not None or not [name for name in adapter if ".gate." in name]

    base = AutoModelForCausalLM.from_pretrained(tiny / "model")
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    tokens = torch.tensor([[10, 20, 30, 40]])
    model = PeftModel.from_pretrained(base, tmp_path / "out")
    with torch.no_grad():
        adapted = model(tokens).logits
        merged = model.merge_and_unload()
        assert torch.allclose(merged(tokens).logits, adapted, atol=1e-6)
    after = merged.state_dict()
    parts = {"q_proj": True, "gate_up_proj": True, "down_proj": True, "mlp.gate.": router != "freeze", "norm": False}
    for part, trained in parts.items():
        moved = [not before[name].equal(after[name]) for name in before if part in name]
        assert moved
        assert all(moved) if trained else not any(moved), part


@pytest.mark.parametrize("method", [[], ["--peft.r", "2"], ["--peft.r", "2", "--peft.router", "lora"]])
def test_every_trained_weight_comes_back_on_resume(innerlingua: Run, tmp_path: Path, method: list[str]) -> None:
    out = tmp_path / "out"
    name = "adapter_model.safetensors" if method else "model.safetensors"
    steps = ("--trainer.max-steps", "4", "--trainer.save-steps", "2")
    innerlingua("train", *steps, *method)
    whole = weights(out, name)
    shutil.rmtree(out / "checkpoint-4")
    for file in (*result_of(out)["files"], "train_result.json"):
        (out / file).unlink()
    innerlingua("train", *steps, *method, "--resume")
    assert same(whole, weights(out, name)) == list(whole)


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_run_is_not_overwritten_unasked(innerlingua: Run, tiny: Path, finished: Path) -> None:
    here = ("--trainer.output-dir", str(finished))
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = innerlingua("train", *here, code=2)
    assert "holds a finished run" in done.err
    assert "--resume" not in done.err  # there is nothing to resume
    assert "--overwrite" in done.err
    assert "there is nothing to resume" in innerlingua("train", *here, "--resume", code=2).err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_overwrite_replaces_a_run_and_nothing_else(innerlingua: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    innerlingua("train", *SHORT, "--trainer.save-steps", "1")
    (out / "mine.txt").write_text("keep")
    innerlingua("train", *SHORT, "--peft.r", "2", "--overwrite")
    assert (out / "mine.txt").read_text() == "keep"
    assert not (out / "model.safetensors").exists()
    assert not (out / "checkpoint-1").exists()
    assert (out / "adapter_model.safetensors").exists()


def test_a_refused_overwrite_leaves_the_run(innerlingua: Run, tmp_path: Path) -> None:
    innerlingua("train", *SHORT)
    innerlingua("train", "--overwrite", "--data.train", str(tmp_path / "absent.jsonl"), code=2)
    assert result_of(tmp_path / "out")["steps"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--resume"], "holds no run"),
        (["--resume", "--overwrite"], "contradict each other"),
    ],
)
def test_nothing_to_resume(innerlingua: Run, words: list[str], says: str) -> None:
    assert says in innerlingua("train", *words, code=2).err


def test_a_folder_of_something_else_is_left_alone(innerlingua: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    for words in ([], ["--overwrite"]):
        assert "files of something else (thesis.tex)" in innerlingua("train", *words, code=2).err


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--trainer.learning-rat", "1"],
            "trainer.learning_rat is no field of trl.SFTConfig; did you mean 'learning_rate'?",
        ),
        (["--trainer.learning-rate", "fast"], "trainer.learning_rate is 'fast'; it must be a number"),
        (["--trainer.max-steps", "1.5"], "trainer.max_steps is 1.5; it must be a whole number"),
        (["--trainer.seed"], "trainer.seed is true; it must be a whole number"),
        (["--trainer.loss-type", "nl"], "trainer.loss_type is 'nl'; did you mean 'nll'?"),
        (["--trainer.lr-scheduler-type", "cosin"], "trainer.lr_scheduler_type is 'cosin'; did you mean 'cosine'?"),
        (["--trainer.eval-strategy", "steps"], "data.eval"),
        (["--alignment.layers", "7-34"], "alignment.layers: no MoE layer at decoder layer 7-34"),
        (
            ["--model.attn-implementation", "foo"],
            "--model.attn-implementation: model.attn_implementation: foo cannot be",
        ),
        (
            ["--model.experts-implementation", "deepgemm"],
            "model.experts_implementation: deepgemm does not compute here",
        ),
        (["--trainer.gradient-accumulation-steps", "0"], "gradient_accumulation_steps is 0; it must be at least 1"),
        (["--trainer.lr-scheduler-type", "cosine_with_min_lr"], "trainer.lr_scheduler_type: 'cosine_with_min_lr'"),
        (["--trainer.report-to", "wandb"], "pip install wandb"),
        (
            ["--trainer.dataloader-drop-last", "--trainer.per-device-train-batch-size", "64"],
            "data.train has 40 rows, too few to fill one batch of 64",
        ),
        (
            ["--trainer.dataloader-drop-last", "--trainer.per-device-train-batch-size", "40", "--data.packing"],
            "data.train is packed into",
        ),
        (["--trainer.output-dir", f"{__file__}/x"], "trainer.output_dir: nothing can be written to"),
        (["--model.revision", "main"], "leave model.revision out"),
        (["--alignment.pooling", "spans", "--alignment.anchor", "live"], "add the column spans"),
        (["--model.path", "./absent"], "command line, --model.path: model.path: there is no folder ./absent"),
        (["--model.path", "/absent/model"], "there is no folder /absent/model"),
        (["--data.train", "absent.jsonl"], "absent.jsonl"),
        (["--data.max-length", "10"], "max_length is 10"),
        (["--data.max-length", "10", "--data.overlong", "drop"], "overlong: drop leaves no row"),
        (["--trainer.assistant-only-loss"], "trainer.assistant_only_loss: true needs rows of messages"),
        (["--model.train", "[shared_experts]"], "model.train: this model has no shared_experts"),
        (["--peft.parts", "[shared_experts]"], "peft.parts: this model has no shared_experts"),
        (["--model.train", "[head, norms]"], "has no head"),
        (["--model.train", "[head]"], "the head lies behind all routers"),
        (
            ["--trainer.gradient-checkpointing", "--trainer.gradient-checkpointing-kwargs.use-reentrant"],
            "use_reentrant",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_training(
    innerlingua: Run, tmp_path: Path, words: list[str], says: str
) -> None:
    done = innerlingua("train", *words, code=2)
    assert says in done.err
    left = {path.name for path in (tmp_path / "out").iterdir()} if (tmp_path / "out").exists() else set()
    assert left <= {"prior"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"anchor_prompt": None, "anchor_completion": None}, "no anchor"),
        ({"id": "p001"}, "the id occurs twice"),
        ({"language": "swahili"}, "swahili"),
        ({"completion": ""}, "is empty"),
    ],
)
def test_a_bad_row_is_named(innerlingua: Run, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    rows: list[dict[str, Any]] = pairs(4)
    rows[2] = {key: value for key, value in {**rows[2], **change}.items() if value is not None}
    path = write_rows(tmp_path / "bad.jsonl", rows)
    done = innerlingua("train", "--data.train", str(path), code=2)
    assert says in done.err
    assert str(path) in done.err
    assert "3" in done.err
    assert not (tmp_path / "out").exists()


def test_a_broken_line_is_named(innerlingua: Run, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "bad.jsonl", pairs(4))
    path.write_text(path.read_text() + '{"id": "x", \n')
    done = innerlingua("train", "--data.train", str(path), code=2)
    assert f"{path}" in done.err
    assert "5" in done.err


def test_a_dense_model_is_refused(innerlingua: Run, tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=258, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "dense")
    AutoTokenizer.from_pretrained(tiny / "model").save_pretrained(tmp_path / "dense")
    assert "no MoE layer" in innerlingua("train", "--model.path", str(tmp_path / "dense"), code=2).err
