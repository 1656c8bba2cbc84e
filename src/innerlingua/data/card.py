"""Data cards: one Markdown page beside an output that says what it is, where it came from, and how it was made.

The page begins with the front matter that dataset hubs read. It holds counts, settings and file hashes, never a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from innerlingua.data.files import write_text
from innerlingua.data.joining import Joined

__all__ = ["card_path", "file_hash", "today", "write_card", "write_pair_card"]


def card_path(output: Path) -> Path:
    """Where the card of an output lies: `train.parquet` -> `train.card.md`."""
    name = output.name
    for ending in (".jsonl.gz", ".jsonl", ".parquet"):
        name = name.removesuffix(ending)
    return output.with_name(f"{name}.card.md")


def today() -> str:
    """The date in UTC, ISO 8601."""
    return datetime.now(UTC).date().isoformat()


def file_hash(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and hashes of its files."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path)} {file_hash(file)}\n".encode())
    else:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_card(
    output: Path,
    *,
    title: str,
    languages: Mapping[str, int],
    counts: Mapping[str, int],
    sources: Sequence[str],
    settings: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Path:
    """Write the card of `output` beside it.

    Args:
        output: the data file, written already; its hash goes into the card.
        title: what was made.
        languages: rows by language.
        counts: what was read, kept, dropped.
        sources: the files that were read.
        settings: how it was made; keys must not be in it.
        notes: sentences for the end, such as what the reader must check.
    """
    lines = [
        "---",
        "language:",
        *(f"- {code}" for code in languages),
        "tags:",
        "- innerlingua",
        "---",
        "",
        f"# {output.name}",
        "",
        f"{title}, {today()} (UTC). SHA-256 `{file_hash(output)}`.",
        "",
        "| language | rows |",
        "|---|---:|",
        *(f"| {code} | {count} |" for code, count in languages.items()),
        "",
        "| count | |",
        "|---|---:|",
        *(f"| {name.replace('_', ' ')} | {count} |" for name, count in counts.items()),
        "",
        "## Made from",
        "",
        *(_source_line(name) for name in sources),
        "",
        "## Settings",
        "",
        "```json",
        json.dumps(settings, ensure_ascii=False, indent=1, sort_keys=True),
        "```",
    ]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    path = card_path(output)
    write_text(path, "\n".join(lines) + "\n")
    return path


def _source_line(name: str) -> str:
    path = Path(name)
    return f"- `{path.name}`, SHA-256 `{file_hash(path)}`" if path.exists() else f"- `{path.name}`"


def write_pair_card(joined: Joined) -> Path:
    """The card of what `pair` wrote."""
    return write_card(
        joined.path,
        title="Pairs of a target and its anchor, joined by `innerlingua data pair`",
        languages=joined.languages,
        counts=joined.counts,
        sources=joined.sources,
        settings={"columns_left_out": joined.ignored_columns},
        notes=[
            "`provenance` of each row says, as JSON, where target and anchor came from: model, template, settings and "
            "date where a model wrote them, file and line where a file held them.",
            "Licences are those of the sources; look them up there.",
        ],
    )
