"""What a run leaves on disk, what it does not do twice, and what it refuses to mix."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate_rig import Done, belebele, read_jsonl, write_benchmarks, write_jsonl
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from innerlingua.errors import DataError, ModelError
from innerlingua.evaluation.benchmarks import choose
from innerlingua.evaluation.models import read_models
from innerlingua.evaluation.running import evaluate_models
from innerlingua.evaluation.settings import Settings
from innerlingua.evaluation.store import read_results

ALL = ("belebele", "xcopa", "mgsm", "xquad", "afriqa", "winogrande_african", "truthfulqa_mc1_en", "news_into")


@pytest.fixture(scope="module")
def finished(benchmarks: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `base` on every kind of benchmark, and of `tuned` on one."""
    out = tmp_path_factory.mktemp("finished")
    _evaluate([models / "base"], benchmarks, out)
    _evaluate([models / "tuned"], benchmarks, out, tasks=["belebele"])
    return out


def _evaluate(models: list[Path], benchmarks: Path, out: Path, **changes: Any) -> list[str]:
    """Run everything that the rig has; what was said."""
    said: list[str] = []
    tasks = changes.pop("tasks", ALL)
    languages = changes.pop("languages", None)
    chosen = choose(tasks, languages, data=benchmarks)
    settings = Settings(**{"max_new_tokens": 4, "batch_size": "4", **changes})
    specs = read_models([str(model) for model in models])
    evaluate_models(specs, chosen, out, settings, command="test", say=said.append)
    return said


def test_every_kind_of_benchmark_leaves_its_samples(finished: Path) -> None:
    results = read_results(finished / "base")
    assert {benchmark for benchmark, _ in results.tables} == set(ALL)
    assert [lang for name, lang in results.tables if name == "belebele"] == ["eng_Latn", "hin_Deva", "swh_Latn"]
    table = results.tables["belebele", "swh_Latn"]
    assert table.ids == [row["id"] for row in belebele()]
    assert table.groups == [row["group"] for row in belebele()]
    assert (table.metric, table.chance, table.anchor) == ("accuracy", 0.25, False)
    assert results.tables["belebele", "eng_Latn"].anchor
    assert results.tables["xcopa", "swh_Latn"].ids == [f"x{number}" for number in range(10)]
    assert len(results.tables["afriqa", "eng_Latn"].ids) == 4  # the test split
    assert results.tables["truthfulqa_mc1_en", "eng_Latn"].chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    texts = results.tables["news_into", "swh_Latn"].texts
    assert texts is not None
    assert texts.references[1] == "nyasi kijani 1"


def test_two_models_answer_the_same_questions_differently(finished: Path) -> None:
    base, tuned = (read_results(finished / label) for label in ("base", "tuned"))
    for key, table in tuned.tables.items():
        assert table.hashes == base.tables[key].hashes
        assert table.version == base.tables[key].version
    rows = [read_jsonl(finished / label / "samples" / "belebele.eng_Latn.jsonl") for label in ("base", "tuned")]
    assert rows[0][0]["loglikelihoods"] != rows[1][0]["loglikelihoods"]


def test_questions_that_differ_have_hashes_that_differ(finished: Path) -> None:
    hashes = read_results(finished / "base").tables["belebele", "swh_Latn"].hashes
    assert len(set(hashes)) == len(hashes)


def test_finished_results_are_not_computed_again(
    benchmarks: Path, models: Path, finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*.json*")}
    said = _evaluate([models / "base"], benchmarks, out)
    assert all("finished before, not computed again" in line for line in said)
    assert len(said) == len(read_results(out / "base").tables)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


def test_only_what_is_new_is_computed(benchmarks: Path, models: Path, finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "base" / "samples" / "xcopa.swh_Latn.jsonl").unlink()
    said = _evaluate([models / "base", models / "tuned"], benchmarks, out, tasks=["belebele", "xcopa"])
    computed = [line for line in said if "samples in" in line]
    assert [line.split(" samples")[0] for line in computed] == [
        "base: xcopa swh_Latn: 10",
        "tuned: xcopa eng_Latn: 10",
        "tuned: xcopa swh_Latn: 10",
    ]
    same = "samples/xcopa.swh_Latn.jsonl"
    assert (out / "base" / same).read_bytes() == (finished / "base" / same).read_bytes()


_KILLED = """
import os, signal, sys
from pathlib import Path
from innerlingua.evaluation.benchmarks import choose
from innerlingua.evaluation.models import read_models
from innerlingua.evaluation.running import evaluate_models
from innerlingua.evaluation.settings import Settings

model, benchmarks, out = sys.argv[1:4]
finished = 0
def say(text):
    global finished
    finished += "samples in" in text
    if finished == 3:
        os.kill(os.getpid(), signal.SIGKILL)
chosen = choose(sys.argv[4:], None, data=Path(benchmarks))
settings = Settings(max_new_tokens=4, batch_size="4")
evaluate_models(read_models([model]), chosen, Path(out), settings, command="test", say=say)
"""


def test_a_killed_run_goes_on_to_the_same_results(
    benchmarks: Path, models: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-c", _KILLED, str(models / "base"), str(benchmarks), str(out), *ALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((out / "base" / "samples").glob("*.jsonl"))) == 3
    left = [out / "base" / ".results.json.1.part", out / "base" / "samples" / ".belebele.swh_Latn.jsonl.1.part"]
    for path in left:  # as a kill in the middle of a write leaves them
        path.write_text("{")
    said = _evaluate([models / "base"], benchmarks, out)
    assert len([line for line in said if "finished before" in line]) == 3
    assert not any(path.exists() for path in left)
    assert len(list((out / "base" / "samples").iterdir())) == len(list((finished / "base" / "samples").iterdir()))
    _same(out / "base", finished / "base")


def test_a_run_that_ended_between_samples_and_summary_is_summed_up(
    benchmarks: Path, models: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def end(*_: object) -> None:
        raise Ended

    out, tasks = tmp_path / "out", ["belebele", "news_into"]
    with monkeypatch.context() as patch:
        patch.setattr("innerlingua.evaluation.running.write_results", end)
        with pytest.raises(Ended):
            _evaluate([models / "base"], benchmarks, out, tasks=tasks)
    assert len(list((out / "base" / "samples").glob("*.jsonl"))) == 1
    said = _evaluate([models / "base"], benchmarks, out, tasks=tasks)
    assert len([line for line in said if "finished before" in line]) == 1
    _same(out / "base", finished / "base")


def _same(folder: Path, other: Path) -> None:
    """What `folder` has is what `other` has: samples byte for byte, summaries but for how long they took."""
    paths = list((folder / "samples").iterdir())
    for path in paths:
        assert path.read_bytes() == (other / "samples" / path.name).read_bytes()
    summaries, others = _without_seconds(folder / "results.json"), _without_seconds(other / "results.json")
    assert len(summaries) == len(paths)
    assert all(summary in others for summary in summaries)


def _without_seconds(path: Path) -> list[dict[str, Any]]:
    entries = json.loads(path.read_text(encoding="utf-8"))["results"]
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_fewshot": 1}, "other settings .num_fewshot 0, now 1"),
        ({"limit": 3}, "other settings .limit None, now 3"),
        ({"max_new_tokens": 5}, "max_new_tokens 4, now 5"),
        ({"dtype": "bfloat16"}, "dtype auto, now bfloat16"),
        ({"chat_template": True}, "chat_template False, now True"),
    ],
)
def test_other_settings_are_refused(
    benchmarks: Path, models: Path, finished: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        _evaluate([models / "base"], benchmarks, finished, **changes)


def test_where_nothing_is_finished_settings_may_change(benchmarks: Path, models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no room in the model's context of 30 tokens"):
        _evaluate([models / "base"], benchmarks, tmp_path, tasks=["belebele"], max_length=30)
    _evaluate([models / "base"], benchmarks, tmp_path, tasks=["belebele"])
    assert read_results(tmp_path / "base").run["settings"]["max_length"] is None


def test_another_batch_size_is_no_other_setting(benchmarks: Path, models: Path, finished: Path) -> None:
    assert all("finished before" in line for line in _evaluate([models / "base"], benchmarks, finished, batch_size="2"))


def test_another_model_under_the_same_label_is_refused(
    benchmarks: Path, models: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "tuned", tmp_path / "base")
    with pytest.raises(DataError, match="holds the results of another model"):
        _evaluate([tmp_path / "base"], benchmarks, finished)


def test_a_model_that_has_moved_is_the_same(benchmarks: Path, models: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "base", tmp_path / "base")
    assert all("finished before" in line for line in _evaluate([tmp_path / "base"], benchmarks, finished))


def test_a_model_that_was_trained_on_is_refused(
    benchmarks: Path, models: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = Path(shutil.copytree(models / "base", tmp_path / "model"))
    _evaluate([model], benchmarks, tmp_path / "out", tasks=["xcopa"])
    shutil.copy(models / "tuned" / "model.safetensors", model / "model.safetensors")
    with pytest.raises(DataError, match="as it was; its files have changed since"):
        _evaluate([model], benchmarks, tmp_path / "out", tasks=["xcopa"])


def test_another_version_of_a_benchmark_is_refused(models: Path, tmp_path: Path) -> None:
    data = write_benchmarks(tmp_path / "data")
    _evaluate([models / "base"], data, tmp_path / "out", tasks=["belebele"])
    rows = belebele()
    rows[3]["items"]["swh_Latn"]["question"] += " hasa"
    write_jsonl(data / "mcq" / "belebele.jsonl.gz", rows)
    with pytest.raises(DataError, match=r"belebele.swh_Latn.jsonl: results of another version of belebele in swh_Latn"):
        _evaluate([models / "base"], data, tmp_path / "out", tasks=["belebele"])
    # A language that did not change is still good.
    said = _evaluate([models / "base"], data, tmp_path / "out", tasks=["belebele"], languages=["hin_Deva"])
    assert len(said) == 2


def test_another_version_of_the_task_is_refused(benchmarks: Path, models: Path, finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    path = out / "base" / "results.json"
    path.write_text(path.read_text(encoding="utf-8").replace("innerlingua/open/1", "innerlingua/open/0"), "utf-8")
    with pytest.raises(DataError, match="results of another version of afriqa in eng_Latn"):
        _evaluate([models / "base"], benchmarks, out)


def test_two_processes_do_not_write_into_one_folder(benchmarks: Path, models: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out" / "base").mkdir(parents=True)
    with (tmp_path / "out" / "base" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process writes results here"):
            _evaluate([models / "base"], benchmarks, tmp_path / "out")


def test_an_adapter_is_evaluated_with_its_model(
    command: Callable[..., Done], benchmarks: Path, models: Path, finished: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(models / "base")
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    options = ("--tasks", "xcopa", "--data", benchmarks, "--max-new-tokens", 4, "--batch-size", 4, "-o", tmp_path)
    command("evaluate", tmp_path / "adapter", *options, "--label", "alone")
    command("evaluate", f"{models / 'base'}+{tmp_path / 'adapter'}", *options, "--label", "joined")
    name = "samples/xcopa.swh_Latn.jsonl"
    alone = (tmp_path / "alone" / name).read_bytes()
    assert alone == (tmp_path / "joined" / name).read_bytes()
    assert alone != (finished / "base" / name).read_bytes()
    record = json.loads((tmp_path / "joined" / "run.json").read_text(encoding="utf-8"))
    assert record["model"]["adapter"] == str(tmp_path / "adapter")
    assert record["model"]["adapter_digest"]


def test_limit_draws_the_same_meanings_in_every_language(benchmarks: Path, models: Path, tmp_path: Path) -> None:
    _evaluate([models / "base"], benchmarks, tmp_path, tasks=["belebele"], limit=5)
    ids = [table.ids for table in read_results(tmp_path / "base").tables.values()]
    assert len(ids) == 3
    assert ids[0] == ids[1] == ids[2]
    assert len(ids[0]) == 5
    assert ids[0] != [f"b{number}" for number in range(5)]  # a draw, not the head of the file
