"""What keeps a run whole: its prior, its files, its precision, and the word of every process."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, pairs, write_rows

SHORT = ("--trainer.max-steps", "2", "--trainer.save-steps", "1")


def stored(out: Path) -> bytes:
    return (out / "prior" / "prior.json").read_bytes()


def other_anchors(path: Path) -> tuple[str, str]:
    rows = pairs()
    rows[3]["anchor_prompt"] = "quite another question?"
    return "--data.train", str(write_rows(path, rows))


# -- the prior of a run ---------------------------------------------------------------------------------------------


def test_an_overwrite_that_is_refused_late_leaves_the_prior(innerlingua: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    innerlingua("train", *SHORT)
    before = stored(out)
    late = ("--model.train", "[shared_experts]", "--overwrite")
    assert "has no shared_experts" in innerlingua("train", *late, *other_anchors(tmp_path / "o.jsonl"), code=2).err
    assert stored(out) == before
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_the_prior_of_a_run_is_not_replaced_under_it(innerlingua: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    innerlingua("train", *SHORT)
    before = stored(out)
    done = innerlingua("routing", "prior", "--overwrite", *other_anchors(tmp_path / "o.jsonl"), code=2)
    assert "holds a run" in done.err
    assert stored(out) == before


@pytest.fixture
def unfinished(innerlingua: Run, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    innerlingua("train", *SHORT)
    (out / "train_result.json").unlink()
    shutil.rmtree(out / "checkpoint-2")
    return out


def test_a_changed_recipe_is_refused_before_anything_is_loaded(innerlingua: Run, unfinished: Path) -> None:
    absent = ("--model.path", "./absent", "--alignment.weight", "2")
    done = innerlingua("train", *SHORT, *absent, "--resume", code=2)
    assert "alignment.weight: 1.5 -> 2" in done.err


@pytest.mark.parametrize(("found", "says"), [("gone", "is gone"), ("other", "is not the one")])
def test_a_resumed_run_needs_its_own_prior(innerlingua: Run, unfinished: Path, found: str, says: str) -> None:
    record = unfinished / "prior" / "prior.json"
    if found == "gone":
        record.unlink()
    else:
        record.write_text(record.read_text() + " ")
    done = innerlingua("train", *SHORT, "--resume", code=2)
    assert says in done.err
    assert "start a new run" in done.err
    assert "elete" not in done.err


def test_other_rows_to_evaluate_on_are_no_resume(innerlingua: Run, unfinished: Path, tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "eval.jsonl", [{**row, "id": f"e{row['id']}"} for row in pairs(6)])
    done = innerlingua("train", *SHORT, "--data.eval", str(held_out), "--resume", code=2)
    assert "the rows of data.eval" in done.err
    assert "run.eval_rows" not in done.err


def test_rows_that_have_moved_are_the_same_rows(innerlingua: Run, unfinished: Path, tmp_path: Path) -> None:
    moved = write_rows(tmp_path / "moved.jsonl", pairs())
    assert "done: 2 steps" in innerlingua("train", *SHORT, "--data.train", str(moved), "--resume").out


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("method", [(), ("--peft.r", "2")])
def test_a_checkpoint_that_is_cut_short_is_passed_over(
    innerlingua: Run, tmp_path: Path, method: tuple[str, ...]
) -> None:
    from safetensors.torch import load_file

    out = tmp_path / "out"
    name = "adapter_model.safetensors" if method else "model.safetensors"
    words = ("train", "--trainer.max-steps", "3", "--trainer.save-steps", "1", *method)
    innerlingua(*words)
    whole = load_file(out / name)
    (out / "train_result.json").unlink()
    cut(out / "checkpoint-3" / name)
    cut(out / "checkpoint-2" / "optimizer.pt")
    done = innerlingua(*words, "--resume")
    assert f"passed over: checkpoint-3, where {name} is cut short" in done.out
    assert "passed over: checkpoint-2, where optimizer.pt is cut short" in done.out
    assert f"resuming from {out / 'checkpoint-1'}" in done.out
    assert "unexpected keys" not in done.err
    resumed = load_file(out / name)
    assert [key for key in whole if not whole[key].equal(resumed[key])] == []


def test_without_a_whole_checkpoint_nothing_is_loaded(innerlingua: Run, unfinished: Path) -> None:
    cut(unfinished / "checkpoint-1" / "scheduler.pt")
    done = innerlingua("train", *SHORT, "--resume", code=2)
    assert "holds no whole checkpoint" in done.err
    assert "checkpoint-1, where scheduler.pt is cut short" in done.err
    assert "rows" not in done.out


# -- a training that fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("begun", "kept"), [((), ()), (("checkpoint-1",), ("checkpoint-1", "run.json"))])
def test_a_training_that_fails_before_it_leaves_anything_leaves_no_run(
    tmp_path: Path, begun: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    import torch
    from trl import SFTConfig

    from innerlingua.errors import RecipeError
    from innerlingua.recipe import run
    from innerlingua.recipe.attempt import attempt

    run.write_json(tmp_path / run.RECORD, {"files": []})
    (tmp_path / "prior").mkdir()
    for name in begun:
        (tmp_path / name).mkdir()

    def fail() -> None:
        with attempt(tmp_path, SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(RecipeError, match=r"per_device_train_batch_size: 8 rows .*gradient_accumulation_steps"):
        fail()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((*kept, "prior"))


def test_a_full_disk_takes_no_finished_checkpoint_of_weights_alone(tmp_path: Path) -> None:
    import errno

    from trl import SFTConfig

    from innerlingua.errors import RecipeError
    from innerlingua.recipe import run
    from innerlingua.recipe.attempt import attempt

    run.write_json(tmp_path / run.RECORD, {"files": []})
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "checkpoint-1" / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, save_only_model=True)

    def fail() -> None:
        with attempt(tmp_path, args):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RecipeError, match="no checkpoint can be resumed; the weights that were saved are in"):
        fail()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1"]


# -- files ----------------------------------------------------------------------------------------------------------


def test_overwrite_removes_the_files_of_a_run_that_was_killed_at_its_end(innerlingua: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    innerlingua("train", "--trainer.max-steps", "1", "--trainer.save-strategy", "no")
    record = json.loads((out / "run.json").read_text())
    assert set(json.loads((out / "train_result.json").read_text())["files"]) <= set(record["files"])
    (out / "train_result.json").unlink()  # as if the run had been killed after it moved its files
    innerlingua("train", "--trainer.max-steps", "1", "--trainer.save-strategy", "no", "--peft.r", "2", "--overwrite")
    assert not (out / "model.safetensors").exists()


def test_a_readme_that_the_run_did_not_write_stays(tmp_path: Path) -> None:
    from innerlingua.recipe import run

    run.write_json(tmp_path / run.RECORD, {"files": ["model.safetensors"]})
    for name in ("README.md", "model.safetensors"):
        (tmp_path / name).write_text("x")
    run.clear_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


# -- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        (("--model.dtype", "null"), "float32"),
        (("--model.dtype", "null", "--peft.r", "2"), "bfloat16"),
        (("--model.dtype", "auto"), "bfloat16"),
    ],
)
def test_full_tuning_keeps_float32_weights_unless_told(
    innerlingua: Run, tiny: Path, tmp_path: Path, words: tuple[str, ...], dtype: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(tiny / "model", dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(tiny / "model").save_pretrained(half)
    rate = ("--trainer.learning-rate", "3e-4", "--trainer.max-steps", "1")
    done = innerlingua("train", "--model.path", str(half), *rate, *words)
    prior = json.loads(stored(tmp_path / "out"))
    assert prior["fingerprint"]["compute"] == dtype
    assert ("model.dtype: " in done.out.split("the recipe as it is run")[0]) == ("null" in words)
    assert ("steps of a size of 0.0003" in done.out) == (words == ("--model.dtype", "auto"))
    assert ("DeepSpeed ZeRO-2 and ZeRO-3 do" in done.out) == (words == ("--model.dtype", "auto"))


def test_trained_routers_beside_adapters_are_float32(innerlingua: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    half = ("--model.dtype", "bfloat16", "--trainer.bf16", "--model.experts-implementation", "eager")
    done = innerlingua("train", *half, "--peft.r", "2", "--peft.router", "train", "--trainer.max-steps", "2")
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    kinds = {str(value.dtype) for name, value in adapter.items() if "gate.weight" in name}
    assert kinds == {"torch.float32"}
    assert "lost in rounding" not in done.out


# -- rows -----------------------------------------------------------------------------------------------------------

TEMPLATE = (
    "{{ date if date is defined else strftime_now('%d %b') }}{% for m in messages %}<{{ m['role'] }}>"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
)


def conversations(tiny: Path, folder: Path) -> tuple[str, ...]:
    """Options for a model whose template prints the date, and for rows of messages."""
    from transformers import AutoTokenizer

    model = folder / "chat"
    shutil.copytree(tiny / "model", model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    rows: list[dict[str, Any]] = []
    for row in pairs(12):
        sides = {
            f"{side}messages": [
                {"role": "user", "content": row[f"{side}prompt"]},
                {"role": "assistant", "content": row[f"{side}completion"].strip()},
            ]
            for side in ("", "anchor_")
        }
        rows.append({"id": row["id"], "language": row["language"], **sides})
    data = write_rows(folder / "chat.jsonl", rows)
    return "--model.path", str(model), "--data.train", str(data), "--trainer.max-steps", "1"


def test_a_template_that_prints_the_date_is_refused(innerlingua: Run, tiny: Path, tmp_path: Path) -> None:
    words = conversations(tiny, tmp_path)
    assert "data.chat_template_kwargs" in innerlingua("train", *words, code=2).err
    innerlingua("train", *words, "--data.chat-template-kwargs.date", "01 Jan")


@pytest.mark.parametrize(("said", "trained"), [((), True), (("--trainer.assistant-only-loss", "false"), False)])
def test_conversations_train_on_the_assistant_alone_unless_told(
    innerlingua: Run, tiny: Path, tmp_path: Path, said: tuple[str, ...], trained: bool
) -> None:
    from innerlingua.recipe import load_recipe

    words = (*conversations(tiny, tmp_path), "--data.chat-template-kwargs.date", "01 Jan", *said)
    done = innerlingua("train", *words)
    assert load_recipe(tmp_path / "out" / "recipe.resolved.yaml").trainer["assistant_only_loss"] is trained
    assert ("trainer.assistant_only_loss: true" in done.out.split("the recipe as it is run")[0]) == trained


def test_without_a_term_rows_need_no_anchor(innerlingua: Run, tmp_path: Path) -> None:
    bare = [{k: v for k, v in row.items() if not k.startswith("anchor")} for row in pairs(8)]
    data = ("--data.train", str(write_rows(tmp_path / "bare.jsonl", bare)), "--trainer.max-steps", "1")
    innerlingua("train", *data, "--alignment", "null")
    assert "no anchor" in innerlingua("train", *data, "--trainer.output-dir", str(tmp_path / "b"), code=2).err


def test_the_score_is_in_the_stored_recipe(finished: Path) -> None:
    from innerlingua.recipe import load_recipe

    recipe = load_recipe(finished / "recipe.resolved.yaml")
    assert recipe.alignment is not None
    assert recipe.alignment.score == "softmax"
