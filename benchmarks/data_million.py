"""Time and memory of `data pair` and `data check` on a million invented rows.

    python benchmarks/data_million.py [--rows 1000000]

Each command runs in a process of its own; memory is its peak resident set, which is what must fit into a machine.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LANGUAGES = ("swh_Latn", "hin_Deva", "ben_Beng", "tel_Telu", "npi_Deva")
VOWELS = {"Latn": "aeiou", "Deva": "ािीुू", "Beng": "ািীুূ", "Telu": "ాిీుూ"}
CONSONANTS = {"Latn": "bdgklmnprst", "Deva": "कगतदनपबमरलस", "Beng": "কগতদনপবমরলস", "Telu": "కగతదనపబమరలస"}


def words(script: str, rng: random.Random, count: int = 20_000) -> list[str]:
    pairs = [c + v for c in CONSONANTS[script] for v in VOWELS[script]]
    return ["".join(rng.choices(pairs, k=rng.randint(2, 4))) for _ in range(count)]


def write(folder: Path, rows: int) -> None:
    """`rows` targets in five languages over rows / 5 anchors, about 45 words a side; a twentieth is nearly a repeat."""
    rng = random.Random(0)
    english = words("Latn", rng)
    vocabulary = {code: words(code[4:], rng) for code in LANGUAGES}
    with (folder / "anchors.jsonl").open("w") as stream:
        for number in range(rows // len(LANGUAGES)):
            row = {"id": f"q{number}", "language": "eng_Latn"}
            row |= {"prompt": " ".join(rng.choices(english, k=25)), "completion": " ".join(rng.choices(english, k=20))}
            stream.write(json.dumps(row) + "\n")
    last: dict[str, tuple[list[str], list[str]]] = {}
    with (folder / "targets.jsonl").open("w") as stream:
        for number in range(rows // len(LANGUAGES)):
            for code in LANGUAGES:
                prompt = rng.choices(vocabulary[code], k=25)
                completion = rng.choices(vocabulary[code], k=20)
                if number % 20 == 1:
                    prompt, completion = last[code][0][:], last[code][1][:]
                    prompt[3] = rng.choice(vocabulary[code])
                last[code] = (prompt, completion)
                row = {"id": f"q{number}", "language": code}
                row |= {"prompt": " ".join(prompt), "completion": " ".join(completion)}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (folder / "test.jsonl").open("w") as stream:
        for number in range(10_000):
            question = " ".join(rng.choices(english, k=40))
            stream.write(json.dumps({"id": f"t{number}", "lang": "eng_Latn", "question": question}) + "\n")


def timed(*command: str) -> tuple[float, float, float, str]:
    """Seconds on the wall and of the processor, peak GiB so far, output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "innerlingua.cli", "data", *command], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, processor, after.ru_maxrss / 2**20, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, rows)
        size = (folder / "targets.jsonl").stat().st_size / 2**20
        print(f"{rows:,} targets ({size:.0f} MiB), {rows // len(LANGUAGES):,} anchors")
        pairs = str(folder / "train.parquet")
        source = (str(folder / "targets.jsonl"), "--anchors", str(folder / "anchors.jsonl"))
        seconds, processor, peak, _ = timed("pair", *source, "-o", pairs)
        print(f"pair : {seconds:6.1f} s ({processor:.1f} s of processor), peak {peak:.2f} GiB")
        seconds, processor, peak, out = timed("check", pairs, "--test", str(folder / "test.jsonl"), "--json")
        report = json.loads(out)
        near = sum(language["near_duplicates"] for language in report["languages"].values())
        print(f"check: {seconds:6.1f} s ({processor:.1f} s of processor), peak {peak:.2f} GiB (the larger command)")
        print(f"near-duplicates found {near:,} of {rows // 20:,} made")


if __name__ == "__main__":
    main()
