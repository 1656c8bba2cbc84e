"""The page in one file: markup, style, scripts and data, with nothing to fetch.

Data enter only as JSON in a data block whose `<`, `>` and `&` are written as escapes, and the scripts only ever set
text, never markup, so a sentence that contains HTML stays a sentence. A content security policy with the hash of our
own script makes the browser refuse everything else: other scripts, and any request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

__all__ = ["assemble"]

SCRIPTS = ("core.js", "curves.js", "heatmaps.js", "scatter.js", "pairs.js", "table.js", "main.js")
"""In this order; each uses what the earlier ones define."""


def assemble(data: Mapping[str, Any]) -> str:
    """The whole page for `data`, as made by `payload`."""
    script = "\n".join(_part(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _part("page.html")
    for mark, text in (("policy", policy), ("style", _part("page.css")), ("script", script), ("data", _embed(data))):
        before, found, after = page.partition(f"%%{mark}%%")
        if not found:
            raise RuntimeError(f"page.html has no place for {mark}")
        page = before + text + after
    return page


def _embed(data: Mapping[str, Any]) -> str:
    """JSON that cannot end its own script element. ASCII only, so that odd code points of the data survive."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _part(name: str) -> str:
    return (files("innerlingua.routing.report") / "page" / name).read_text(encoding="utf-8")
