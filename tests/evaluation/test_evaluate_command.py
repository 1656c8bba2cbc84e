"""The verb as a user meets it: what it prints, and how each bad input ends in one message and exit code 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate_rig import Done, belebele, read_jsonl, save_model, write_jsonl
from transformers import PreTrainedTokenizerFast

from innerlingua.evaluation.store import read_results
from tiny import tiny_model


@pytest.fixture
def run(command: Callable[..., Done], benchmarks: Path, models: Path, tmp_path: Path) -> Callable[..., Done]:
    """`innerlingua evaluate` on `base`, with the rig's data, into `tmp_path / "out"`, unless these say otherwise."""

    def call(*words: object, code: int = 2, **changes: Any) -> Done:
        options = {"models": [models / "base"], "tasks": ["belebele"], "data": benchmarks, "output": tmp_path / "out"}
        options |= changes
        given = [*options["models"], "--tasks", *options["tasks"], "-o", options["output"]]
        given += ["--data", options["data"]] if options["data"] else []
        return command("evaluate", *given, *words, code=code)

    return call


def test_the_anchor_stands_beside_every_language(run: Callable[..., Done], models: Path, tmp_path: Path) -> None:
    done = run(
        "--languages", "swh_Latn,hin_Deva", "--label", "before", "after", "--seed", 3, 4,
        models=[models / "base", models / "tuned"], code=0,
    )  # fmt: skip
    scores = {}
    for label, seed in (("before", 3), ("after", 4)):
        record = json.loads((tmp_path / "out" / label / "run.json").read_text(encoding="utf-8"))
        assert (record["label"], record["seed"]) == (label, seed)
        entries = json.loads((tmp_path / "out" / label / "results.json").read_text(encoding="utf-8"))["results"]
        scores |= {(label, entry["language"]): f"{100 * entry['score']:.1f}" for entry in entries}
    lines = [line.split() for line in done.out.splitlines()]
    assert ["belebele", "(accuracy,", "%),", "chance", "25.0"] in lines
    for (label, language), score in scores.items():
        (line,) = [words for words in lines if words[:2] == [label, language]]
        assert line[3] == score
        assert line[7] == ("itself" if language == "eng_Latn" else scores[label, "eng_Latn"])


def test_what_is_finished_is_said(run: Callable[..., Done]) -> None:
    run(code=0)
    done = run(code=0)
    assert done.out.count("finished before, not computed again") == 3
    assert "loading" not in done.out
    assert "belebele (accuracy" in done.out


def test_missing_languages_are_left_out_when_asked_and_counted(run: Callable[..., Done]) -> None:
    languages = ("--languages", "swh_Latn", "fra_Latn")
    refused = run(*languages)
    assert "belebele has no fra_Latn; it has eng_Latn, swh_Latn, hin_Deva." in refused.err
    done = run(*languages, "--skip-missing", code=0)
    assert "belebele: has no fra_Latn, left out" in done.out
    assert "1 of the languages asked for" in done.out


def test_a_benchmark_without_the_anchor_language_is_said(run: Callable[..., Done]) -> None:
    done = run("--languages", "swh_Latn", "--anchor", "fra_Latn", code=0)
    assert "belebele: has no fra_Latn to stand beside" in done.out


def test_a_chat_template_is_used(run: Callable[..., Done], tmp_path: Path) -> None:
    run("--languages", "swh_Latn", output=tmp_path / "plain", code=0)
    run("--languages", "swh_Latn", "--chat-template", output=tmp_path / "chat", code=0)
    plain, chat = (
        read_jsonl(tmp_path / name / "base" / "samples" / "belebele.swh_Latn.jsonl") for name in ("plain", "chat")
    )
    assert plain[0]["hash"] == chat[0]["hash"]
    assert plain[0]["loglikelihoods"] != chat[0]["loglikelihoods"]


def test_a_file_is_a_benchmark(run: Callable[..., Done], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "my own.jsonl", belebele())
    run(tasks=[tmp_path / "my own.jsonl"], data=None, code=0)
    assert (tmp_path / "out" / "base" / "samples" / "my_own.swh_Latn.jsonl").is_file()


def test_users_pairs_are_translated_both_ways(run: Callable[..., Done], tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "language": "swh_Latn", "text": f"anga {n}", "anchor_text": f"sky {n}"} for n in range(3)]
    write_jsonl(tmp_path / "parallel" / "mine.jsonl", rows)
    done = run("--max-new-tokens", 2, "--limit", 2, tasks=["mine_into", "mine_from"], data=tmp_path, code=0)
    for way, reference in (("into", "anga"), ("from", "sky")):
        found = read_jsonl(tmp_path / "out" / "base" / "samples" / f"mine_{way}.swh_Latn.jsonl")
        assert [row["reference"].split()[0] for row in found] == [reference] * 2
    assert "BLEU" in done.out


def test_a_language_without_a_name_is_named_by_the_user(run: Callable[..., Done], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "verses.jsonl", [{"id": "1", "text": {"eng_Latn": "the sky", "hlt_Latn": "khan"}}])
    options = {"tasks": [tmp_path / "verses.jsonl"]}
    assert "hlt_Latn is no FLORES-200 code" in run("--max-new-tokens", 2, **options).err
    run("--max-new-tokens", 2, "--language-name", "hlt_Latn=Matu Chin", **options, code=0)
    (entry,) = json.loads((tmp_path / "out" / "base" / "results.json").read_text(encoding="utf-8"))["results"]
    assert entry["task_version"].endswith("English>Matu Chin")


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"tasks": ["belebelle"]}, [], "--tasks belebelle: no such benchmark in"),
        ({"tasks": ["belebelle"]}, [], "did you mean 'belebele'?"),
        ({"tasks": ["belebele"], "data": None}, [], "--languages: say in which languages belebele is asked"),
        (
            {"tasks": ["truthfulqa_mc1_en"], "data": None},
            [],
            "no folder of local benchmarks: --data DIR or INNERLINGUA",
        ),
        ({"tasks": ["local:global_mmlu"]}, [], "no such local benchmark"),
        ({"tasks": ["harness:hellaswag"]}, [], "the harness has no such benchmark here; known: belebele, global_mmlu"),
        ({"tasks": ["hub:belebele"]}, [], "a benchmark is NAME, local:NAME or harness:NAME"),
        ({"tasks": ["belebele", "local:belebele"]}, [], "belebele is named twice"),
        ({"tasks": ["nowhere/b.jsonl"]}, [], "--tasks nowhere/b.jsonl: no such file"),
        ({"data": "nowhere"}, [], "--data nowhere: no such folder"),
        ({"models": ["nowhere"]}, [], "nowhere: there is no such folder, and it is no name on the hub"),
        ({"models": ["./no/where"]}, [], "./no/where: there is no such folder"),
        ({}, ["--languages", "swa"], "unknown language 'swa'; did you mean ssw_Latn (Swati) or swh_Latn"),
        ({"models": [""]}, [], "'' names no model"),
        ({}, ["--anchor", "zzz"], "--anchor: unknown language 'zzz'"),
        ({}, ["--revision", "main"], "is a folder; a revision is of a model of the hub"),
        ({}, ["--max-length", "600"], "--max-length 600: the model has 512 positions"),
        ({}, ["--languages", " , "], "--languages: no value in it"),
        ({}, ["--language-name", "hlt_Latn"], "is not CODE=NAME"),
        ({}, ["--label", "a", "b"], "--label: 2 given for 1 models"),
        ({}, ["--label", "a/b"], "it has no slash"),
        ({}, ["--label", ".."], "a label names a folder"),
        ({}, ["--seed", "1", "2"], "--seed: 2 given for 1 models"),
        ({}, ["--num-fewshot", "-1"], "--num-fewshot -1: it must be 0 at least"),
        ({}, ["--num-fewshot", "16"], "has only 15 examples"),
        ({}, ["--limit", "0"], "--limit 0: it must be 1 at least"),
        ({}, ["--max-new-tokens", "0"], "--max-new-tokens 0"),
        ({}, ["--max-length", "1"], "--max-length 1"),
        ({}, ["--dtype", "float8"], "--dtype float8: no such choice"),
        ({}, ["--batch-size", "many"], "--batch-size many: a number from 1, auto, or auto:N"),
        ({}, ["--batch-size", "0"], "--batch-size 0"),
        ({}, ["--overlong", "cut"], "--overlong cut: no such choice"),
        ({}, ["--backend", "sglang"], "--backend sglang: no such choice"),
        ({}, ["--backend", "vllm"], "vLLM is not installed"),
        ({}, ["--device", "quantum"], "--device quantum: no such device"),
        ({}, ["--model-args", "parallelize"], "--model-args 'parallelize': write key=value"),
        ({}, ["--model-args", "pretrained=x"], "--model-args pretrained: give it as MODEL"),
        ({}, ["--model-args", "no_such_argument=1"], "the model cannot be loaded"),
        ({"tasks": ["mgsm"]}, ["--max-new-tokens", "600"], "and 600 of the answer (--max-new-tokens)"),
        ({}, ["--max-length", "20"], "no room in the model's context of 20 tokens"),
    ],
)
def test_bad_input(
    run: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*words, **changes)
    assert message in done.err
    said = [line for line in done.err.splitlines() if line.strip() and "it/s]" not in line]
    assert len(said) == 1, said  # one message, beside bars of progress
    assert not list(tmp_path.rglob("*.jsonl"))  # nothing half done


def test_what_the_data_lacks_is_known_before_the_model_is_loaded(run: Callable[..., Done]) -> None:
    assert "loading" not in run("--num-fewshot", "16").out
    assert "loading" in run("--languages", "swh_Latn", code=0).out


def test_models_of_one_name_need_labels(run: Callable[..., Done], models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "tuned", tmp_path / "base")
    both = [models / "base", tmp_path / "base"]
    assert "two models are called 'base'" in run(models=both).err
    assert "two models are called 'x'" in run("--label", "x", "x", models=both).err
    run("--languages", "swh_Latn", "--label", "x", "y", models=both, code=0)


def test_checkpoints_are_called_after_their_run(run: Callable[..., Done], models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "tuned", tmp_path / "sft" / "checkpoint-10")
    run("--languages", "swh_Latn", models=[tmp_path / "sft" / "checkpoint-10"], code=0)
    assert (tmp_path / "out" / "sft-checkpoint-10" / "run.json").is_file()


def test_folders_that_are_no_models(run: Callable[..., Done], models: Path, benchmarks: Path, tmp_path: Path) -> None:
    assert f"there are models in it: {models / 'base'}" in run(models=[models]).err
    (tmp_path / "bare").mkdir()
    shutil.copy(models / "base" / "config.json", tmp_path / "bare")
    assert "a configuration, but no weights" in run(models=[tmp_path / "bare"]).err
    assert "no adapter in this folder" in run(models=[f"{models / 'base'}+{benchmarks}"]).err
    assert "nothing: no such folder; an adapter is" in run(models=[f"{models / 'base'}+nothing"]).err
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for base, words in (
        (None, "the adapter does not name its model"),
        ("gone/for/good", "is not here; say where it is"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}), encoding="utf-8")
        assert words in run(models=[adapter]).err
    (adapter / "adapter_config.json").write_text("{", encoding="utf-8")
    assert "adapter_config.json cannot be read" in run(models=[adapter]).err


def test_a_damaged_model_is_one_message(run: Callable[..., Done], models: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(models / "base", tmp_path / "model"))
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    assert "its tokenizer makes no tokens of a text" in run(models=[model]).err
    model = Path(shutil.copytree(models / "base", tmp_path / "other"))
    (model / "model.safetensors").write_bytes(b"nothing")
    assert "the model cannot be loaded" in run(models=[model]).err


def test_the_tokenizer_of_another_model(
    run: Callable[..., Done], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tiny_model(vocab_size=200).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert f"knows {len(tokenizer)} tokens, more than the 200 of its embedding" in run(models=[tmp_path / "model"]).err


def test_a_model_without_a_chat_template(
    run: Callable[..., Done], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    model = save_model(tmp_path / "model", bare)
    done = run("--chat-template", models=[model])
    assert "--chat-template, but its tokenizer has no chat template" in done.err


def test_the_output_is_no_folder(run: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "file; results need a folder" in run(output=tmp_path / "file").err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "base").write_text("", encoding="utf-8")
    assert "is a file; results need a folder" in run().err


def test_results_that_are_damaged_are_not_taken_for_results(run: Callable[..., Done], tmp_path: Path) -> None:
    run("--languages", "swh_Latn", code=0)
    samples = tmp_path / "out" / "base" / "samples" / "belebele.swh_Latn.jsonl"
    whole = samples.read_text(encoding="utf-8")
    samples.write_text(whole[: len(whole) // 2], encoding="utf-8")
    assert "cannot be read" in run("--languages", "swh_Latn").err
    samples.write_text(whole, encoding="utf-8")
    (tmp_path / "out" / "base" / "run.json").write_text("{", encoding="utf-8")
    assert "run.json is damaged" in run("--languages", "swh_Latn").err


def test_records_that_were_edited_are_named(run: Callable[..., Done], tmp_path: Path) -> None:
    words = ("--languages", "swh_Latn", "--limit", "2")
    run(*words, code=0)
    folder = tmp_path / "out" / "base"
    samples = folder / "samples" / "belebele.swh_Latn.jsonl"
    whole = {path: path.read_text(encoding="utf-8") for path in (samples, folder / "run.json", folder / "results.json")}
    for path, before, after, message in (
        (folder / "run.json", '"model": {', '"modell": {', "run.json is damaged: it names no model"),
        (folder / "run.json", '"settings": {', '"setting": {', "run.json is damaged: it names no settings"),
        (folder / "results.json", '"results": [', '"result": [', "results.json is damaged: it lists no results"),
        (
            folder / "results.json",
            '"task_version": ',
            '"version": ',
            "results.json is damaged: an entry has no task_version",
        ),
        (samples, '"score": ', '"score": NaN, "was": ', "the score of 'b"),
    ):
        path.write_text(whole[path].replace(before, after), encoding="utf-8")
        assert message in run(*words).err
        path.write_text(whole[path], encoding="utf-8")
    (folder / "results.json").unlink()  # as the messages say: it is made anew from the samples
    assert "finished before, not computed again" in run(*words, code=0).out
    assert set(read_results(folder).tables) == {("belebele", "eng_Latn"), ("belebele", "swh_Latn")}


def test_ctrl_c_says_that_what_is_finished_stays(
    run: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from innerlingua.evaluation import running

    finish = running.write_results

    def interrupted(*arguments: Any) -> None:
        finish(*arguments)
        raise KeyboardInterrupt

    words = ("--languages", "swh_Latn", "--limit", "2")
    with monkeypatch.context() as patch:
        patch.setattr(running, "write_results", interrupted)
        said = run(*words, code=130).err
    assert f"ended by Ctrl-C. What was finished is in {tmp_path / 'out'}; the same command goes on" in said
    assert run(*words, code=0).out.count("finished before") == 1


def test_a_misspelt_language_is_no_missing_one(run: Callable[..., Done]) -> None:
    done = run("--languages", "swh_Latn", "swh_Latm", "--skip-missing")
    assert "--languages: unknown language 'swh_Latm'; did you mean swh_Latn" in done.err


@pytest.mark.parametrize("missing", ["lm_eval", "sacrebleu"])
def test_a_missing_library_is_named_with_its_extra(
    run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    from importlib import util

    real = util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name == missing else real(name, *rest)

    for module in ("harness", "translation"):
        monkeypatch.setattr(f"innerlingua.evaluation.{module}.find_spec", find_spec)
    assert "pip install 'innerlingua[evaluate]'" in run(tasks=["news_into"]).err


def test_several_processes_are_refused(run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "evaluate runs in one process" in run().err


def test_help_imports_neither_torch_nor_the_harness() -> None:
    code = (
        "import sys\nsys.argv = ['innerlingua', 'evaluate', '--help']\nfrom innerlingua.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'lm_eval', 'transformers', 'datasets'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "--tasks" in done.stdout
