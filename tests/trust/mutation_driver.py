"""Runs chosen tests on copies of the package, each in a process of its own that starts with the libraries loaded.

Reads jobs from standard input, one JSON object a line: `folder` (which holds the copy `innerlingua/`), `words` (of
pytest), `log`. Writes the exit code of each as it ends. Loading torch and transformers takes most of the time of a
short test; a forked process has them.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    *("torch", "datasets", "peft", "accelerate", "safetensors.torch", "scipy.stats", "hypothesis", "pytest"),
    *("transformers.models.qwen3_moe.modeling_qwen3_moe", "trl.trainer.sft_trainer", "pydantic", "pyarrow.parquet"),
)
ELSEWHERE = 90
"""The exit code of a job whose tests did not import the copy."""
LONGEST = 900  # seconds of one job; minutes only on a machine that is busy with something else


def run(job: dict[str, Any]) -> NoReturn:
    """The tests of `job` in this process, which ends with them."""
    signal.alarm(LONGEST)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ["PYTHONPATH"] = job["folder"]  # of the processes that tests start
    sys.path.insert(0, job["folder"])
    import pytest

    code = int(pytest.main(["-p", "no:cacheprovider", "-p", "no:xdist", "-x", "-q", *job["words"]]))
    import innerlingua

    if not Path(innerlingua.__file__).is_relative_to(job["folder"]):
        code = ELSEWHERE
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    assert "innerlingua" not in sys.modules
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(f"CODE {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
