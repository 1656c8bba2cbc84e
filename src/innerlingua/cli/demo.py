"""`innerlingua demo`: routing alignment on a small world, without downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from innerlingua.cli.output import say
from innerlingua.errors import InnerlinguaError

__all__ = ["demo"]


def demo(
    output_dir: Annotated[
        Path, typer.Option("--output-dir", help="The folder for results and the cached base.")
    ] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the world, the base and the three runs.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps: shows that it works, not how well.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train the base again and not reuse the cached one.")] = False,
) -> None:
    """Teach a tiny model English and some of five languages, then align its routing and measure what came of it.

    \b
    innerlingua demo
    innerlingua demo --quick --output-dir runs/quick
    """
    from innerlingua.recipe.writable import check_writable

    if output_dir.is_file():
        raise InnerlinguaError(f"--output-dir: {output_dir} is a file; name a folder")
    check_writable(output_dir, "--output-dir")

    from innerlingua.demo import run_demo

    report = run_demo(output_dir, seed=seed, quick=quick, fresh=fresh)
    say(f"report: {report}")
