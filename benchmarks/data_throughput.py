"""Throughput of the work engine against a plain asynchronous load generator, on one server.

    python benchmarks/data_throughput.py [--pairs 40] [--requests 3200]

The server is a process of its own: every answer takes 200 ms, 64 at once, the rest waits. The plain generator is what
one writes in ten lines: 64 workers, one client, no journal, no pace, no retries. Both use the same HTTP library and the
same requests, in the order A B B A; the ratio of each pair is that of requests per second, ours over plain. The
interval is a bootstrap over pairs, and A/A is the plain generator against itself.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

from innerlingua.data.work import ChatClient, Endpoint, Journal, Task, read_key, run_tasks
from innerlingua.data.work.http import import_httpx

SLOTS, LATENCY = 64, 0.2


def serve(pipe: Connection) -> None:
    from fault_server import FaultServer

    with FaultServer(latency=LATENCY, slots=SLOTS, answer=lambda body: "ok") as server:
        pipe.send(server.url)
        pipe.recv()


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"question {number} " + "word " * 50}]


def plain(url: str, count: int) -> float:
    httpx = import_httpx()

    async def run() -> None:
        numbers = iter(range(count))
        limits = httpx.Limits(max_connections=SLOTS, max_keepalive_connections=SLOTS)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:

            async def worker() -> None:
                for number in numbers:
                    body = {"model": "m", "messages": messages(number), "seed": 1}
                    response = await client.post(f"{url}/chat/completions", json=body)
                    response.json()["choices"][0]["message"]["content"]

            await asyncio.gather(*(worker() for _ in range(SLOTS)))

    start = time.perf_counter()
    asyncio.run(run())
    return count / (time.perf_counter() - start)


def ours(url: str, count: int) -> float:
    client = ChatClient(Endpoint(url, "m", read_key()), limit=SLOTS)

    async def work(task: Task) -> Any:
        return (await client.complete(messages(task.payload), {"seed": 1})).text

    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal", {}) as journal:
        start = time.perf_counter()
        outcome = run_tasks((Task(str(n), n) for n in range(count)), work, journal, limit=SLOTS, around=client)
        seconds = time.perf_counter() - start
    assert outcome.done == count
    return count / seconds


def interval(ratios: list[float]) -> tuple[float, float]:
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[1949]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--requests", type=int, default=3200)
    options = parser.parse_args()
    near, far = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(far,), daemon=True)
    server.start()
    url = near.recv()
    plain(url, SLOTS), ours(url, SLOTS)
    ratios, same, speeds = [], [], {"plain": [], "ours": []}
    for pair in range(options.pairs):
        order = (plain, ours) if pair % 2 == 0 else (ours, plain)
        measured = {run.__name__: run(url, options.requests) for run in order}
        for name, speed in measured.items():
            speeds[name].append(speed)
        ratios.append(measured["ours"] / measured["plain"])
        if pair:
            same.append(speeds["plain"][-1] / speeds["plain"][-2])
    near.send(None)
    print(f"the server's own limit: {SLOTS / LATENCY:.0f} requests/s")
    for name, values in speeds.items():
        print(f"{name:5}: median {statistics.median(values):.1f} requests/s")
    low, high = interval(ratios)
    print(f"ours / plain: {statistics.median(ratios):.4f} [{low:.4f}, {high:.4f}] over {len(ratios)} pairs")
    low, high = interval(same)
    print(f"A/A         : {statistics.median(same):.4f} [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    main()
