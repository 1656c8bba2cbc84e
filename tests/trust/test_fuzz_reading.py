"""Every reader of files from outside takes its input or refuses it with a message: never a traceback, never a hang."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz_rig import ODD, changed, dumped, explore, keep, lines_changed, mutated, refuses
from hostile_rig import ROOT, pairs, save_replicates

from evaluation.stored_runs import three_models
from innerlingua.errors import InnerlinguaError
from routing_report.stored_profiles import write_profile

Check = Callable[[random.Random], bool]
"""One input, made and read."""


def recipes(folder: Path) -> Check:
    """`load_recipe`, and the options of a command line; what loads is written and read back as the same."""
    from innerlingua.recipe.loading import load_recipe, to_yaml
    from innerlingua.recipe.overrides import parse_overrides

    bases = [path.read_bytes() for path in sorted((ROOT / "recipes").glob("*.yaml"))]
    path = folder / "recipe.yaml"
    sections = ("model", "data", "alignment", "peft", "trainer")

    def structured(rng: random.Random) -> bytes:
        from innerlingua.recipe.reading import read_document

        path.write_bytes(rng.choice(bases))
        values = changed(rng, read_document(path).values)
        return json.dumps(values).encode()  # JSON is YAML

    def check(rng: random.Random) -> bool:
        path.write_bytes(structured(rng) if rng.random() < 0.4 else mutated(rng, rng.choice(bases)))
        words = mutated(rng, b"--trainer.learning-rate 1e-5 --data.train [a, b]").decode("utf-8", "surrogateescape")
        options = words.split() if rng.random() < 0.3 else []
        refuses(lambda: parse_overrides(options, sections=sections))

        def read() -> None:
            recipe = load_recipe(path, options)
            path.write_text(to_yaml(recipe.values()), encoding="utf-8")
            assert repr(load_recipe(path).values()) == repr(recipe.values())  # NaN is not equal to itself

        return refuses(read)

    return check


def pair_files(folder: Path) -> Check:
    """`read_pairs` on JSON Lines, CSV, TSV and Parquet, plain and compressed."""
    import csv
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from innerlingua.data import read_pairs

    rows = pairs(6)
    for row in rows[3:]:
        row["group"] = "g"
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    chats = [
        {
            "id": f"c{n}",
            "language": "swh_Latn",
            "messages": [{"role": "user", "content": "jua?"}, {"role": "assistant", "content": f"siku {n}"}],
            "anchor_messages": [{"role": "user", "content": "sun?"}, {"role": "assistant", "content": f"day {n}"}],
            "spans": [[0, 2, 0, 2]],
        }
        for n in range(3)
    ]
    said = "".join(json.dumps(row) + "\n" for row in chats).encode()

    def table(delimiter: str) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[3]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    whole = {
        "rows.jsonl": lines,
        "chats.jsonl": said,
        "rows.csv": table(","),
        "rows.tsv": table("\t"),
        "rows.parquet": buffer.getvalue(),
        "rows.jsonl.gz": gzip.compress(lines),
    }

    def check(rng: random.Random) -> bool:
        name = rng.choice(list(whole))
        content = mutated(rng, whole[name])
        kind = rng.random()
        if name.endswith(".jsonl") and kind < 0.4:
            content = lines_changed(rng, rows if name == "rows.jsonl" else chats)
        elif name.endswith(".gz") and kind < 0.5:
            content = gzip.compress(mutated(rng, lines))
        path = folder / name
        path.write_bytes(content)
        return refuses(lambda: read_pairs(path, missing_anchor=rng.choice(("error", "keep", "drop"))))

    return check


def priors(folder: Path) -> Check:
    """`RoutingPrior.open` and its rows; a third of the inputs have a record that is signed anew."""
    import torch
    from safetensors.torch import save_file

    from innerlingua.routing import RoutingPrior
    from innerlingua.routing.fingerprint import hash_text

    prior = RoutingPrior(
        {
            "ids": ["a", "b", "c"],
            "layers": [1, 2],
            "pooling": "sequence",
            "score": "softmax",
            "texts": ["0", "1", "2"],
            "fingerprint": {"compute": "float32", "config": "x", "weights": {"w": "y"}},
        },
        tensor=torch.rand(3, 2, 4).softmax(-1),
    )
    prior.save(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    parsed = json.loads(files["prior.json"])

    def check(rng: random.Random) -> bool:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        if rng.random() < 0.35:
            payload = dumped(changed(rng, parsed)).decode()
            (folder / "prior.json").write_text(payload)
            tensor = (
                torch.rand(rng.choice(((3, 2, 4), (3, 2, 4), (3, 2), (0, 2, 4))))
                .softmax(-1)
                .to(rng.choice((torch.float32, torch.float32, torch.int32, torch.bfloat16)))
            )
            save_file({"prior": tensor}, folder / "prior.safetensors", metadata={"record": hash_text(payload)})
        else:
            name = rng.choice(list(files))
            (folder / name).write_bytes(mutated(rng, files[name]))

        def read() -> None:
            found = RoutingPrior.open(folder)
            rows = found.rows(found.ids)
            assert rows.dtype == torch.float32
            repr(found)
            found.holds("a", [1], [0])

        return refuses(read)

    return check


def profiles(folder: Path) -> Check:
    """`read_profile` of the measures (torch) and of the report, and the report's page of what they take."""
    from innerlingua.page import assemble
    from innerlingua.routing.profile import compare_profiles, read_profile
    from innerlingua.routing.report.pack import payload
    from innerlingua.routing.report.read import read_profiles

    write_profile(folder, languages=3, layers=3, experts=4, samples=2, tokens=3)
    save_replicates(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    parsed = {name: json.loads(content) for name, content in files.items() if name.endswith(".json")}

    def check(rng: random.Random) -> bool:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        name = rng.choice(list(files) + list(parsed))
        both = name in parsed and rng.random() < 0.6
        (folder / name).write_bytes(dumped(changed(rng, parsed[name])) if both else mutated(rng, files[name]))

        def show() -> None:
            data = payload(read_profiles([folder]))
            assemble("innerlingua.routing.report", markup="page.html", style="page.css", scripts=(), data=data)

        def measure() -> None:
            found = read_profile(folder)
            compare_profiles(found, found)

        shown = refuses(show)
        return refuses(measure) and shown

    return check


def results(folder: Path) -> Check:
    """`read_results`, `read_summaries`, and the results of a report."""
    from innerlingua.evaluation.store import read_results, read_summaries
    from innerlingua.routing.report.read import read_profiles
    from innerlingua.routing.report.results import read_results as for_report

    base = three_models(folder / "runs", n=6)[0]
    shown = read_profiles([write_profile(folder / "profile", languages=4, layers=2, experts=4, samples=0)])
    samples = sorted((base / "samples").iterdir())
    files = {path: path.read_bytes() for path in (base / "run.json", base / "results.json", *samples[:2])}

    def check(rng: random.Random) -> bool:
        for path, content in files.items():
            path.write_bytes(content)
        path = rng.choice(list(files))
        if rng.random() < 0.5:
            if path.suffix == ".json":
                content = dumped(changed(rng, json.loads(files[path])))
            else:
                content = lines_changed(rng, [json.loads(line) for line in files[path].splitlines()])
        else:
            content = mutated(rng, files[path])
        path.write_bytes(content)
        refuses(lambda: for_report(base, shown, benchmark="mmlu"))
        summarised = refuses(lambda: read_summaries(base))
        return refuses(lambda: read_results(base)) and summarised

    return check


def journals(folder: Path) -> Check:
    """`Journal`: the record of work on a server."""
    from innerlingua.data.work import Journal

    path = folder / "out.journal"
    job = {"model": "m", "settings": {"temperature": 0.0}}
    with Journal(path, job) as journal:
        journal.append([(f"k{n}", {"text": f"t{n}"}) for n in range(4)], [("bad", "a reason")])
        journal.reopen({"k1": ["before"]})
    base = path.read_bytes()

    def check(rng: random.Random) -> bool:
        if rng.random() < 0.5:
            content = lines_changed(rng, [json.loads(line) for line in base.splitlines()])
        else:
            content = mutated(rng, base)
        path.write_bytes(content)

        def read() -> None:
            with Journal(path, job) as journal:
                for key in ("k0", "k1", "k2", "k3", "bad"):
                    if key in journal:
                        journal.result(key)
                dict(journal.failed)

        taken = refuses(read)
        # What is refused stays as it was. What is taken may lose a last line that was cut off, and an empty file
        # gets its first line.
        kept = path.read_bytes()
        assert kept == content if not taken else kept == base[: base.index(b"\n") + 1] or content.startswith(kept)
        return taken

    return check


def runs(folder: Path) -> Check:
    """The record and the recipe of a run, and the files of a checkpoint, as a resume reads them."""
    import torch
    from safetensors.torch import save_file
    from transformers import TrainerState

    from innerlingua.recipe import drift, run
    from innerlingua.recipe.checkpoints import last_checkpoint
    from innerlingua.recipe.loading import load_recipe
    from innerlingua.recipe.resume_state import refuse_foreign

    recipe = load_recipe(ROOT / "recipes" / "tiny.yaml")
    run.write_recipe(folder, recipe)
    record: dict[str, Any] = {"schema": 1, "processes": 1, "files": ["a"], "beside": ["b"], "prior": "0", "rows": "1"}
    run.write_json(folder / run.RECORD, record)
    checkpoint = folder / "checkpoint-4"
    checkpoint.mkdir()
    save_file({"a": torch.ones(5)}, checkpoint / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"x": torch.ones(4)}, checkpoint / name)
    TrainerState(global_step=4).save_to_json(str(checkpoint / "trainer_state.json"))
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path: path.read_bytes() for path in paths}

    def check(rng: random.Random) -> bool:
        for path, content in files.items():
            path.write_bytes(content)
        path = rng.choice(paths)
        both = path.suffix == ".json" and rng.random() < 0.6
        path.write_bytes(dumped(changed(rng, json.loads(files[path]))) if both else mutated(rng, files[path]))

        def compare() -> None:
            drift.differences(folder, recipe, {"processes": 1, "rows": "1"})

        def resume() -> None:
            refuse_foreign(folder, last_checkpoint(folder, lambda text: None))

        def describe() -> None:
            run.record_files(folder, ["model.safetensors"])

        compared, resumed, described = refuses(compare), refuses(resume), refuses(describe)
        return compared and resumed and described

    return check


def benchmarks(folder: Path) -> Check:
    """`read_benchmark` and its parallel kin: questions and sentences to evaluate on."""
    from evaluation.evaluate_rig import belebele, mgsm, news, winogrande, xcopa, xquad
    from innerlingua.evaluation.local import read_benchmark
    from innerlingua.evaluation.parallel_files import is_parallel, read_parallel_benchmark

    kinds = [kind()[:3] for kind in (belebele, xcopa, mgsm, xquad, winogrande, news)]
    path = folder / "questions.jsonl"

    def check(rng: random.Random) -> bool:
        rows = rng.choice(kinds)
        if rng.random() < 0.6:
            content = lines_changed(rng, rows)
        else:
            content = mutated(rng, b"".join(dumped(row) + b"\n" for row in rows))
        path.write_bytes(content)

        def read() -> None:
            if is_parallel(path):
                read_parallel_benchmark("news_into", path, "into", anchor="eng_Latn", names=None)
            else:
                read_benchmark("questions", path)

        return refuses(read)

    return check


def values(folder: Path) -> Check:
    """Single values of a command line, read as YAML, and layers."""
    from innerlingua.recipe.reading import parse_value
    from innerlingua.recipe.schema import parse_layers

    del folder

    def check(rng: random.Random) -> bool:
        text = mutated(rng, rng.choice((b"[1, 2]", b"{a: b}", b"7-34", b"1e-5", b"'x'"))).decode("utf-8", "replace")

        def layers() -> None:
            from pydantic_core import PydanticCustomError

            try:
                parse_layers(rng.choice((text, *ODD)))
            except PydanticCustomError as error:
                raise InnerlinguaError(str(error)) from error

        laid = refuses(layers)
        return refuses(lambda: parse_value(text, "here")) and laid

    return check


# target -> (the check, what it goes through, inputs in `make test`, inputs in `make soak`)
TARGETS: dict[str, tuple[Callable[[Path], Check], str, int, int]] = {
    "recipes": (recipes, "`load_recipe` and options", 60, 2400),
    "values of options": (values, "`parse_value` and layers", 200, 20000),
    "pair files": (pair_files, "`read_pairs`: JSON Lines, CSV, TSV, Parquet, gzip", 100, 10000),
    "priors": (priors, "`RoutingPrior.open`", 60, 5000),
    "profiles": (profiles, "`read_profile`, `compare_profiles`, the report", 50, 2400),
    "results of benchmarks": (results, "`read_results`, `read_summaries`, the report", 60, 4000),
    "journals": (journals, "`Journal`", 100, 12000),
    "runs and checkpoints": (runs, "what a resume reads", 40, 1200),
    "benchmarks": (benchmarks, "`read_benchmark`", 100, 12000),
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_hundred_inputs(target: str, tmp_path: Path) -> None:
    check, _, few, _ = TARGETS[target]
    found = explore(check(tmp_path), few)
    assert found["taken"] > 0
    assert found["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_many_inputs(target: str, tmp_path: Path) -> None:
    check, through, _, many = TARGETS[target]
    keep(target, [explore(check(tmp_path), many)], through=through)
