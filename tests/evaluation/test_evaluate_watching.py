"""The callback: benchmarks along a training that they do not disturb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from evaluate_rig import news, read_jsonl
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig

from innerlingua import Trainer
from innerlingua.errors import DataError, ModelError
from innerlingua.evaluation.backend_hf import WatchedHF
from innerlingua.evaluation.benchmarks import choose
from innerlingua.evaluation.running import run_unit
from innerlingua.evaluation.settings import Settings
from innerlingua.evaluation.store import read_results
from innerlingua.evaluation.tasks import build_unit
from innerlingua.evaluation.watching import BenchmarkCallback
from tiny import tiny_model


def _train(tokenizer: Any, folder: Path, callback: BenchmarkCallback | None, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=256)
    texts = Dataset.from_list([{"text": row["text"]["swh_Latn"]} for row in news()])
    args = SFTConfig(
        output_dir=str(folder), eval_strategy="steps", eval_steps=2, logging_steps=1, learning_rate=1e-2, seed=3,
        per_device_train_batch_size=2, max_length=None, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True,
        gradient_checkpointing=False, **{"max_steps": 4, "save_strategy": "no", **changes},
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=args, train_dataset=texts, eval_dataset=texts, processing_class=tokenizer, terms=[],
        callbacks=[callback] if callback else None,
    )  # fmt: skip
    trainer.train()
    return trainer


def _callback(tokenizer: Any, benchmarks: Path, **changes: Any) -> BenchmarkCallback:
    options = {"languages": ["swh_Latn", "hin_Deva"], "data": benchmarks, "limit": 6, "max_new_tokens": 3}
    return BenchmarkCallback(["belebele", "news_into"], tokenizer, **{**options, **changes})


@pytest.fixture(scope="module")
def trained(
    tokenizer: PreTrainedTokenizerFast, benchmarks: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trainer, BenchmarkCallback, Path]:
    folder = tmp_path_factory.mktemp("run")
    callback = _callback(tokenizer, benchmarks)
    return _train(tokenizer, folder, callback), callback, folder


def test_results_at_the_start_and_at_each_evaluation(trained: tuple[Trainer, BenchmarkCallback, Path]) -> None:
    _, callback, folder = trained
    assert [entry["step"] for entry in callback.history] == [0, 2, 4]
    for entry in callback.history:
        results = read_results(folder / "evaluation" / entry["folder"])
        assert set(results.tables) == {
            ("belebele", "eng_Latn"),
            ("belebele", "swh_Latn"),
            ("belebele", "hin_Deva"),
            ("news_into", "swh_Latn"),
            ("news_into", "hin_Deva"),
        }
        table = results.tables["belebele", "swh_Latn"]
        assert len(table.ids) == 6
        assert entry["scores"]["belebele"]["swh_Latn"] == table.scores.mean()
    stored = json.loads((folder / "evaluation" / "history.json").read_text(encoding="utf-8"))
    assert stored["evaluations"] == callback.history


def test_the_weights_that_are_asked_are_those_of_the_step(trained: tuple[Trainer, BenchmarkCallback, Path]) -> None:
    _, _, folder = trained
    first, last = (
        read_jsonl(folder / "evaluation" / f"step-{step:06d}" / "samples" / "belebele.swh_Latn.jsonl")
        for step in (0, 4)
    )
    assert [row["id"] for row in first] == [row["id"] for row in last]
    assert all(a["loglikelihoods"] != b["loglikelihoods"] for a, b in zip(first, last, strict=True))


def test_the_scores_are_in_the_log(trained: tuple[Trainer, BenchmarkCallback, Path]) -> None:
    trainer, callback, _ = trained
    logged = [entry for entry in trainer.state.log_history if "eval_belebele_swh_Latn" in entry]
    assert [entry["step"] for entry in logged] == [0, 2, 4]
    for entry, own in zip(logged, callback.history, strict=True):
        scores = own["scores"]["belebele"]
        assert entry["eval_belebele"] == pytest.approx((scores["swh_Latn"] + scores["hin_Deva"]) / 2)
        assert entry["eval_belebele_eng_Latn"] == scores["eng_Latn"]


def test_training_goes_on_as_it_would_have(
    trained: tuple[Trainer, BenchmarkCallback, Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    plain = _train(tokenizer, tmp_path, None)
    for name, weight in trained[0].model.state_dict().items():
        assert torch.equal(weight, plain.model.state_dict()[name]), name
    losses = [
        [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (trained[0], plain)
    ]
    assert losses[0] == losses[1]


def test_the_metric_can_choose_the_best_checkpoint(
    tokenizer: PreTrainedTokenizerFast, benchmarks: Path, tmp_path: Path
) -> None:
    callback = _callback(tokenizer, benchmarks, at_start=False)
    options = {"save_strategy": "best", "metric_for_best_model": "eval_belebele", "max_steps": 2}
    trainer = _train(tokenizer, tmp_path, callback, **options)
    assert [entry["step"] for entry in callback.history] == [2]
    scores = callback.history[0]["scores"]["belebele"]
    assert trainer.state.best_metric == pytest.approx((scores["swh_Latn"] + scores["hin_Deva"]) / 2)


def test_the_same_examples_are_shown_every_time(
    tokenizer: PreTrainedTokenizerFast, benchmarks: Path, models: Path
) -> None:
    """A unit that is run again draws the examples that it drew before, and keeps no requests."""
    benchmark, _ = choose(["mgsm"], ["swh_Latn"], data=benchmarks).benchmarks[0]
    settings = Settings(num_fewshot=2, max_new_tokens=3)
    unit = build_unit(benchmark, "swh_Latn", num_fewshot=2, max_new_tokens=3, limit=None)
    model = WatchedHF(pretrained=str(models / "base"), device="cpu", batch_size=4, quiet=True)
    asked: list[str] = []
    generate = model.generate_until

    def record(requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        asked.extend(request.args[0] for request in requests)
        return generate(requests, disable_tqdm=disable_tqdm)

    model.generate_until = record
    first, second = (run_unit(model, unit, settings) for _ in range(2))
    assert first == second
    assert asked[:6] == asked[6:]
    assert len({prompt.split("\n\n")[0] for prompt in asked}) > 1  # drawn, not the first ones
    assert not any("_instances" in vars(task) for task in unit.tasks.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"languages": ["fra_Latn"]}, "belebele has no fra_Latn"),
        ({"limit": 0}, "--limit 0"),
        ({"data": "/nowhere"}, "no such folder"),
        ({"num_fewshot": 90}, "--num-fewshot 90"),
    ],
)
def test_bad_input_is_refused_before_training(
    tokenizer: PreTrainedTokenizerFast, benchmarks: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        _callback(tokenizer, benchmarks, **changes)


def test_a_missing_chat_template_is_refused(benchmarks: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ModelError, match="chat_template is asked for"):
        _callback(bare, benchmarks, chat_template=True)
