"""docs/security.md, "Code": what comes with models, adapters and checkpoints is never executed unless it was asked for.

The planted code makes a folder, so that it is seen; the controls show that it would.
"""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile_rig import invoke, plant, refused, save_tiny, train_words, write_rows
from safetensors.torch import load_file, save_file

import innerlingua
from evaluation.evaluate_rig import write_jsonl, xcopa
from innerlingua.data.answers import same_answer
from innerlingua.errors import ModelError
from innerlingua.evaluation.models import read_models
from innerlingua.weights import refuse_unsafe_weights

SOURCE = Path(innerlingua.__file__).parent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def interrupted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps that was ended before it wrote its result."""
    output = tmp_path_factory.mktemp("run") / "out"
    done = invoke(*train_words(tiny / "model", tiny / "pairs.jsonl", output))
    assert done.code == 0, done.err
    (output / "train_result.json").unlink()
    return output


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder that planted code makes."""
    return tmp_path / "planted_code_ran"


@pytest.mark.parametrize("by_torch", [False, True])
def test_the_planted_code_works(tmp_path: Path, place: Path, by_torch: bool) -> None:
    path = plant(tmp_path / "x.bin", place, by_torch=by_torch)
    if by_torch:
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert place.is_dir()


def verbs(model: Path, folder: Path) -> dict[str, list[str]]:
    """Every verb that loads a model."""
    rows = write_rows(folder / "rows.jsonl", [{"id": "1", "language": "eng_Latn", "text": "The river is wide."}])
    pairs = model.parent / "pairs.jsonl"
    if not pairs.exists():
        pairs = rows
    return {
        "train": train_words(model, pairs, folder / "out"),
        "doctor": ["doctor", *train_words(model, pairs, folder / "out")[1:]],
        "routing prior": ["routing", "prior", *train_words(model, pairs, folder / "out")[1:]],
        "routing profile": ["routing", "profile", str(model), "--pairs", str(pairs), "-o", str(folder / "profile")],
        "evaluate": [
            *("evaluate", str(model), "--tasks", "xcopa", "--languages", "swh_Latn", "-o", str(folder / "results")),
            *("--data", str(write_jsonl(folder / "pack" / "mcq" / "xcopa.jsonl", xcopa()).parents[1])),
        ],
        "data translate": [
            *("data", "translate", str(rows), "--to", "swh_Latn", "--template", "bare"),
            *("--model", str(model), "-o", str(folder / "out.jsonl")),
        ],
    }


VERBS = ["train", "doctor", "routing prior", "routing profile", "evaluate", "data translate"]


@pytest.fixture
def pickled(tiny: Path, tmp_path: Path, place: Path) -> Path:
    """A model whose weights are a planted pickle under the name that transformers reads where there is no other."""
    shutil.copytree(tiny / "model", tmp_path / "there" / "model")
    shutil.copy(tiny / "pairs.jsonl", tmp_path / "there" / "pairs.jsonl")
    model = tmp_path / "there" / "model"
    (model / "model.safetensors").unlink()
    plant(model / "pytorch_model.bin", place, by_torch=True)
    return model


@pytest.mark.parametrize("verb", VERBS)
def test_pickled_weights_are_refused_with_the_remedy(pickled: Path, tmp_path: Path, place: Path, verb: str) -> None:
    done = invoke(*verbs(pickled, tmp_path)[verb])
    if verb == "doctor":  # findings are its output
        assert done.code == 2
        words = " ".join(done.out.split())
    else:
        refused(done)
        words = " ".join(done.err.split())
    assert "its weights are pickled (pytorch_model.bin)" in words
    assert "only safetensors are read here" in words
    assert not place.exists()


def test_a_pickle_under_another_name_is_damaged_and_not_run(tiny: Path, tmp_path: Path, place: Path) -> None:
    model = shutil.copytree(tiny / "model", tmp_path / "model")
    plant(model / "model.safetensors", place, by_torch=True)
    refused(invoke(*train_words(model, tiny / "pairs.jsonl", tmp_path / "out")), "model.path")
    assert not place.exists()


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ("../other/model.safetensors", "'../other/model.safetensors'"),
        ("/etc/hosts.safetensors", "'/etc/hosts.safetensors'"),
        ("pytorch_model.bin", "'pytorch_model.bin'"),
        (7, "names 7"),
    ],
)
def test_an_index_names_files_beside_it(tiny: Path, tmp_path: Path, listed: object, says: str) -> None:
    model = shutil.copytree(tiny / "model", tmp_path / "model")
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    weights = load_file(model / "model-00001-of-00001.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}))
    refuse_unsafe_weights(model, "here")
    index.write_text(
        json.dumps({"weight_map": {**dict.fromkeys(weights, "model-00001-of-00001.safetensors"), "x": listed}})
    )
    with pytest.raises(ModelError, match="beside it and nothing else") as caught:
        refuse_unsafe_weights(model, "here")
    assert says in str(caught.value)
    refused(invoke(*train_words(model, tiny / "pairs.jsonl", tmp_path / "out")), "model.safetensors.index.json")


def test_a_pickled_adapter_is_refused(tiny: Path, tmp_path: Path, place: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny / "model"), "r": 4}))
    plant(adapter / "adapter_model.bin", place, by_torch=True)
    for given in (str(adapter), f"{tiny / 'model'}+{adapter}"):
        with pytest.raises(ModelError, match=r"its weights are pickled \(adapter_model\.bin\)"):
            read_models([given])
    save_file({"x": torch.ones(1)}, adapter / "adapter_model.safetensors")
    assert read_models([str(adapter)])[0].adapter == str(adapter)
    assert not place.exists()


# -- code that comes with a model --------------------------------------------------------------------------------------


@pytest.fixture
def with_code(tiny: Path, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of an unknown type whose configuration and tokenizer are classes in a file beside it."""
    import transformers.dynamic_module_utils as modules

    monkeypatch.setattr(modules, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = shutil.copytree(tiny / "model", tmp_path / "there" / "model")
    shutil.copy(tiny / "pairs.jsonl", tmp_path / "there" / "pairs.jsonl")
    (model / "planted.py").write_text(
        f"import os\nos.mkdir({str(place)!r})\n"
        "from transformers import PreTrainedConfig, PreTrainedTokenizerFast\n"
        "class PlantedConfig(PreTrainedConfig):\n    model_type = 'planted'\n"
        "class PlantedTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    for name, change in (
        ("config.json", {"model_type": "planted", "auto_map": {"AutoConfig": "planted.PlantedConfig"}}),
        (
            "tokenizer_config.json",
            {
                "tokenizer_class": "PlantedTokenizer",
                "auto_map": {"AutoTokenizer": [None, "planted.PlantedTokenizer"]},
            },
        ),
    ):
        path = model / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return model


REMEDIES = {
    "evaluate": "--trust-remote-code",
    "data translate": "is not run here. Serve it where you trust that code",
}


@pytest.mark.parametrize("verb", VERBS)
def test_code_beside_a_model_is_not_run_and_nobody_is_asked(
    with_code: Path, tmp_path: Path, place: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("transformers asked on the terminal")

    monkeypatch.setattr("builtins.input", asked)
    done = invoke(*verbs(with_code, tmp_path)[verb])
    assert done.code == 2, done.err
    words = " ".join((done.out if verb == "doctor" else done.err).split())
    assert "Traceback" not in words
    assert "Python code of its own" in words
    assert REMEDIES.get(verb, "model.trust_remote_code: true") in words
    assert not place.exists()


def test_code_beside_a_model_runs_when_it_was_asked_for(with_code: Path, tmp_path: Path, place: Path) -> None:
    """The control; what the planted classes then lack is no matter here."""
    invoke(*verbs(with_code, tmp_path)["train"], "--model.trust-remote-code", "true")
    assert place.is_dir()


def test_a_chat_template_has_no_way_to_python(tiny: Path, tmp_path: Path, place: Path) -> None:
    model = shutil.copytree(tiny / "model", tmp_path / "model")
    escape = "{{ cycler.__init__.__globals__['os'].mkdir('" + str(place) + "') }}"
    (model / "chat_template.jinja").write_text(
        "{% for message in messages %}{% generation %}{{ message['content'] }}{% endgeneration %}{% endfor %}" + escape
    )
    said = [{"role": "user", "content": "jua?"}, {"role": "assistant", "content": "siku"}]
    row = {
        "id": "1",
        "language": "swh_Latn",
        "messages": said,
        "anchor_messages": [*said[:1], {**said[1], "content": "day"}],
    }
    rows = write_rows(tmp_path / "chat.jsonl", [row])
    refused(invoke(*train_words(model, rows, tmp_path / "out", "--trainer.assistant-only-loss")), "template")
    assert not place.exists()


@pytest.mark.parametrize("form", ["{}", "1+{}", r"\frac{{1}}{{{}}}", "({})^2 = 4"])
def test_answers_of_models_are_no_python(place: Path, form: str) -> None:
    """They are compared by a library whose plain expressions go through Python's own parser."""
    call = f"__import__('os').mkdir('{place}')"
    assert not same_answer(form.format(call), "1+2")
    assert not place.exists()


# -- the state of a resume ---------------------------------------------------------------------------------------------


def resume(tiny: Path, folder: Path) -> list[str]:
    return train_words(tiny / "model", tiny / "pairs.jsonl", folder, "--resume")


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(interrupted, tmp_path / "run")


def test_a_run_that_nobody_touched_is_resumed(tiny: Path, run: Path) -> None:
    done = invoke(*resume(tiny, run))
    assert done.code == 0, done.err
    assert "resuming from" in done.out


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"])
def test_a_planted_state_is_refused_before_anything_is_loaded(tiny: Path, run: Path, place: Path, name: str) -> None:
    plant(run / "checkpoint-4" / name, place, by_torch=True)
    done = invoke(*resume(tiny, run))
    refused(done, f"checkpoint-4/{name} would run code when it is read", "posix.mkdir", "Restore checkpoint-4")
    assert not place.exists()
    assert "resuming" not in done.out
    shutil.rmtree(run / "checkpoint-4")  # the remedy
    assert invoke(*resume(tiny, run)).code == 0


def _link(run: Path, elsewhere: Path) -> None:
    shutil.move(run / "checkpoint-4" / "optimizer.pt", elsewhere)
    (run / "checkpoint-4" / "optimizer.pt").symlink_to(elsewhere)


def _link_folder(run: Path, elsewhere: Path) -> None:
    shutil.move(run / "checkpoint-4", elsewhere)
    (run / "checkpoint-4").symlink_to(elsewhere)


def _best(run: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    path = run / "checkpoint-4" / "trainer_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "best_model_checkpoint": str(elsewhere)}))


def _latest(run: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    (run / "checkpoint-4" / "latest").write_text(f"../../{elsewhere.name}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_link, "optimizer.pt is a link that leads out"),
        (_link_folder, "checkpoint-4 is a link that leads out"),
        (_best, "names the best checkpoint"),
        (_latest, "which is no folder beside it"),
    ],
)
def test_a_resume_reads_nothing_outside_of_its_own_folder(
    tiny: Path, run: Path, tmp_path: Path, change: Callable[[Path, Path], None], says: str
) -> None:
    change(run, tmp_path / "elsewhere")
    refused(invoke(*resume(tiny, run)), says)


# -- our own source ----------------------------------------------------------------------------------------------------


def test_our_source_unpickles_evaluates_and_trusts_nothing() -> None:
    """No import of an unpickler or a shell, no `eval` or `exec`, no `torch.load`, no `trust_remote_code=True`."""
    barred = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "subprocess", "joblib", "pty", "ctypes"}
    trusting = {"trust_remote_code": "True", "weights_only": "False", "allow_pickle": "True", "shell": "True"}
    faults = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names if alias.name.partition(".")[0] in barred]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [name for name in [node.module.partition(".")[0]] if name in barred]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("eval", "exec", "__import__", "torch.load", "np.load", "os.system", "os.popen"):
                    names = [called]
                names += [
                    f"{word.arg}={ast.unparse(word.value)}"
                    for word in node.keywords
                    if word.arg is not None and trusting.get(word.arg) == ast.unparse(word.value)
                ]
            faults += [f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}: {name}" for name in names]
    assert not faults, faults
