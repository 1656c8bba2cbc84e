"""`innerlingua doctor RECIPE`: what can be known of a run before its first step."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from innerlingua.cli.output import plain
from innerlingua.cli.overrides import CONTEXT, recipe_from
from innerlingua.errors import RecipeError
from innerlingua.recipe.writable import check_writable

__all__ = ["CONTEXT", "doctor"]

_STYLES = {"refused": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def doctor(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The YAML file that describes the run.")],
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON, too; - prints it alone.")
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="How many processes the training will have, for the estimates.")
    ] = 1,
) -> None:
    """Examine RECIPE as a training would, up to its first step, and train nothing. Any key can be changed, as for
    train.

    Shows rows, model, what is trained, every term of the loss with its gradients, prior, memory and time. Writes
    nothing into the folder of the run. Exit code 2 when `innerlingua train` would refuse the recipe.

    \b
    innerlingua doctor recipe.yaml
    innerlingua doctor recipe.yaml --trainer.per-device-train-batch-size 8 --processes 16
    innerlingua doctor recipe.yaml --json report.json
    """
    from innerlingua.recipe.doctor.render import render
    from innerlingua.recipe.doctor.report import Finding, Report

    try:
        loaded = recipe_from(recipe, context.args, options=("--json", "--processes", "--help"), verb="doctor")
    except RecipeError as error:
        _check_target(as_json, None)
        report = Report(recipe_path=recipe, versions={})
        report.findings = [Finding("refused", "", recipe, str(error))]
    else:
        _check_target(as_json, Path(loaded.trainer["output_dir"]))

        from innerlingua.recipe.doctor.examine import examine

        with _Watch() as watch:
            report = examine(loaded, recipe, watch, processes=processes)
    if as_json == "-":
        typer.echo(json.dumps(_finite(report.as_json()), allow_nan=False))  # ASCII, whatever the terminal takes
    else:
        _print(render(report))
        if as_json is not None:
            from innerlingua.recipe.run import write_json

            write_json(Path(as_json), _finite(report.as_json()))
    if report.refused:
        raise typer.Exit(2)


def _check_target(target: str | None, output: Path | None) -> None:
    """Refuse a file for the report that is in the way of something, before any work is done."""
    if target is None or target == "-":
        return
    path = Path(target)
    where = f"command line, --json: {target}"
    if not path.parent.is_dir():
        raise RecipeError(f"{where} cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise RecipeError(f"{where} is a folder; name a file")
    if output is not None and output.resolve() in path.resolve().parents:
        raise RecipeError(
            f"{where} lies in the folder of the run, where it would stop the training; name another place"
        )
    if path.exists() and not _is_report(path):
        raise RecipeError(f"{where} exists and is no report of innerlingua doctor; name another file")
    check_writable(path, "command line, --json")


def _is_report(path: Path) -> bool:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("command") == "doctor"


def _finite(value: Any) -> Any:
    """`value` with null in place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(lines: list[str]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # rows are in all scripts, terminals are not
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        text = Text(plain(line))
        words = line.split(maxsplit=1)
        if line and not line.startswith(" "):
            text.stylize("bold")
        elif words and words[0] in _STYLES and line.startswith(f"  {words[0]}"):
            text.stylize(_STYLES[words[0]], 2, 2 + len(words[0]))
        console.print(text)


class _Watch:
    """Says on standard error what is being done, with a bar where the work can be counted."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def stage(self, title: str, total: int = 0) -> None:
        """Say that `title` begins."""
        if self._task is not None:
            self._bar.stop()
            self._task = None
        if total and self._console.is_terminal:
            self._bar.start()
            self._task = self._bar.add_task(title, total=total)
        else:
            self._console.print(f"doctor: {title}")

    def advance(self) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task)
