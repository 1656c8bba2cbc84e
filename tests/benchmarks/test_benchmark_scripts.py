"""Each benchmark runs from beginning to end at a size of nothing, and its result says what its page needs."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(script: str, arguments: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def result_of(script: str, folder: Path, arguments: str) -> dict[str, Any]:
    output = folder / "result.json"
    done = run(script, f"{arguments} --output {output}")
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    assert result["command"].startswith(f"python benchmarks/{script}")
    assert result["machine"]["processor"]
    assert {"torch", "transformers", "trl", "innerlingua"} <= set(result["versions"])
    return result


def test_a_step_against_plain_and_straightforward(tmp_path: Path) -> None:
    sizes = "--hidden 64 --layers 4 --experts 8 --top-k 2 --tokens 12 --batch 2"
    rows = "--rows stored live_and_bare straightforward_alone"
    result = result_of("step.py", tmp_path, f"--pairs 2 --tuning lora --checkpointing off {rows} {sizes}")
    assert set(result["configurations"]) == {"lora, checkpointing off"}
    for measured in result["configurations"].values():
        # The script itself asserts that the three losses are one.
        assert measured["losses"]["stored"] == pytest.approx(measured["losses"]["straightforward"], rel=1e-5)
        assert measured["losses"]["stored"] > measured["losses"]["plain"]
        assert measured["memory"]["plain"] == measured["memory"]["other"]
        # Counted bytes do not depend on the machine's load: one softmax a layer, and pooled routing.
        saved = {key: measured["memory"][key]["saved"] for key in ("plain", "stored", "straightforward")}
        assert saved["plain"] < saved["stored"] < 1.25 * saved["plain"]
        assert 0 < measured["anchor_share_of_operations"] < 1
        assert set(measured["ratios"]) == {"aa", "stored", "live_and_bare", "straightforward_alone"}
        assert {"median", "low", "high", "bound", "limit", "met"} <= set(measured["ratios"]["stored"])


def test_how_the_cost_grows(tmp_path: Path) -> None:
    arguments = "--pairs 2 --doublings 1 --base 8 2 4 2 --sizes tokens spans prior"
    slopes = result_of("scaling.py", tmp_path, arguments)["slopes"]
    assert slopes["tokens"]["sizes"] == [8, 16]
    assert slopes["spans"]["sizes"] == [1, 2]
    assert len(slopes["prior"]["seconds"]) == 2
    assert all({"slope", "low", "high", "to_explain"} <= set(row) for row in slopes.values())


@pytest.mark.slow
def test_the_path_of_a_gpu_on_a_processor(tmp_path: Path) -> None:
    arguments = "--tiny --device cpu --tokens 16 --warm-up 1 --steps 2 --backends eager grouped_mm"
    models = result_of("gpu.py", tmp_path, arguments)["models"]
    assert set(models) == {"qwen3-30b-a3b", "one-billion"}  # adapters, and full fine-tuning
    for measured in models.values():
        assert measured["experts_backends"]["used"] in ("eager", "grouped_mm")
        assert set(measured["runs"]) == {"plain", "prior", "live"}
        assert all(len(run["medians_of_runs"]) == 2 and run["mfu"] is None for run in measured["runs"].values())
    assert models["qwen3-30b-a3b"]["training"] == "LoRA and whole routers"
    assert models["one-billion"]["trained"] == models["one-billion"]["parameters"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_refuses_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "benchmarks" / "gpu.py"
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    for name in ("protocol", "tokenizer"):
        sys.modules.pop(name)
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == (
        "gpu.py: torch sees no GPU here, and this benchmark measures one: run it where there is one"
    )
