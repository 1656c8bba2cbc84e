"""What was cut, could not be read, or had no room is counted apart, and never passes for a wrong answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate_rig import Done, read_jsonl, save_model, write_jsonl
from transformers import PreTrainedTokenizerFast

from innerlingua.errors import ModelError
from innerlingua.evaluation.watch import Watch


def _only(tokenizer: PreTrainedTokenizerFast, *texts: str) -> list[int]:
    """All tokens but those of `texts`, to be suppressed: the model can say nothing else."""
    allowed = {token for text in texts for token in tokenizer.encode(text, add_special_tokens=False)}
    return [token for token in range(len(tokenizer)) if token not in allowed]


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Models that can say one thing only: `endless` 4 4 4 ..., `silent` nothing, `brief` 4 and then the end."""
    folder = tmp_path_factory.mktemp("speakers")
    save_model(folder / "endless", tokenizer, suppress_tokens=_only(tokenizer, "4"))
    save_model(folder / "silent", tokenizer, suppress_tokens=_only(tokenizer, "</s>"))
    (four,) = tokenizer.encode("4", add_special_tokens=False)
    ends = [tokenizer.eos_token_id, four]  # a second end token, as chat models have
    save_model(folder / "brief", tokenizer, suppress_tokens=_only(tokenizer, "4"), eos_token_id=ends)
    return folder


@pytest.mark.parametrize(
    ("speaker", "status", "response", "right"),
    [("endless", "cut", "44", 0), ("silent", "unparsed", "", 0), ("brief", "answered", "4", 1)],
)
def test_numbers(
    command: Callable[..., Done],
    benchmarks: Path,
    speakers: Path,
    tmp_path: Path,
    speaker: str,
    status: str,
    response: str,
    right: int,
) -> None:
    options = ("--languages", "eng_Latn", "--data", benchmarks, "--max-new-tokens", 2, "-o", tmp_path)
    done = command("evaluate", speakers / speaker, "--tasks", "mgsm", *options)
    rows = read_jsonl(tmp_path / speaker / "samples" / "mgsm.eng_Latn.jsonl")
    assert {row["status"] for row in rows} == {status}
    assert {row["response"] for row in rows} == {response}
    assert sum(row["score"] for row in rows) == right  # of the answers 0 to 5, one is 4
    (entry,) = json.loads((tmp_path / speaker / "results.json").read_text(encoding="utf-8"))["results"]
    assert entry["statuses"] == {"answered": 0, "cut": 0, "unparsed": 0, "overlong": 0} | {status: 6}
    assert entry["score_answered"] == (entry["score"] if status == "answered" else None)
    if status != "answered":
        assert status in done.out


def test_texts_that_are_cut_score_nothing_and_translations_as_far_as_they_go(
    command: Callable[..., Done], benchmarks: Path, speakers: Path, tmp_path: Path
) -> None:
    options = ("--languages", "swh_Latn", "--data", benchmarks, "--max-new-tokens", 2, "-o", tmp_path)
    command("evaluate", speakers / "endless", "--tasks", "xquad", "news_into", *options)
    cut = read_jsonl(tmp_path / "endless" / "samples" / "xquad.swh_Latn.jsonl")
    assert {(row["status"], row["score"], row["exact"]) for row in cut} == {("cut", 0.0, 0.0)}
    translated = read_jsonl(tmp_path / "endless" / "samples" / "news_into.swh_Latn.jsonl")
    assert {row["status"] for row in translated} == {"cut"}
    assert [row["score"] > 0 for row in translated] == [row["id"] == "n4" for row in translated]  # its text has a 4


def test_a_stop_sequence_ends_an_answer(
    command: Callable[..., Done], benchmarks: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    save_model(tmp_path / "model", tokenizer, suppress_tokens=_only(tokenizer, "\n"))
    options = ("--languages", "eng_Latn", "--data", benchmarks, "--max-new-tokens", 3, "-o", tmp_path)
    command("evaluate", tmp_path / "model", "--tasks", "xquad", *options, "--label", "out")
    rows = read_jsonl(tmp_path / "out" / "samples" / "xquad.eng_Latn.jsonl")
    assert {(row["status"], row["response"]) for row in rows} == {("unparsed", "")}


def test_a_long_prompt_is_refused_and_nothing_is_cut(
    command: Callable[..., Done], benchmarks: Path, models: Path, tmp_path: Path
) -> None:
    options = ("--languages", "swh_Latn", "--data", benchmarks, "-o", tmp_path, "--num-fewshot", 8)
    for task, words in (
        ("belebele", "belebele in eng_Latn: 64 of 64"),
        ("xquad", "--num-fewshot 8: xquad_eng_Latn has only 5"),
    ):
        done = command("evaluate", models / "base", "--tasks", task, *options, code=2)
        assert words in done.err
    assert "no room in the model's context of 512 tokens; the longest has" in (
        command("evaluate", models / "base", "--tasks", "belebele", *options, code=2).err
    )


def test_long_prompts_are_counted_when_asked(command: Callable[..., Done], models: Path, tmp_path: Path) -> None:
    def row(number: int, words: int) -> dict[str, Any]:
        return {"id": f"r{number}", "lang": "eng_Latn", "question": "sky " * words, "choices": ["a", "b"], "answer": 0}

    write_jsonl(tmp_path / "mine.jsonl", [row(0, 3), row(1, 2000), row(2, 4)])
    options = ("--tasks", tmp_path / "mine.jsonl", "-o", tmp_path / "out", "--overlong", "count")
    done = command("evaluate", models / "base", *options)
    rows = read_jsonl(tmp_path / "out" / "base" / "samples" / "mine.eng_Latn.jsonl")
    assert [row["status"] for row in rows] == ["answered", "overlong", "answered"]
    assert (rows[1]["score"], rows[1]["prediction"]) == (0.0, None)
    assert "overlong" in done.out


def test_a_request_that_just_fits_is_asked_whole() -> None:
    watch = Watch()
    watch.begin("b in x", "count")
    asked: list[Any] = []

    def run(requests: list[Any]) -> list[tuple[float, bool]]:
        asked.extend(requests)
        return [(-1.0, False)] * len(requests)

    requests = [(("a", "b"), [1] * length, [2]) for length in (9, 10, 11)]
    found = watch.score(requests, room=11, context=10, run=run)
    assert [len(start) for _, start, _ in asked] == [9, 10]
    assert [score for score, _ in found] == [-1.0, -1.0, -1e30]


@pytest.mark.parametrize("extra", [0, 1])
def test_the_room_is_the_harness_s_own(models: Path, extra: int, caplog: pytest.LogCaptureFixture) -> None:
    """At the length that is let through the harness cuts nothing, and one more token it would cut."""
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(models / "base"), device="cpu", batch_size=1)
    requests = [(("a", "b"), [5] * (model.max_length + extra), [6])]
    model._loglikelihood_tokens(requests, disable_tqdm=True)
    assert ("exceeds model's maximum length" in caplog.text) == bool(extra)
    watch = Watch()
    watch.begin("b", "count")
    watch.score(
        requests, room=model.max_length + 1, context=model.max_length, run=lambda some: [(0.0, True)] * len(some)
    )
    assert len(watch.overlong) == extra


def test_a_model_that_gives_no_numbers_is_refused(
    command: Callable[..., Done], benchmarks: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = save_model(tmp_path / "model", tokenizer)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.full_like(weights["lm_head.weight"], float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    options = ("--tasks", "xcopa", "--data", benchmarks, "-o", tmp_path / "out")
    done = command("evaluate", folder, *options, code=2)
    assert "xcopa in eng_Latn: the model gives a loglikelihood that is not a number" in done.err
    assert not list((tmp_path / "out").rglob("*.jsonl"))


def test_refusals_name_what_is_too_long() -> None:
    watch = Watch()
    watch.begin("b in x", "error")

    class Request:
        args = ("question", {})

    with pytest.raises(ModelError, match=r"b in x: 1 of 2 .* context of 20 tokens; the longest has 15 and 6 of the"):
        watch.generate([Request, Request], [15, 14], new_tokens=lambda _: 6, context=20, run=lambda some: [""])
