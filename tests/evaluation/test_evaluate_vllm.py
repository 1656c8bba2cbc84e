"""The vLLM backend, on a stand-in for vLLM: the same scores as the Hugging Face backend, the same statuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trl  # noqa: F401  # looks for vLLM when it is imported; must not find the stand-in
import vllm_stand_in
from evaluate_rig import Done, read_jsonl, write_jsonl

from innerlingua.evaluation.store import read_results


@pytest.fixture(scope="module", autouse=True)
def _stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("vllm")
    vllm_stand_in.install(folder)
    yield
    vllm_stand_in.remove(folder)


@pytest.fixture
def both(command: Callable[..., Done], benchmarks: Path, models: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(*words: object) -> Path:
        for backend in ("hf", "vllm"):
            options = ("--data", benchmarks, "--backend", backend, "-o", tmp_path, "--label", backend)
            command("evaluate", models / "base", "--tasks", *words, *options)
        return tmp_path

    return run


def test_choices_score_as_with_the_other_backend(both: Callable[..., Path]) -> None:
    out = both("belebele", "winogrande_african", "--languages", "swh_Latn")
    one, other = (read_results(out / name) for name in ("hf", "vllm"))
    assert one.tables.keys() == other.tables.keys()
    for benchmark, language in one.tables:
        rows = [read_jsonl(out / name / "samples" / f"{benchmark}.{language}.jsonl") for name in ("hf", "vllm")]
        for hf, vllm in zip(*rows, strict=True):
            assert vllm["loglikelihoods"] == pytest.approx(hf["loglikelihoods"], abs=1e-4)
    record = json.loads((out / "vllm" / "run.json").read_text(encoding="utf-8"))
    assert (record["backend"], record["versions"]["vllm"]) == ("vllm", "0.33.0")


def test_answers_are_generated_and_told_apart(both: Callable[..., Path]) -> None:
    out = both("mgsm", "news_into", "--max-new-tokens", 4, "--languages", "swh_Latn")
    for name in ("mgsm", "news_into"):
        rows = [read_jsonl(out / backend / "samples" / f"{name}.swh_Latn.jsonl") for backend in ("hf", "vllm")]
        assert [row["status"] for row in rows[0]] == [row["status"] for row in rows[1]]
        assert {row["status"] for row in rows[0]} == {"cut"}
        assert [row["prediction"] for row in rows[0]] == [row["prediction"] for row in rows[1]]


def test_long_prompts_are_counted(command: Callable[..., Done], models: Path, tmp_path: Path) -> None:
    rows = [
        {"id": f"r{n}", "lang": "eng_Latn", "question": "sky " * words, "choices": ["a", "b"], "answer": 0}
        for n, words in enumerate((3, 2000))
    ]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    options = ("--tasks", tmp_path / "mine.jsonl", "-o", tmp_path / "out", "--backend", "vllm")
    assert "no room in the model's context of 512" in command("evaluate", models / "base", *options, code=2).err
    command("evaluate", models / "base", *options, "--overlong", "count")
    found = read_jsonl(tmp_path / "out" / "base" / "samples" / "mine.eng_Latn.jsonl")
    assert [row["status"] for row in found] == ["answered", "overlong"]


def test_an_adapter_is_handed_to_vllm_with_room_for_its_rank(
    command: Callable[..., Done], benchmarks: Path, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapter").mkdir()
    config = {"base_model_name_or_path": str(models / "base"), "r": 8, "rank_pattern": {"q_proj": 48}}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    options = ("--data", benchmarks, "--backend", "vllm", "-o", tmp_path / "out", "--languages", "swh_Latn")
    command("evaluate", tmp_path / "adapter", "--tasks", "xcopa", *options, "--model-args", "tensor_parallel_size=2")
    made = vllm_stand_in.LLM.made[-1]
    assert (made["model"], made["enable_lora"], made["max_lora_rank"]) == (str(models / "base"), True, 64)
    assert made["tensor_parallel_size"] == 2
