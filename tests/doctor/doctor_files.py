"""Files of the doctor's tests: the recipe that they run, rows, and what lies below a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def files_under(folder: Path) -> dict[str, int]:
    """Every file below `folder` with the time it was written."""
    return {
        os.path.join(place, name): os.stat(os.path.join(place, name)).st_mtime_ns
        for place, _, names in os.walk(folder)
        for name in names
    }
