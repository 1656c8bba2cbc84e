"""A page in one file: markup, style, scripts and data, with nothing to fetch.

Data enter only as JSON in a data block whose `<`, `>` and `&` are written as escapes, and the scripts only ever set
text, never markup, so a sentence that contains HTML stays a sentence. A content security policy with the hash of our
own script makes the browser refuse everything else: other scripts, and any request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

__all__ = ["assemble"]


def assemble(package: str, *, markup: str, style: str, scripts: Sequence[str], data: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        package: where the files of this page lie, such as `innerlingua.routing.report`, in its folder `page`.
        markup: the HTML file, with `%%policy%%`, `%%style%%`, `%%data%%` and `%%script%%` once each.
        style: the CSS file, after `core.css`.
        scripts: the JavaScript files, after `core.js`; each uses what the earlier ones define.
        data: what the page shows, in an element of the id `payload`.
    """
    folder = files(package) / "page"
    core = files("innerlingua.page")

    def part(place: Any, name: str) -> str:
        return str((place / name).read_text(encoding="utf-8"))

    script = "\n".join([part(core, "core.js"), *(part(folder, name) for name in scripts)])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = part(folder, markup)
    styles = part(core, "core.css") + part(folder, style)
    for mark, text in (("policy", policy), ("style", styles), ("script", script), ("data", _embed(data))):
        before, found, after = page.partition(f"%%{mark}%%")
        if not found:
            raise RuntimeError(f"{markup} has no place for {mark}")
        page = before + text + after
    return page


def _embed(data: Mapping[str, Any]) -> str:
    """JSON that cannot end its own script element. ASCII only, so that odd code points of the data survive."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
