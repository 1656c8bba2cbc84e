"""The command's verbs in one application, and the program's edge, where errors become messages and exit codes."""

from __future__ import annotations

import os
import traceback
from typing import Annotated

import typer

from innerlingua import __version__
from innerlingua.cli import compare, data, demo, doctor, evaluate, parts, routing, train
from innerlingua.cli.output import fail
from innerlingua.errors import InnerlinguaError, file_error

__all__ = ["app", "main"]

app = typer.Typer(
    name="innerlingua",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Post-train multilingual Mixture-of-Experts models by what happens inside them.",
    epilog="Start with `innerlingua demo`.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"innerlingua {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Hold the options of the command itself; typer needs a function to hang them on."""


app.command("doctor", context_settings=doctor.CONTEXT)(doctor.doctor)
app.command("train", context_settings=train.CONTEXT)(train.train)
app.add_typer(data.app, name="data")
app.add_typer(routing.app, name="routing")
app.command("evaluate", cls=evaluate.Evaluate)(evaluate.evaluate)
app.command("compare", cls=compare.Compare)(compare.compare)
app.command("parts")(parts.parts)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line and leave with its exit code."""
    # TRL tells the hub which trainer runs, through its library; a command says nothing to anyone unless asked.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        app()
    except InnerlinguaError as error:
        fail(str(error))
        raise SystemExit(2) from None
    except OSError as error:
        # A folder that cannot be written, a full disk, a file that is in the way: the user's to mend.
        fail(file_error(error))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
