"""Two processes on this machine that meet through a file, so that no port has to be free."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

TESTS = Path(__file__).parents[1]

# What every script begins and ends with. A process that waits for one that is gone gives up after two minutes.
BEGIN = """
import gc, json, os, sys
from datetime import timedelta
from pathlib import Path
import torch
import torch.distributed as dist
torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2,
                        timeout=timedelta(seconds=120))
"""
END = """
dist.barrier()
del model, trainer
gc.collect()
dist.destroy_process_group()
sys.stdout.flush()
sys.stderr.flush()
# Gloo's worker threads may abort the interpreter's own shutdown ("terminate called without an active exception").
os._exit(0)
"""


def run_two(script: str, folder: Path, *, timeout: float = 400) -> None:
    """Run `script` between `BEGIN` and `END` in two processes, with `folder` as its argument; both must end well."""
    (folder / "script.py").write_text(BEGIN + script + END)
    paths = os.pathsep.join([str(TESTS), str(TESTS / "training"), *sys.path])
    common = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    # accelerate reads these; the port is never used, since the group is there already.
    common |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "CUDA_VISIBLE_DEVICES": ""}
    logs = [folder / f"{rank}.log" for rank in range(2)]
    meeting = folder / f"meeting-{uuid.uuid4().hex}"  # never one that an earlier run has used
    processes = [
        subprocess.Popen(
            [sys.executable, str(folder / "script.py"), str(folder), str(meeting)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=logs[rank].open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    until = time.monotonic() + timeout
    try:
        codes = [process.wait(max(0.1, until - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0, 0], "\n".join(f"-- {log.name}\n{log.read_text()[-3000:]}" for log in logs)
