"""`innerlingua evaluate`: benchmarks on models, language by language, with every sample kept."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from innerlingua.cli.many import many_values, split
from innerlingua.cli.output import fail, say
from innerlingua.errors import DataError
from innerlingua.recipe.writable import check_writable

__all__ = ["Evaluate", "evaluate"]

Evaluate = many_values("--tasks", "--languages", "--label", "--seed")


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Folders in the Hugging Face layout, owner/name, or MODEL+ADAPTER."),
    ],
    tasks: Annotated[list[str], typer.Option("--tasks", metavar="NAME...", help="Benchmarks (docs/evaluation.md).")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder of all results.")],
    languages: Annotated[
        list[str] | None,
        typer.Option("--languages", metavar="CODE...", help="FLORES-200 codes; all of a local file unless given."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Local benchmarks; INNERLINGUA_DATA unless given.")
    ] = None,
    anchor: Annotated[str, typer.Option("--anchor", help="The language that stands beside all others.")] = "eng_Latn",
    language_name: Annotated[
        list[str] | None, typer.Option("--language-name", metavar="CODE=NAME", help="A language outside FLORES-200.")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out languages that a benchmark lacks, and say so.")
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME...", help="Of each model's results; the folder's name unless given."),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option("--seed", metavar="N...", help="The seed that each model was trained with, for the record."),
    ] = None,
    num_fewshot: Annotated[int, typer.Option("--num-fewshot", help="Examples before each question.")] = 0,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Ask in the form of the model's chat template.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Of a generated answer; the task's own unless given.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many questions per language.")] = None,
    overlong: Annotated[
        str, typer.Option("--overlong", help="Prompts without room in the context: error, or count as unanswered.")
    ] = "error",
    backend: Annotated[str, typer.Option("--backend", help="hf or vllm.")] = "hf",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    batch_size: Annotated[str, typer.Option("--batch-size", help="A number, auto, or auto:N.")] = "8",
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="The model's context in tokens; its own unless given.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; CUDA where there is one.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Of models of the hub.")] = None,
    model_args: Annotated[
        str | None, typer.Option("--model-args", metavar="KEY=VALUE,...", help="Further arguments of the backend.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with MODEL.")
    ] = False,
) -> None:
    """Run benchmarks on models through lm-evaluation-harness, and keep every sample. MODELs come first.

    Results that are finished are never computed again, so the same command goes on after a kill.

    \b
    innerlingua evaluate runs/base runs/sara --tasks belebele xcopa --languages swh_Latn tha_Thai -o results
    innerlingua evaluate model+adapter --tasks ntrex_into --data pack --limit 200 -o results
    innerlingua evaluate s0 s1 s2 --seed 0 1 2 --tasks harness:global_mmlu --languages swh_Latn -o results
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    from innerlingua.evaluation.benchmarks import choose, data_folder
    from innerlingua.evaluation.models import read_models
    from innerlingua.evaluation.parallel_files import ParallelBenchmark
    from innerlingua.evaluation.settings import Settings, check_settings, model_arguments

    settings = Settings(
        backend=cast(Any, backend),
        num_fewshot=num_fewshot,
        chat_template=chat_template,
        max_new_tokens=max_new_tokens,
        limit=limit,
        overlong=cast(Any, overlong),
        dtype=dtype,
        max_length=max_length,
        batch_size=batch_size,
        device=device,
        trust_remote_code=trust_remote_code,
        model_args=model_arguments(model_args),
    )
    check_settings(settings)
    if output.exists() and not output.is_dir():
        raise DataError(f"-o {output}: a file; results need a folder")
    check_writable(output, "-o")
    specs = read_models(models, labels=label, seeds=seed, revision=revision)
    chosen = choose(
        split(tasks, "--tasks") or [],
        split(languages, "--languages"),
        data=data_folder(data),
        anchor=anchor,
        skip_missing=skip_missing,
        language_names=_names(language_name or []),
    )
    for benchmark, asked in chosen.benchmarks:
        say(f"{benchmark.name}: {', '.join(asked)} ({_source(benchmark)})")
        if anchor not in asked and not isinstance(benchmark, ParallelBenchmark):
            say(f"{benchmark.name}: has no {anchor} to stand beside")
    for name, language in chosen.missing:
        say(f"{name}: has no {language}, left out")

    from innerlingua.evaluation.running import evaluate_models
    from innerlingua.evaluation.table import results_table

    command = shlex.join(["innerlingua", *sys.argv[1:]])
    quiet = not sys.stderr.isatty()
    try:
        folders = evaluate_models(specs, chosen, output, settings, command=command, say=say, quiet=quiet)
    except KeyboardInterrupt:
        fail(f"ended by Ctrl-C. What was finished is in {output}; the same command goes on from there")
        raise SystemExit(130) from None
    wanted = [(benchmark.name, language) for benchmark, asked in chosen.benchmarks for language in asked]
    say(f"\n{results_table(folders, wanted=wanted)}\n")
    if chosen.missing:
        say(f"{len(chosen.missing)} of the languages asked for are not in a benchmark and were left out (above)")
    say(f"results: {', '.join(map(str, folders))}")


def _names(given: list[str]) -> dict[str, str]:
    names = {}
    for word in given:
        code, equals, name = word.partition("=")
        if not equals or not code.strip() or not name.strip():
            raise DataError(f"--language-name: {word!r} is not CODE=NAME, such as 'hlt_Latn=Matu Chin'")
        names[code.strip()] = name.strip()
    return names


def _source(benchmark: Any) -> str:
    from innerlingua.evaluation.harness import HarnessBenchmark

    return "lm-evaluation-harness" if isinstance(benchmark, HarnessBenchmark) else str(benchmark.path)
