"""`innerlingua data ...`: from an instruction set to verified pairs in many languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from innerlingua.cli.output import say

if TYPE_CHECKING:
    from innerlingua.data.quality import Quality

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Make, join and check data.", rich_markup_mode=None)


def _names(values: list[str] | None) -> dict[str, str]:
    """`CODE=NAME` options as a mapping."""
    from innerlingua.errors import DataError

    names = {}
    for value in values or []:
        code, found, name = value.partition("=")
        if not found:
            raise DataError(f"--language-name {value!r}: write CODE=NAME, such as hlt_Latn='Matu Chin'")
        names[code.strip()] = name.strip()
    return names


LanguageNames = Annotated[
    list[str] | None,
    typer.Option("--language-name", metavar="CODE=NAME", help="A language outside FLORES-200. Repeatable."),
]
NonCommercial = Annotated[
    str, typer.Option(help="Rows for non-commercial use only: error, drop, or keep, which opts in.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]


Url = Annotated[
    str | None,
    typer.Option(help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1; without it, in process."),
]
Model = Annotated[str, typer.Option(help="The model's name on the server, or its folder or hub name.")]
Revision = Annotated[str | None, typer.Option(help="The model's revision: for the hub, and for provenance.")]
ReplyModel = Annotated[str | None, typer.Option(help="The name in the server's replies, where it is another.")]
KeyEnv = Annotated[str | None, typer.Option(help="The environment variable that holds the server's key.")]
KeyFile = Annotated[Path | None, typer.Option(help="A file that holds the server's key.")]
QualityKeyEnv = Annotated[
    str | None, typer.Option(help="The environment variable that holds the quality server's key.")
]
QualityKeyFile = Annotated[Path | None, typer.Option(help="A file that holds the quality server's key.")]
Concurrency = Annotated[int, typer.Option(help="The most requests at once; fewer when the server asks for it.")]
BatchSize = Annotated[int, typer.Option(help="Texts per forward pass, in process.")]
Timeout = Annotated[float, typer.Option(help="Seconds until a request counts as lost.")]
Attempts = Annotated[int, typer.Option(help="Tries of a request in one run.")]
Patience = Annotated[float, typer.Option(help="Seconds without any success after which the run stops.")]
TopP = Annotated[float, typer.Option(help="Nucleus sampling.")]
MaxTokens = Annotated[int, typer.Option(help="The most tokens of one answer.")]
Seed = Annotated[int, typer.Option(help="Of the first draw; each further draw adds one.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many rows; a later run may ask for more.")]
Partial = Annotated[bool, typer.Option("--partial", help="Write the rest although requests failed.")]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="Ask anew for what was set aside, with other draws, and replace the outputs."),
]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what an earlier run has done.")]


@app.command("verify")
def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="QUESTIONS...", help="Instruction sets with known answers.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".jsonl or .jsonl.gz")],
    model: Model,
    url: Url = None,
    revision: Revision = None,
    reply_model: ReplyModel = None,
    key_env: KeyEnv = None,
    key_file: KeyFile = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Ask in this language only. Repeatable; all that the set holds without it.")
    ] = None,
    anchor_language: Annotated[str, typer.Option(help="The language whose right answers are kept.")] = "eng_Latn",
    template: Annotated[str | None, typer.Option(help="reasoning, choice, plain, or a text file.")] = None,
    answer: Annotated[str | None, typer.Option(help="How the answer is taken: boxed, choice or number.")] = None,
    samples: Annotated[int, typer.Option(help="Draws per question.")] = 1,
    agreement: Annotated[float, typer.Option(help="Share of the draws that must be right.")] = 0.5,
    temperature: Annotated[float | None, typer.Option(help="0 unless given, or 0.7 with several samples.")] = None,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 2048,
    seed: Seed = 42,
    limit: Limit = None,
    concurrency: Concurrency = 64,
    batch_size: BatchSize = 8,
    timeout: Timeout = 120.0,
    attempts: Attempts = 8,
    patience: Patience = 120.0,
    language_name: LanguageNames = None,
    non_commercial: NonCommercial = "error",
    partial: Partial = False,
    restart: Restart = False,
    overwrite: Overwrite = False,
) -> None:
    """Let a model answer questions whose answer is known, and keep what is right. Continues after a kill.

    \b
    innerlingua data verify gsm8k.jsonl.gz --model Qwen/Qwen3-30B-A3B --url http://127.0.0.1:8000/v1 -o verified.jsonl
    innerlingua data verify mgsm.jsonl.gz --language eng_Latn --language swh_Latn --model ./tiny -o verified.jsonl
    """
    from innerlingua.data.asking import ModelSpec, Sampling
    from innerlingua.data.verify import verify as run
    from innerlingua.data.work.keys import read_key

    done = run(
        paths,
        output,
        model=ModelSpec(
            model=model,
            url=url,
            revision=revision,
            reply_model=reply_model,
            key=read_key(environment=key_env, file=key_file),
            concurrency=concurrency,
            batch_size=batch_size,
            timeout=timeout,
            attempts=attempts,
            patience=patience,
        ),
        sampling=Sampling(
            temperature=temperature if temperature is not None else (0.7 if samples > 1 else 0.0),
            top_p=top_p,
            max_tokens=max_tokens,
            seed=seed,
        ),
        template=template,
        extract=answer,
        anchor_language=anchor_language,
        languages=language,
        language_names=_names(language_name),
        samples=samples,
        agreement=agreement,
        non_commercial=non_commercial,
        limit=limit,
        partial=partial,
        restart=restart,
        overwrite=overwrite,
    )
    for name, count in {**done.counts, **done.label_counts}.items():
        say(f"{name.replace('_', ' ')}: {count:,}")
    say(f"wrote {done.path}, {done.labels}, {done.rejected} and {done.card}")


@app.command("translate")
def translate(
    paths: Annotated[list[Path], typer.Argument(metavar="ROWS...", help="What verify wrote, or other rows.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".jsonl or .jsonl.gz")],
    to: Annotated[list[str], typer.Option(help="A target language. Repeatable.")],
    model: Model,
    url: Url = None,
    revision: Revision = None,
    reply_model: ReplyModel = None,
    key_env: KeyEnv = None,
    key_file: KeyFile = None,
    source_language: Annotated[str, typer.Option(help="The language of rows that do not name theirs.")] = "eng_Latn",
    template: Annotated[str | None, typer.Option(help="general, mathematics, choice, bare, or a text file.")] = None,
    tries: Annotated[int, typer.Option(help="Translations of one text before its row is set aside.")] = 3,
    quality_url: Annotated[str | None, typer.Option(help="A server that estimates quality.")] = None,
    quality_min: Annotated[float, typer.Option(help="The least quality that passes.")] = 0.0,
    quality_key_env: QualityKeyEnv = None,
    quality_key_file: QualityKeyFile = None,
    length_ratio: Annotated[
        str | None, typer.Option(metavar="LOW:HIGH", help="Length over the source's, in characters.")
    ] = None,
    identify: Annotated[
        bool, typer.Option("--identify/--no-identify", help="Check the language where the library is installed.")
    ] = True,
    temperature: Annotated[float, typer.Option(help="Of the first try.")] = 0.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 4096,
    seed: Seed = 42,
    limit: Limit = None,
    concurrency: Concurrency = 64,
    batch_size: BatchSize = 8,
    timeout: Timeout = 120.0,
    attempts: Attempts = 8,
    patience: Patience = 120.0,
    language_name: LanguageNames = None,
    non_commercial: NonCommercial = "error",
    retry_failed: RetryFailed = False,
    partial: Partial = False,
    restart: Restart = False,
    overwrite: Overwrite = False,
) -> None:
    """Translate rows and keep what survived; the rest is set aside with the reason. Continues after a kill.

    \b
    innerlingua data translate verified.jsonl --to swh_Latn --to hin_Deva --model M --url http://host/v1 -o out.jsonl
    innerlingua data translate verified.jsonl --to swh_Latn --model ./nllb --template bare -o sw.jsonl
    """
    from innerlingua.data.asking import ModelSpec, Sampling
    from innerlingua.data.survival import read_limits
    from innerlingua.data.translate import translate as run
    from innerlingua.data.work.keys import read_key

    done = run(
        paths,
        output,
        to=to,
        model=ModelSpec(
            model=model,
            url=url,
            revision=revision,
            reply_model=reply_model,
            key=read_key(environment=key_env, file=key_file),
            concurrency=concurrency,
            batch_size=batch_size,
            timeout=timeout,
            attempts=attempts,
            patience=patience,
        ),
        sampling=Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed),
        template=template,
        source_language=source_language,
        language_names=_names(language_name),
        tries=tries,
        limits=read_limits(length_ratio),
        quality=_quality(quality_url, quality_min, quality_key_env, quality_key_file),
        identify=identify,
        non_commercial=non_commercial,
        limit=limit,
        retry_failed=retry_failed,
        partial=partial,
        restart=restart,
        overwrite=overwrite,
    )
    for name, count in done.counts.items():
        say(f"{name.replace('_', ' ')}: {count:,}")
    for kind, count in sorted(done.reasons.items()):
        say(f"  set aside for {kind}: {count:,}")
    say(f"language identifier: {done.identifier}")
    say(f"wrote {done.path}, {done.set_aside} and {done.card}")


def _quality(url: str | None, least: float, key_env: str | None, key_file: Path | None) -> Quality | None:
    """The quality server that the options describe."""
    from innerlingua.data.quality import Quality
    from innerlingua.data.work.keys import read_key
    from innerlingua.errors import DataError

    if url is None:
        if key_env or key_file or least:
            raise DataError("--quality-min and --quality-key: they say nothing without --quality-url")
        return None
    key = read_key(environment=key_env, file=key_file, option="--quality-key")
    return Quality(url, least, key)


@app.command("pair")
def pair(
    targets: Annotated[
        list[Path],
        typer.Argument(metavar="TARGETS...", help="Targets, pairs, or parallel rows; several files at once."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help=".jsonl, .jsonl.gz, .parquet, or a folder.")],
    anchors: Annotated[
        list[Path] | None, typer.Option("--anchors", "-a", help="Anchors, when they lie in files of their own.")
    ] = None,
    anchor_language: Annotated[str, typer.Option(help="The language of the anchors.")] = "eng_Latn",
    language: Annotated[str | None, typer.Option(help="The language of target rows that do not name theirs.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Take this target language only. Repeatable.")] = None,
    language_name: LanguageNames = None,
    missing_anchor: Annotated[str, typer.Option(help="Targets without an anchor: error, drop or keep.")] = "error",
    same_as_anchor: Annotated[str, typer.Option(help="Targets equal to their anchor: error, drop or keep.")] = "error",
    empty: Annotated[str, typer.Option(help="Rows with blank text: error or drop.")] = "error",
    duplicate: Annotated[str, typer.Option(help="An id again in one language: error or drop.")] = "error",
    non_commercial: NonCommercial = "error",
    overwrite: Overwrite = False,
) -> None:
    """Join anchors and targets by id and write what `train` reads, with a data card beside it.

    \b
    innerlingua data pair swahili.jsonl hindi.jsonl --anchors verified.jsonl -o train.parquet
    innerlingua data pair ntrex.jsonl.gz --only swh_Latn -o train.jsonl
    innerlingua data pair sw.csv --language swh_Latn --anchors en.csv -o train.jsonl
    """
    from innerlingua.data.joining import pair as join

    joined = join(
        targets,
        output,
        anchors=anchors or [],
        anchor_language=anchor_language,
        language=language,
        only=only,
        languages=_names(language_name),
        missing_anchor=missing_anchor,
        same_as_anchor=same_as_anchor,
        empty=empty,
        duplicate=duplicate,
        non_commercial=non_commercial,
        overwrite=overwrite,
    )
    for name, count in joined.counts.items():
        if count or name in ("read", "kept"):
            say(f"{name.replace('_', ' ')}: {count:,}")
    for code, count in joined.languages.items():
        say(f"  {code}: {count:,}")
    if joined.ignored_columns:
        say(f"columns left out: {', '.join(joined.ignored_columns)}")
    say(f"wrote {joined.path} and {joined.card}")


@app.command("check")
def check(
    paths: Annotated[list[Path], typer.Argument(metavar="PAIRS...", help="What `train` reads, or parallel rows.")],
    test: Annotated[
        list[Path] | None, typer.Option("--test", "-t", help="An evaluation set to compare with. Repeatable.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder with tokenizer.json: lengths in tokens instead of words.")
    ] = None,
    near: Annotated[float, typer.Option(help="Least likeness (Jaccard, 5 words) of near-duplicates.")] = 0.7,
    language_name: LanguageNames = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Count what pairs hold and what is wrong with them; nothing is changed.

    \b
    innerlingua data check train.parquet --test mgsm.jsonl.gz --test belebele.jsonl.gz
    innerlingua data check train.parquet --tokenizer models/qwen3 --json > check.json
    """
    from rich.console import Console

    from innerlingua.data.checking import check_pairs, render

    console = Console(stderr=True)
    with console.status("reading") as status:
        report = check_pairs(
            list(paths),
            tests=test or [],
            tokenizer=tokenizer,
            near=near,
            languages=_names(language_name),
            progress=lambda rows: status.update(f"{rows:,} rows"),
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        Console().print(render(report))
