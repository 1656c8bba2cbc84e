"""`innerlingua routing profile`, `compare` and `layers`: what a model's routing does with each language, as numbers."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from innerlingua.cli.output import plain, say
from innerlingua.errors import DataError, ModelError, RecipeError
from innerlingua.recipe.writable import check_writable

__all__ = ["ManyValues", "compare", "layers", "profile"]

_MANY = ("--pairs", "--languages", "--seen")
_WIDE = 150


class ManyValues(TyperCommand):
    """Lets options that can be repeated take several values at once: `--pairs a b` is `--pairs a --pairs b`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each further value, then parse."""
        expanded: list[str] = []
        option: str | None = None
        for position, argument in enumerate(args):
            if argument == "--":
                expanded += args[position:]
                break
            if argument.startswith("-") and argument != "-":
                option = argument if argument in _MANY else None
            elif option is not None and expanded and expanded[-1] != option:
                expanded.append(option)
            expanded.append(argument)
        return super().parse_args(ctx, expanded)


def profile(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder in the Hugging Face layout, or owner/name.")],
    pairs: Annotated[
        list[Path],
        typer.Option("--pairs", metavar="FILE...", help="Rows with one text per language, or pairs with their anchor."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder of the profile.")],
    anchor: Annotated[
        str, typer.Option("--anchor", help="The language that the others are compared with.")
    ] = "eng_Latn",
    languages: Annotated[
        list[str] | None,
        typer.Option("--languages", metavar="CODE...", help="Languages to compare; all in the files unless given."),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Its name in reports; DIR's name unless given.")] = None,
    seen: Annotated[
        list[str] | None,
        typer.Option("--seen", metavar="CODE...", help="Languages that the model was trained on, for the report."),
    ] = None,
    language_name: Annotated[
        list[str] | None, typer.Option("--language-name", metavar="CODE=NAME", help="A language outside FLORES-200.")
    ] = None,
    exclude_groups: Annotated[
        Path | None,
        typer.Option("--exclude-groups", metavar="FILE", help="Leave out rows of these groups, one to a line."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only so many ids, drawn by the seed.")] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Decoder layers, such as 7-34; all unless given.")
    ] = None,
    score: Annotated[
        str | None, typer.Option("--score", help="Routing distribution; the family's unless given.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Tokens of a side; the model's context at most.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Pairs to keep with their text; 0 keeps none.")] = 24,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap, the samples and the limit.")] = 0,
    bootstrap: Annotated[int, typer.Option("--bootstrap", help="Replicates of the bootstrap.")] = 200,
    top_experts: Annotated[int, typer.Option("--top-experts", help="Main experts of a language, K of the rule.")] = 15,
    threshold: Annotated[float, typer.Option("--threshold", help="Share that makes an expert exclusive.")] = 0.4,
    batch_tokens: Annotated[int | None, typer.Option("--batch-tokens", help="Positions of a batch.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; CUDA where there is one.")] = None,
    experts_implementation: Annotated[
        str | None, typer.Option("--experts-implementation", help="eager, grouped_mm, ...; transformers chooses.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with MODEL.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a profile in DIR.")] = False,
) -> None:
    """Measure how MODEL routes each language, layer by layer, against the anchor language. MODEL comes first.

    \b
    innerlingua routing profile runs/base --pairs parallel.jsonl.gz -o profiles/base
    innerlingua routing profile runs/sara --pairs a.jsonl b.parquet --languages swh_Latn hin_Deva -o profiles/sara
    """
    from innerlingua.routing.profile import check_folder, profile_routing, read_sides, write_profile

    check_folder(output, overwrite=overwrite)
    check_writable(output, "-o")
    chosen = None if layers is None else _layers(layers)
    groups = _lines(exclude_groups)
    sides = read_sides(
        pairs,
        anchor=anchor,
        languages=_codes(languages, "--languages"),
        names=_names(language_name or []),
        exclude_groups=groups,
        limit=limit,
        seed=seed,
    )
    say(f"{_count(sides.ids, 'id')} in {len(sides.targets) + 1} languages, anchor {anchor}")
    if groups:
        none = "" if sides.excluded else f": none is of the {_count(len(groups), 'group')} in {exclude_groups}"
        say(f"{_count(sides.excluded, 'row')} left out by group{none}")

    loaded, tokenizer = _load(
        model, dtype=dtype, device=device, experts_implementation=experts_implementation, trust=trust_remote_code
    )
    started = time.perf_counter()
    result = profile_routing(
        loaded,
        tokenizer,
        sides,
        label=label or output.resolve().name,
        layers=chosen,
        score=score,
        max_length=max_length,
        batch_tokens=batch_tokens,
        seed=seed,
        replicates=bootstrap,
        top_experts=top_experts,
        threshold=threshold,
        samples=samples,
        seen_in_training=_codes(seen, "--seen"),
        command=shlex.join(["innerlingua", *sys.argv[1:]]),
        progress=True,
    )
    seconds = time.perf_counter() - started
    write_profile(result, output)
    _report(result.record, seconds)
    say(f"profile: {output}")


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The folder of a profile: before.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The folder of a profile: after.")],
    layers: Annotated[
        str | None, typer.Option("--layers", help="The aligned layers, such as 7-34; those A suggests unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what changed from profile A to profile B, language by language. A star marks an interval without 0.

    \b
    innerlingua routing compare profiles/base profiles/sara
    innerlingua routing compare profiles/sft profiles/sara --layers 2-5 --json
    """
    from innerlingua.routing.profile import compare_profiles, read_profile

    result = compare_profiles(read_profile(a), read_profile(b), layers=None if layers is None else _layers(layers))
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))  # ASCII, whatever the terminal takes
    else:
        _table(result)


def layers(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a profile.")],
    write: Annotated[
        Path | None, typer.Option("--write", metavar="RECIPE", help="Set alignment.layers in this recipe to them.")
    ] = None,
) -> None:
    """Print the layers that a profile suggests for alignment, and write them into a recipe.

    \b
    innerlingua routing layers profiles/base
    innerlingua routing layers profiles/base --write recipe.yaml
    """
    from innerlingua.routing.profile import format_layers, read_record

    suggested = read_record(folder)["suggested_layers"]
    text = format_layers(suggested["layers"])
    say(text)
    say(suggested["rule"])
    if write is not None:
        from innerlingua.recipe.editing import write_layers

        write_layers(write, suggested["layers"], text)
        say(f"{write}: alignment.layers is now {text}")


def _load(
    model: str, *, dtype: str, device: str | None, experts_implementation: str | None, trust: bool
) -> tuple[Any, Any]:
    import torch

    from innerlingua.recipe.model import load_model, load_tokenizer
    from innerlingua.recipe.schema import ModelSection

    known = ("auto", "float32", "bfloat16", "float16")
    if dtype not in known:
        raise ModelError(f"--dtype: {dtype!r} is none of {', '.join(known)}")
    section = ModelSection.model_validate(
        {
            "path": model,
            "dtype": dtype,
            "experts_implementation": experts_implementation,
            "trust_remote_code": trust,
        }
    )
    tokenizer = load_tokenizer(section)
    loaded = load_model(section)
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ModelError(f"--device: {device!r} is no device; write cpu, cuda or cuda:1") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"--device: {device}, and there is no CUDA device here")
    model_there: Any = loaded
    return model_there.to(place), tokenizer


def _codes(given: Sequence[str] | None, option: str) -> list[str] | None:
    """Language codes, also several in one word: `swh_Latn,hin_Deva`."""
    if given is None:
        return None
    codes = [code.strip() for word in given for code in word.split(",") if code.strip()]
    if not codes:
        raise DataError(f"{option}: no language code in it; write FLORES-200 codes, such as swh_Latn")
    return codes


def _names(given: Sequence[str]) -> dict[str, str]:
    names = {}
    for word in given:
        code, equals, name = word.partition("=")
        if not equals or not code.strip() or not name.strip():
            raise DataError(f"--language-name: {word!r} is not CODE=NAME, such as 'hlt_Latn=Matu Chin'")
        names[code.strip()] = name.strip()
    return names


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    if not path.is_file():
        raise DataError(f"--exclude-groups: there is no file {path}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"--exclude-groups: {path} is no UTF-8 text ({error})") from error
    if not lines:
        raise DataError(f"--exclude-groups: no group in {path}; write one to a line")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _layers(text: str) -> list[int]:
    from pydantic_core import PydanticCustomError

    from innerlingua.recipe.schema import parse_layers

    try:
        parsed = parse_layers(text)
    except PydanticCustomError as error:
        raise RecipeError(f"--layers {error.message()}") from error
    if parsed == "auto":
        raise RecipeError('--layers: write "7-34"; auto is for recipes')
    return list(parsed)


def _report(record: Mapping[str, Any], seconds: float) -> None:
    from innerlingua.routing.profile import format_layers

    data = record["data"]
    sentences = sum(entry["pairs"] for entry in record["languages"].values())
    skipped = {
        "without the anchor": data["skipped"]["without_anchor"],
        "with an empty side": data["skipped"]["empty"],
        f"longer than {record['settings']['max_length']} tokens": data["skipped"]["overlong"],
    }
    left_out = ", ".join(f"{number} {reason}" for reason, number in skipped.items() if number)
    say(f"{_count(data['pairs'], 'pair')} of {data['pairs_read']}{f', left out: {left_out}' if left_out else ''}")
    missing = sum(data["skipped"]["missing_side"].values())
    if missing:
        say(f"{_count(missing, 'time')} an id lacked a language (by language in profile.json)")
    lone = [code for code, entry in record["languages"].items() if entry["pairs"] == 1]
    if lone:
        say(f"no intervals for {', '.join(lone)}: one sentence has no spread")
    gone = sorted(set(data["skipped_by_language"]["empty"]) | set(data["skipped_by_language"]["overlong"]))
    gone = [code for code in gone if code not in record["languages"]]
    if gone:
        say(f"no pair is left in {', '.join(gone)}")
    say(f"{_count(sentences, 'sentence')} in {seconds:.1f} s, {sentences / seconds:.0f} a second")
    suggested = record["suggested_layers"]
    say(f"suggested layers: {format_layers(suggested['layers'])}{'' if suggested['trough'] else ' (no trough)'}")


def _table(result: Mapping[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from innerlingua.routing.profile import format_layers

    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    wide = console.width >= _WIDE
    a, b = plain(result["a"]["label"]), plain(result["b"]["label"])
    aligned = format_layers(result["aligned"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("language", no_wrap=True)
    for heading in ("pairs", f"JS {aligned}: {a}", b, "change", *(["95 % interval"] if wide else []), "JS, all"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for heading in ("overlap", "entropy", "load CV") if wide else ("entropy",):
        table.add_column(heading, justify="right", no_wrap=True)
    for code, row in result["languages"].items():
        pairs, js = row["pairs"], row["js"]["aligned"] if "js" in row else None
        cells = [
            escape(plain(f"{code} {row['name']}" if wide else code)),
            str(pairs[0]) if pairs[0] == pairs[1] else f"{pairs[0]}, {pairs[1]}",
            _number(js["a"]) if js else "anchor",
            _number(js["b"]) if js else "",
            _change(js),
            *([_interval(js)] if wide else []),
        ]
        others = ("js", "overlap", "entropy", "load_cv") if wide else ("js", "entropy")
        table.add_row(*cells, *(_change(row[name]["all"] if name in row else None) for name in others))
    console.print(table)
    console.print(
        f"Changes are {b} less {a}. JS in nats over layers {aligned}; the other columns over all layers. "
        "* its 95 % interval leaves 0 out.",
        markup=False,
    )
    for line in _notes(result):
        console.print(plain(line), markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(value: Mapping[str, Any] | None) -> str:
    return "" if value is None or value["low"] is None else f"{value['low']:+.4f} to {value['high']:+.4f}"


def _change(value: Mapping[str, Any] | None) -> str:
    if value is None or value["change"] is None:
        return ""
    return f"[bold]{value['change']:+.4f}*[/]" if value["changed"] else f"{value['change']:+.4f} "


def _notes(result: Mapping[str, Any]) -> list[str]:
    notes = []
    rows = result["languages"].values()
    unpaired = [code for code, row in result["languages"].items() if not row["paired"]]
    if unpaired:
        notes.append(
            f"Not paired (other ids, seed or replicates), so with wider intervals: {', '.join(unpaired)}."
            if len(unpaired) < len(rows)
            else "The profiles have other ids, seeds or replicates: intervals are not paired, and wider."
        )
    if result["same_weights"]:
        notes.append("Both profiles are of the same weights.")
    for key, label in (("only_in_a", result["a"]["label"]), ("only_in_b", result["b"]["label"])):
        if result[key]:
            notes.append(f"Only in {label}: {', '.join(result[key])}.")
    return notes
