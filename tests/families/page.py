"""docs/families.md: what the matrix verified, one row per family. Written by `make families`, never by hand.

The page carries a digest of what it was made from (the catalogue of the installed transformers, the table of
families, the checks); a test compares it, so that a page which is older than these fails.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import transformers
from transformers import CONFIG_MAPPING

from families import configs, matrix
from families.catalogue import Catalogue, Entry, catalogue
from innerlingua.anatomy import families

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def row_of(entry: Entry) -> families.Family:
    """The row of an entry in the table of families, by its text model's type."""
    return families.family_of(CONFIG_MAPPING[entry.model_type]().get_text_config().model_type)


def kind_of(entry: Entry) -> str:
    return row_of(entry).kind


def unsupported(entry: Entry) -> str | None:
    return row_of(entry).unsupported


def representatives(found: Catalogue) -> list[Entry]:
    """The first entry of each kind of router, and one model with more than text around it."""
    first: dict[str, Entry] = {}
    for entry in found.entries:
        if unsupported(entry) is None and not entry.inside:
            first.setdefault(kind_of(entry), entry)
    for entry in found.entries:
        if unsupported(entry) is None:
            first.setdefault(kind_of(entry), entry)
    wrapped = next(entry for entry in found.entries if entry.inside and row_of(entry) == families.COMMON)
    return [*first.values(), *([] if wrapped in first.values() else [wrapped])]


def digest(found: Catalogue) -> str:
    """Changes when the catalogue, the table of families, the tiny configurations or the checks do."""
    parts = [repr(found), repr(sorted(families.FAMILIES.items()))]
    parts += [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (configs, matrix)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def stored() -> tuple[str, str]:
    """(version of transformers, digest) that the page names."""
    found = re.search(r"transformers (\S+), digest `(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert found is not None
    return found.group(1), found.group(2)


def render(found: Catalogue, results: Path) -> str:
    """The page. Raises when a supported entry has no result."""
    tested = {str(e): json.loads((results / f"{e}.json").read_text()) for e in found.entries if unsupported(e) is None}
    not_now = [entry for entry in found.entries if "refused" in tested.get(str(entry), {})]
    refused = [entry for entry in found.entries if unsupported(entry) is not None]
    supported = [entry for entry in found.entries if entry not in not_now and entry not in refused]
    folders = {entry.folder for entry in supported}
    inside = [entry for entry in supported if entry.inside]
    lines = [
        "# Model families",
        "",
        f"Written by `make families`: transformers {transformers.__version__}, digest `{digest(found)}`. Do not edit.",
        "",
        f"{len(found.folders)} folders of transformers have a router. {len(found.excluded)} of them hold no language "
        f"model that is trained on one text (listed below), {len({e.folder for e in (*refused, *not_now)})} cannot be "
        f"supported, and **{len(folders)} are supported**, in {len(supported)} architectures, {len(inside)} of them "
        "text models inside a larger one. Each was built small, with random weights and without downloads, and passed:",
        "",
        "- *layers*: how many of the decoder layers are MoE layers, each found at its index;",
        "- *score*: the routing distribution that is aligned, and what else is special",
        "  ([why](../src/innerlingua/anatomy/families.py));",
        "- captured logits equal a recomputation from the router's own weights;",
        "- the experts that receive a gradient are those that the captured logits choose;",
        "- *padding*: pooled routing does not change with padding on this side (training pads on the right);",
        "- *packing*: the pooled routing of rows that lie end to end is that of each alone. Refused before the first",
        "  step where such rows see each other: some families need flash attention for it, and layers with a state",
        "  need their kernels; neither was installed here;",
        "- the alignment term moves every router;",
        "- *checkpointing*: the gradients with gradient checkpointing are the same;",
        "- one step of training, saved and loaded: the same logits;",
        "- *LoRA*: parts whose adapters learn, are loaded again by plain PEFT, give the same logits merged, in plain",
        "  transformers. Other parts are refused with the reason.",
        "",
        "A family that is not here and follows the common contract works without a row; the self-check before the",
        "first step says so, or refuses it by name.",
        "",
        "| family | architecture | layers | score | padding | packing | checkpointing | LoRA |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry.folder} | {entry.architecture} | {tested[str(entry)]['layers']} | {kind_of(entry)} | "
        f"{tested[str(entry)]['padding']} | {tested[str(entry)]['packing']} | {tested[str(entry)]['checkpointing']} | "
        f"{tested[str(entry)]['LoRA']} |"
        for entry in supported
    ]
    lines += ["", "## Not supported", "", "| family | reason |", "|---|---|"]
    lines += [f"| {entry.folder} | {unsupported(entry)} |" for entry in refused]
    lines += [f"| {e.folder} | {tested[str(e)]['refused']} |" for e in not_now]
    lines += ["", "## Not language models that are trained on one text", "", "| folder | reason |", "|---|---|"]
    lines += [f"| {folder} | {reason} |" for folder, reason in sorted(found.excluded.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    page = render(catalogue(), Path(sys.argv[1]))
    if "--write" in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    print("\n".join(line for line in page.splitlines() if "folders of transformers" in line or "supported" in line))
