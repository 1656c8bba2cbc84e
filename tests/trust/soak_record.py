"""What `make soak` has tried and found: one JSON file for each property, from which `docs/reliability.md` is made.

    {"property": str, "how": str, "tried": int, "unit": "steps" | "kills" | "inputs" | "data sets" | "mutations",
     "result": str, "largest": {name: float} | null}

The files go to the folder that the environment variable INNERLINGUA_SOAK names. Without it nothing is written, so a
test calls `record` at its end and need not know who started it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Literal

__all__ = ["Unit", "record"]

Unit = Literal["steps", "kills", "inputs", "data sets", "mutations"]


def record(
    property: str,  # noqa: A002
    how: str,
    tried: int,
    unit: Unit,
    result: str,
    largest: dict[str, float] | None = None,
) -> Path | None:
    """Write what was found of one property; its file, or None when INNERLINGUA_SOAK is not set.

    The file is named after the property and is replaced whole, so that a second run leaves the newest alone.
    """
    folder = os.environ.get("INNERLINGUA_SOAK")
    if not folder:
        return None
    row = {"property": property, "how": how, "tried": tried, "unit": unit, "result": result, "largest": largest}
    name = re.sub(r"[^a-z0-9]+", "-", property.lower()).strip("-")
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{name}.json"
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps(row, indent=1) + "\n")
    half.replace(path)
    return path
