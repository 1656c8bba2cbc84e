"""First light: SARA on real parallel text, from a base trained here to a table of numbers.

    INNERLINGUA_DATA=... python studies/first_light/run.py --output runs/first_light

Stages: `base` (tokenizer and model from scratch), one per tuning run (`sft`, `sara`, and the controls), `measure`
(result.json, figure, tables). A stage whose output exists is passed over, so a killed study continues with the stage
that it was in; `--stage` runs only those that are named. What they do is said in their modules.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from base import BaseScale, train_base
from corpus import TARGETS, Corpus, read_corpus
from figure import curves_svg
from measure import fitting, measure_set
from report import tables
from tune import RUNS, TuneScale, load_run, tune

from innerlingua import InnerlinguaError, find_moe_layers
from innerlingua.data import LANGUAGES, pack_dir

TINY_BASE = BaseScale(
    vocabulary=600,
    hidden=32,
    layers=4,
    heads=4,
    key_value_heads=2,
    head_dim=8,
    experts=4,
    expert_width=16,
    steps=30,
    warmup=5,
)
TINY_TUNE = TuneScale(rows_per_language=24, batch=8, curve_rows_per_language=8)


def measure(corpus: Corpus, folder: Path, *, command: str, seed: int, max_length: int) -> dict[str, Any]:
    """Measure every run that exists under `folder` and write result.json, js.svg and tables.md there."""
    base, tokenizer = load_run(folder / "base")
    models = {"base": base}
    logs = {}
    for run in RUNS:
        if (folder / run.name).is_dir():
            models[run.name] = load_run(folder / run.name)[0]
            logs[run.name] = json.loads((folder / run.name / "log.json").read_text())
    layers = [layer.index for layer in find_moe_layers(models["base"])]
    aligned = next(iter(logs.values()))["layers"]
    result: dict[str, Any] = {
        "schema": 1,
        "command": command,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "datasets", "tokenizers")}
        | {"python": platform.python_version()},
        "seed": seed,
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "aligned_layers": aligned,
        "layer_choice": next(iter(logs.values()))["layer_choice"],
        "tuning_rows": next(iter(logs.values()))["rows"],
        "tuning_reading": next(iter(logs.values()))["reading"],
        "split": {
            "ntrex_documents_held_out": corpus.held_out_groups,
            "ntrex_documents_trained_on": corpus.train_groups,
            "left_out": corpus.left_out,
        },
        "base_training": json.loads((folder / "base" / "base_log.json").read_text()),
    }
    measured = {}
    for name, sentences in (("held_out", corpus.held_out), ("sib200", corpus.unseen)):
        short, overlong = fitting(sentences, tokenizer, max_length=max_length)
        print(f"measuring {len(short)} sentences of {name} ({overlong} too long)", flush=True)
        result["split"][f"{name}_too_long_to_measure"] = overlong
        measured[name] = measure_set(models, tokenizer, short, aligned=aligned, layers=layers, seed=seed)
    result["runs"] = {}
    for name in models:
        log = logs.get(name)
        result["runs"][name] = {
            "js": {language: measured["held_out"][name][language]["js"] for language in TARGETS},
            "accuracy": {},
            "seconds_per_step": log["seconds_per_step"] if log else None,
            "steps": log["steps"] if log else result["base_training"]["scale"]["steps"],
            "weight": log["run"]["weight"] if log else None,
            "alignment_while_training": [
                [entry["step"], round(float(entry["routing_alignment"]), 5)]
                for entry in (log["history"] if log else [])
                if "routing_alignment" in entry and entry["step"] % 50 == 0
            ],
            "held_out": measured["held_out"][name],
            "sib200": measured["sib200"][name],
        }
    write_report(result, folder)
    partial = folder / "result.json.partial"
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(folder / "result.json")
    return result


def write_report(result: dict[str, Any], folder: Path) -> None:
    """Write the figure and the tables of a result to js.svg and tables.md."""
    names = {language: LANGUAGES[language] for language in TARGETS}
    curves = {name: found["js"] for name, found in result["runs"].items()}
    title = "JS of the routing to English, by layer: NTREX, held-out documents"
    figure = curves_svg(curves, names, aligned=result["aligned_layers"], title=title)
    (folder / "js.svg").write_text(figure)
    (folder / "tables.md").write_text(tables(result))


def same_study(folder: Path, settings: dict[str, Any]) -> None:
    """Record what the study in `folder` is, or end if it is another one."""
    record = folder / "study.json"
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(settings, indent=1) + "\n")
    elif json.loads(record.read_text()) != settings:
        raise InnerlinguaError(
            f"{folder} holds a study with other settings (see study.json there): give another --output"
        )


def main() -> None:
    """Run the stages that are asked for and not yet done."""
    stages = ["base", *(run.name for run in RUNS), "measure"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/first_light"))
    parser.add_argument("--stage", choices=stages, action="append", help="only this stage; may be repeated")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--non-commercial", action="store_true", help="also sets that forbid commercial use")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--tiny", action="store_true", help="a model of nothing on a few rows, to try the pipeline")
    arguments = parser.parse_args()
    base_scale, tune_scale = (TINY_BASE, TINY_TUNE) if arguments.tiny else (BaseScale(), TuneScale())
    folder: Path = arguments.output
    settings = {"seed": arguments.seed, "non_commercial": arguments.non_commercial, "tiny": arguments.tiny}
    torch.set_num_threads(arguments.threads)
    try:
        pack = pack_dir()
        same_study(folder, settings)
        corpus = read_corpus(pack, seed=arguments.seed, non_commercial=arguments.non_commercial)
    except InnerlinguaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if arguments.tiny:
        corpus = replace(corpus, train=corpus.train[:600], held_out=corpus.held_out[:16], unseen=corpus.unseen[:16])
    print(
        f"{len(corpus.train)} training rows, {len(corpus.held_out)} held-out NTREX rows ({corpus.held_out_groups} of "
        f"{corpus.held_out_groups + corpus.train_groups} documents), {len(corpus.unseen)} SIB-200 rows; left out: "
        f"{corpus.left_out}",
        flush=True,
    )
    for stage in arguments.stage or stages:
        done = folder / ("result.json" if stage == "measure" else stage)
        if done.exists():
            print(f"{stage}: {done} exists, passed over", flush=True)
        elif stage == "base":
            shutil.rmtree(folder / "base.partial", ignore_errors=True)
            train_base(corpus.train, folder / "base", scale=base_scale, seed=arguments.seed)
        elif stage == "measure":
            options = [f"--{key.replace('_', '-')}" for key in ("non_commercial", "tiny") if settings[key]]
            command = ["python", "studies/first_light/run.py", "--output", str(folder), "--seed", str(arguments.seed)]
            measure(
                corpus,
                folder,
                command=shlex.join([*command, *options]),
                seed=arguments.seed,
                max_length=tune_scale.max_length,
            )
            print((folder / "tables.md").read_text())
        else:
            run = next(run for run in RUNS if run.name == stage)
            tune(run, corpus, folder, scale=tune_scale, seed=arguments.seed)


if __name__ == "__main__":
    main()
