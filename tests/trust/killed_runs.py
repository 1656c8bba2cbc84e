"""Runs of the real command that are killed, and what is left of two of them compared to the last bit.

A kill is SIGKILL. It comes in one of three ways: from inside, when the command touches a file of a given name (an audit
hook of Python's, so the moment is exact on any machine); when a line or a file appears; or some time after a line.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

import commands
from commands import killed_at, pair_of, write_launch, write_rows
from tiny import tiny_model

GROSS = 900.0
"""Seconds after which a run counts as hanging."""

STEPS, SAVE_STEPS = 22, 3  # three epochs of six steps and part of one
NINE_STEPS = ["--trainer.max-steps", "9"]

ENVIRONMENT = {**commands.ENVIRONMENT, "PYTHONUNBUFFERED": "1"}


# -- the world ---------------------------------------------------------------------------------------------------------


def make_world(folder: Path, tokenizer: PreTrainedTokenizerFast, *, rows: int = 47) -> Path:
    """`folder` with a model, pairs and a recipe. Attention drops out, so that the random state matters."""
    model = tiny_model("qwen3_moe", vocab_size=320, max_position_embeddings=256, attention_dropout=0.1)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_pairs(folder / "pairs.jsonl", rows)
    write_launch(folder / "launch.yaml")
    recipe = {
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "data": {"train": str(folder / "pairs.jsonl"), "max_length": 256},
        "alignment": {"weight": 1.5, "layers": "auto"},
        "trainer": {
            "output_dir": str(folder / "out"),
            "max_steps": STEPS,
            "save_steps": SAVE_STEPS,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "lr_scheduler_type": "cosine",
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "full_determinism": True,
            "disable_tqdm": True,
            "use_cpu": True,
            "seed": 42,
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


def write_pairs(path: Path, rows: int) -> Path:
    """Pairs of which no two have the same text, of one to eight words."""
    return write_rows(path, [pair_of(number) for number in range(rows)])


def command(world: Path, output: Path, *words: str, processes: int = 1) -> list[str]:
    """`innerlingua train`, as a user types it, for one process or two under `accelerate launch`."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["accelerate.commands.launch", "--config_file", str(world / "launch.yaml"), "-m"]
    return [*start, "innerlingua.cli", "train", str(world / "recipe.yaml"), "--trainer.output-dir", str(output), *words]


# -- kills -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class At:
    """From inside: before the event of this name (`open`, `os.mkdir`, `os.rename`) on a path that contains `needle`."""

    event: str
    needle: str


@dataclass(frozen=True)
class After:
    """`delay` seconds after the line number `count` that contains `text`."""

    text: str
    count: int
    delay: float


@dataclass(frozen=True)
class Seen:
    """As soon as the file is there and `trainer_state.json`, which is written last, is not."""

    name: str


Moment = At | After | Seen


def run_and_kill(words: list[str], output: Path, moment: Moment, world: Path) -> str:
    """Start the command, kill it at `moment`, and say where it was. A run that ends before is an error."""
    environment = dict(ENVIRONMENT)
    if isinstance(moment, At):
        environment |= killed_at(world / "hook", moment.event, moment.needle)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True, errors="replace"
    )
    lines: list[str] = []
    due = threading.Event()
    ended = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            lines.append(line)
            if isinstance(moment, After) and moment.text in line:
                seen += 1
                if seen == moment.count:
                    due.set()
        ended.set()
        due.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        if isinstance(moment, After):
            assert due.wait(GROSS), "the run hangs"
            time.sleep(moment.delay)  # the moment itself, not a wait for something
        elif isinstance(moment, Seen):
            _wait_for_half(output, moment.name, ended)
        else:
            assert ended.wait(GROSS), "the run hangs"
    finally:
        kill_all(process)
        reader.join()
    code = process.returncode
    # Under the launcher a kill from inside ends one process, and the launcher reports it.
    assert code == -signal.SIGKILL or isinstance(moment, At), f"not killed, ended with {code}:\n{''.join(lines)}"
    assert not (output / "train_result.json").exists(), f"the run was over:\n{''.join(lines)}"
    return where(output)


def run_and_signal(words: list[str], moment: After, number: signal.Signals) -> tuple[int, str, str]:
    """Start the command and send it a signal at `moment`; its exit code, output and errors."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True, errors="replace"
    )
    assert process.stdout is not None
    lines = []
    seen = 0
    try:
        for line in process.stdout:
            lines.append(line)
            seen += moment.text in line
            if seen == moment.count and moment.text in line:
                process.send_signal(number)
        rest, errors = process.communicate(timeout=GROSS)
    finally:
        kill_all(process)
    return process.returncode, "".join(lines) + rest, errors


def _wait_for_half(output: Path, name: str, ended: threading.Event) -> None:
    until = time.monotonic() + GROSS
    while not ended.is_set() and time.monotonic() < until:
        for path in output.glob(f"checkpoint-*/{name}"):
            if not (path.parent / "trainer_state.json").exists():
                return
        time.sleep(0.0005)  # leaves the core to the run


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a process and all that it has started, stopped first so that none starts another."""
    try:
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for member in family:
            try:
                member.send_signal(number)
            except psutil.NoSuchProcess:
                continue
    process.wait(GROSS)


def where(output: Path) -> str:
    """What the run was at when it was killed, by what it left."""
    if any(output.glob(".prior.*")):
        return "storing the prior"
    if not (output / "prior").exists():
        return "before or while computing the prior"
    if not (output / "recipe.resolved.yaml").exists():
        return "beginning"
    half = [path for path in output.glob("checkpoint-*") if not (path / "trainer_state.json").exists()]
    if half:
        return f"writing a checkpoint ({len(list(half[0].iterdir()))} files there)"
    return "saving the model" if (output / ".saving").exists() else "between checkpoints"


def run_to_end(words: list[str]) -> str:
    """Run the command; its output. It must end well."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=GROSS)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Done]


@contextmanager
def invoke(world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Invoke]:
    """`run(output, "--resume", code=0)`: the same command in this process, where it costs no start."""
    from innerlingua.cli import main

    def run(output: Path, *words: str, code: int = 0) -> Done:
        monkeypatch.setattr(sys, "argv", ["innerlingua", *command(world, output, *words)[3:]])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        streams = capfd.readouterr()
        done = Done(int(left.value.code or 0), streams.out, streams.err)
        assert done.code == code, f"{done.out}\n{done.err}"
        assert "Traceback" not in done.err, done.err
        return done

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    try:
        yield run
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


def whole_here(world: Path, output: Path, *words: str) -> Path:
    """An uninterrupted run of the same command in this process."""
    from innerlingua.cli import main

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["innerlingua", *command(world, output, *words)[3:]])
            for name in ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"):
                patch.setenv(name, ENVIRONMENT[name])
            with pytest.raises(SystemExit) as left:
                main()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    assert not left.value.code
    return output


def as_killed(whole: Path, output: Path) -> Path:
    """A copy of a run's folder as it was when its second checkpoint was whole but for `trainer_state.json`."""
    shutil.copytree(whole, output)
    names = json.loads((output / "run.json").read_text())["files"]
    for name in [*names, "train_result.json"]:
        (output / name).unlink(missing_ok=True)
    second, *later = sorted(output.glob("checkpoint-*"), key=_step)[1:]
    (second / "trainer_state.json").unlink()
    for checkpoint in later:
        shutil.rmtree(checkpoint)
    return output


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def way_on(output: Path) -> list[str]:
    """The option that goes on with the run in `output`, as the command's own messages name it."""
    if not (output / "run.json").exists():
        return []
    whole = any((path / "trainer_state.json").exists() for path in output.glob("checkpoint-*"))
    return ["--resume" if whole else "--overwrite"]


# -- equality ----------------------------------------------------------------------------------------------------------


def unequal(found: Path, expected: Path, *, checkpoints: list[str] | None = None) -> Iterator[str]:
    """What differs, to the last bit, between what two runs left: prior, checkpoints (by default all), model."""
    for name in ("prior/prior.safetensors", "prior/prior.json"):
        if (found / name).read_bytes() != (expected / name).read_bytes():
            yield name
    names = checkpoints or sorted(path.name for path in expected.glob("checkpoint-*"))
    if sorted(path.name for path in found.glob("checkpoint-*")) != names:
        yield "the checkpoints that there are"
        return
    for name in names:
        yield from (f"{name}: {what}" for what in _unequal_checkpoint(found / name, expected / name))
    for path in expected.glob("*.safetensors"):
        yield from (f"{path.name}: {what}" for what in differing(load_file(found / path.name), load_file(path)))


def _unequal_checkpoint(found: Path, expected: Path) -> Iterator[str]:
    files = {path.name for path in expected.iterdir()}
    if {path.name for path in found.iterdir()} != files:
        yield "its files"
    for name in sorted(files):
        if name.endswith(".safetensors"):
            yield from (f"{name}, {what}" for what in differing(load_file(found / name), load_file(expected / name)))
        elif re.fullmatch(r"(optimizer|scheduler)\.pt|rng_state(_\d+)?\.pth", name):
            yield from (f"{name}, {what}" for what in differing(_load(found / name), _load(expected / name)))
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (found, expected)]
    for state in states:
        for entry in state["log_history"]:
            # TRL counts its tokens from the start of the process, and a saved count would not be read.
            entry.pop("num_tokens", None)
    yield from (f"trainer_state.json, {what}" for what in differing(*states))


def _load(path: Path) -> Any:
    # The random state holds numpy's. These files were written a moment ago by this test.
    return torch.load(path, weights_only=False)


def differing(found: Any, expected: Any, name: str = "") -> list[str]:
    """The places at which two nested values are not exactly equal."""
    if isinstance(expected, torch.Tensor):
        same = isinstance(found, torch.Tensor) and found.dtype == expected.dtype and torch.equal(found, expected)
        return [] if same else [name]
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return [name]
        return [what for key in expected for what in differing(found[key], expected[key], f"{name}.{key}")]
    if isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            return [name]
        return [
            what
            for place, (one, other) in enumerate(zip(found, expected, strict=True))
            for what in differing(one, other, f"{name}[{place}]")
        ]
    if type(expected).__module__ == "numpy":
        return [] if bool((found == expected).all()) else [name]
    return [] if found == expected else [name]
