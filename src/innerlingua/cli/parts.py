"""`innerlingua parts`: a model's parameters by part, without loading its weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from innerlingua.cli.output import say

__all__ = ["parts"]


def parts(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder in the Hugging Face layout, or owner/name.")],
    train: Annotated[
        str | None,
        typer.Option("--train", metavar="PART,...", help="Show what model.train with these parts would train."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the MoE layers, and no table.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the checkpoint.")
    ] = False,
) -> None:
    """Show a model's parameters by part: router, experts, shared experts, attention, norms, embeddings, head.

    Only the configuration is read, so that the largest model takes seconds.

    \b
    innerlingua parts Qwen/Qwen3-30B-A3B
    innerlingua parts ./checkpoint --train router,experts --json
    """
    from innerlingua.recipe.parts import read_parts
    from innerlingua.recipe.schema import ModelSection

    names = None if train is None else [name.strip() for name in train.split(",") if name.strip()]
    found = read_parts(ModelSection(path=model, trust_remote_code=trust_remote_code), train=names)
    layers, counts = found.layers, found.counts
    if as_json:
        fields = ("index", "name", "num_experts", "top_k", "score")
        table = {
            "model": model,
            "architecture": found.architecture,
            "parts": [asdict(count) for count in counts],
            "fixed_routers": found.fixed_routers,
            "moe_layers": [{field: getattr(layer, field) for field in fields} for layer in layers],
        }
        typer.echo(json.dumps(table, indent=2))
        return
    first = layers[0]
    say(
        f"{found.architecture}: {len(layers)} MoE layers ({first.index}-{layers[-1].index}) with {first.num_experts} "
        f"experts, top {first.top_k}, {first.score}"
    )
    if found.fixed_routers:
        kinds = ", ".join(sorted(set(found.fixed_routers.values())))
        say(f"{len(found.fixed_routers)} more route by a fixed table and are not aligned ({kinds})")
    total = sum(count.parameters for count in counts)
    rows = [("part", "parameters", "share", "trainable", "type")]
    rows += [
        (
            count.part,
            f"{count.parameters:,}",
            f"{count.parameters / total:.1%}",
            f"{count.trainable:,}",
            ", ".join(count.dtypes),
        )
        for count in counts
    ]
    rows.append(("all", f"{total:,}", "", f"{sum(count.trainable for count in counts):,}", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for part, *numbers, kind in rows:
        cells = [part.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=False)), kind]
        say("  ".join(cells).rstrip())
