"""The callback: profiles along a training that it does not disturb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig

from innerlingua import Trainer
from innerlingua.routing.profile import RoutingProfileCallback, compare_profiles, read_profile
from tiny import tiny_model


def _train(reader: Any, folder: Path, rows: Any, callback: RoutingProfileCallback | None) -> Trainer:
    torch.manual_seed(0)
    model = tiny_model(vocab_size=len(reader), max_position_embeddings=256)
    texts = Dataset.from_list([{"text": row["text"]["swh_Latn"]} for row in rows])
    args = SFTConfig(
        output_dir=str(folder), max_steps=4, eval_strategy="steps", eval_steps=2, logging_steps=1, save_strategy="no",
        learning_rate=1e-2, per_device_train_batch_size=2, max_length=None, use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, disable_tqdm=True, seed=3,
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=args, train_dataset=texts, eval_dataset=texts, processing_class=reader, terms=[],
        callbacks=[callback] if callback else None,
    )  # fmt: skip
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def trained(
    reader: Any, rows: Any, parallel: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trainer, RoutingProfileCallback, Path]:
    folder = tmp_path_factory.mktemp("run")
    callback = RoutingProfileCallback(parallel, reader, options={"replicates": 20})
    return _train(reader, folder, rows, callback), callback, folder


def test_a_profile_at_the_start_and_at_each_evaluation(trained: tuple[Trainer, RoutingProfileCallback, Path]) -> None:
    _, callback, folder = trained
    assert [entry["step"] for entry in callback.history] == [0, 2, 4]
    start, end = (read_profile(folder / "routing" / name) for name in ("step-000000", "step-000004"))
    assert start.record["label"] == "step 0"
    assert not compare_profiles(start, end)["same_weights"]
    stored = json.loads((folder / "routing" / "history.json").read_text(encoding="utf-8"))
    assert stored["profiles"] == callback.history
    js = end.record["measures"]["js"]["swh_Latn"]["mean"]
    assert callback.history[-1]["js"]["swh_Latn"] == pytest.approx(sum(js) / len(js), abs=1e-6)


def test_the_means_are_in_the_log(trained: tuple[Trainer, RoutingProfileCallback, Path]) -> None:
    trainer, callback, _ = trained
    logged = [entry for entry in trainer.state.log_history if "eval_routing_js_swh_Latn" in entry]
    assert [entry["step"] for entry in logged] == [0, 2, 4]
    js = callback.history[-1]["js"]
    assert logged[-1]["eval_routing_js"] == pytest.approx((js["swh_Latn"] + js["hin_Deva"]) / 2)


def test_the_training_goes_on_as_without_it(
    trained: tuple[Trainer, RoutingProfileCallback, Path], reader: Any, rows: Any, tmp_path: Path
) -> None:
    plain = _train(reader, tmp_path, rows, None)
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (plain, trained[0])]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4
    for a, b in zip(plain.model.parameters(), trained[0].model.parameters(), strict=True):
        assert torch.equal(a, b)
