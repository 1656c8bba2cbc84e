"""Data cards: one Markdown page beside an output that says what it is, where it came from, and how it was made.

The page begins with the front matter that dataset hubs read. It holds counts, settings and file hashes, never a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from innerlingua.data.files import write_text
from innerlingua.data.hashes import file_hash
from innerlingua.data.licences import is_non_commercial
from innerlingua.data.wording import counted

__all__ = ["LICENCE_NOTE", "beside", "card_path", "today", "write_card"]

LICENCE_NOTE: Final = (
    "Licences are what rows state, or what is known of the source that they name; where they are not stated, look "
    "them up at the source. That of a model that wrote text is its own."
)


_PLAIN: Final = re.compile(r"[A-Za-z]+([_-][A-Za-z0-9]+)+")  # a code that YAML takes for text as it stands


def card_path(output: Path) -> Path:
    """Where the card of an output lies: `train.parquet` -> `train.card.md`."""
    return beside(output, "card.md")


def beside(output: Path, ending: str) -> Path:
    """A file that belongs to an output: `train.parquet`, `card.md` -> `train.card.md`."""
    name = output.name
    for own in (".jsonl.gz", ".jsonl", ".parquet"):
        name = name.removesuffix(own)
    return output.with_name(f"{name}.{ending}")


def today() -> str:
    """The date in UTC, ISO 8601."""
    return datetime.now(UTC).date().isoformat()


def write_card(
    output: Path,
    *,
    written: Path,
    title: str,
    languages: Mapping[str, int],
    counts: Mapping[str, int],
    sources: Mapping[str, str],
    licences: Mapping[tuple[str, str], int],
    settings: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Path:
    """Write the card of `output` beside it.

    Args:
        output: the data file.
        written: where its content is, which does not bear its name yet; the hash goes into the card.
        title: what was made.
        languages: rows by language.
        counts: what was read, kept, dropped.
        sources: the files that were read -> their SHA-256.
        licences: (source, licence) -> rows that were read, as `Licences` counts them.
        settings: how it was made; keys must not be in it.
        notes: sentences for the end, such as what the reader must check.
    """
    barred = sum(count for (_, licence), count in licences.items() if is_non_commercial(licence))
    if barred:
        notes = [f"{counted(barred, 'row')} that went in {_are(barred)} for non-commercial use only.", *notes]
    lines = [
        "---",
        "language:",
        *(f"- {code if _PLAIN.fullmatch(code) else json.dumps(code)}" for code in languages),
        "tags:",
        "- innerlingua",
        "---",
        "",
        f"# {_cell(output.name)}",
        "",
        f"{title}, {today()} (UTC). SHA-256 `{file_hash(written)}`.",
        "",
        "| language | rows |",
        "|---|---:|",
        *(f"| {_cell(code)} | {count} |" for code, count in languages.items()),
        "",
        "| count | |",
        "|---|---:|",
        *(f"| {name.replace('_', ' ')} | {count} |" for name, count in counts.items()),
        "",
        "## Made from",
        "",
        *(f"- {_code(name)}, SHA-256 `{digest}`" for name, digest in sources.items()),
        "",
        "| source | licence | rows read |",
        "|---|---|---:|",
        *(f"| {_cell(source)} | {_cell(licence)} | {count} |" for (source, licence), count in sorted(licences.items())),
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


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _cell(text: str) -> str:
    """Words of rows in a cell: nothing in them ends it or is markup."""
    return "".join(f"\\{letter}" if letter in "\\`*<>[]|#" else letter for letter in " ".join(text.split()))


def _code(text: str) -> str:
    """A name in the type of code, whatever quotes it holds."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"
