"""docs/security.md, "Pages": markup in names, ids, labels and texts stays text, and a page fetches nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_rig import Done, invoke, pairs, save_replicates, write_rows

from evaluation.stored_runs import answers, write_scores
from innerlingua.data.card import write_card
from routing_report.stored_profiles import write_profile

SCRIPT = "<script>steal()</script><img src=x onerror=steal()>\"'><a href='javascript:steal()'>"
TERMINAL = "\x1b]0;owned\x07\x1b[2J"


class _Elements(HTMLParser):
    """The elements of a page, and every attribute that could fetch or run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.active: list[tuple[str, str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            runs = name.startswith("on") or (value or "").strip().lower().startswith("javascript:")
            fetches = name in ("src", "href", "action", "data", "srcset", "poster")
            if runs or (fetches and not (value or "").startswith("#")):
                self.active.append((tag, name, value))


def hostile(values: Any, mark: str, *, keys: tuple[str, ...]) -> Any:
    """`values` with `mark` behind every text under one of `keys`."""
    if isinstance(values, dict):
        return {
            key: value + mark if key in keys and isinstance(value, str) else hostile(value, mark, keys=keys)
            for key, value in values.items()
        }
    return [hostile(value, mark, keys=keys) for value in values] if isinstance(values, list) else values


def hostile_profile(folder: Path, mark: str) -> Path:
    write_profile(folder, label="base", samples=4)
    save_replicates(folder)
    for name in ("profile.json", "samples.json"):
        stored = json.loads((folder / name).read_text())
        texts = ("label", "name", "command", "created", "model_type", "rule", "id", "score", "weights")
        stored = hostile(stored, mark, keys=texts)
        text = json.dumps(stored).replace("npi_Deva", json.dumps(f"npi_Deva{mark}")[1:-1])
        (folder / name).write_text(text)
    return folder


def safe(page: str, *, scripts: int) -> None:
    found = _Elements(page)
    assert found.tags.count("script") == scripts
    assert not found.active, found.active
    assert "img" not in found.tags
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)


def test_a_routing_report_shows_markup_as_text(tmp_path: Path) -> None:
    folder = hostile_profile(tmp_path / "profile", SCRIPT)
    page = tmp_path / "report.html"
    done = invoke("routing", "report", str(folder), "-o", str(page), "--svg", str(tmp_path / "svg"))
    assert done.code == 0, done.err
    text = page.read_text(encoding="utf-8")
    assert "steal()" in text  # the mark is in the page, as data
    safe(text, scripts=2)
    figures = list((tmp_path / "svg").glob("*.svg"))
    assert figures
    for figure in figures:
        assert not _Elements(figure.read_text(encoding="utf-8")).active
        assert "<script" not in figure.read_text(encoding="utf-8")


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two results folders whose labels, models and settings hold markup and codes of a terminal."""
    folders = []
    for number, name in enumerate(("a", "b")):
        rng = np.random.default_rng(number)
        folder = write_scores(
            tmp_path / name, {("xcopa", code): answers(rng, 30, 0.5) for code in ("eng_Latn", "swh_Latn")}
        )
        path = folder / "run.json"
        stored = json.loads(path.read_text())
        stored["label"] = f"{name}{SCRIPT}{TERMINAL}"
        stored["model"]["path"] = f"models/{SCRIPT}"
        path.write_text(json.dumps(stored))
        folders.append(str(folder))
    return folders


def test_a_comparison_shows_markup_as_text(runs: list[str], tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    done = invoke("compare", *runs, "--html", str(page))
    assert done.code == 0, done.err
    text = page.read_text(encoding="utf-8")
    assert "steal()" in text
    safe(text, scripts=2)


def test_markdown_of_a_comparison_holds_no_markup(runs: list[str]) -> None:
    done = invoke("compare", *runs, "--markdown")
    assert done.code == 0, done.err
    assert "steal()" in done.out
    assert not re.search(r"(?<!\\)<(script|img|a )", done.out)


def printable(done: Done) -> None:
    for stream in (done.out, done.err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", stream), stream


def test_a_terminal_gets_no_codes_from_data(runs: list[str], tmp_path: Path) -> None:
    done = invoke("compare", *runs)
    assert done.code == 0, done.err
    assert "owned" in done.out
    printable(done)
    folders = [hostile_profile(tmp_path / name, TERMINAL) for name in ("p", "q")]
    done = invoke("routing", "compare", *map(str, folders))
    assert done.code == 0, done.err
    printable(done)
    row = {**pairs()[0], "language": f"swh{TERMINAL}[/red]"}
    done = invoke("data", "check", str(write_rows(tmp_path / "rows.jsonl", [row])))
    assert "Traceback" not in done.err
    printable(done)


def test_markup_of_the_terminal_library_in_a_code_is_text(tmp_path: Path) -> None:
    folders = [hostile_profile(tmp_path / name, "[/nonsense] [red]") for name in ("p", "q")]
    done = invoke("routing", "compare", *map(str, folders))
    assert done.code == 0, done.err
    assert "[/nonsense]" in done.out


def test_a_data_card_holds_no_markup_of_rows(tmp_path: Path) -> None:
    row = {**pairs()[0], "source": SCRIPT + "|\n# heading", "license": SCRIPT}
    rows = write_rows(tmp_path / "rows.jsonl", [row])
    done = invoke("data", "pair", str(rows), "-o", str(tmp_path / "out.jsonl"))
    assert done.code == 0, done.err
    card = (tmp_path / "out.card.md").read_text(encoding="utf-8")
    assert "steal()" in card
    assert not re.search(r"(?<!\\)<(script|img|a )", card)
    assert "\n# heading" not in card


def test_a_card_takes_odd_names_of_files_and_languages(tmp_path: Path) -> None:
    output = tmp_path / f"out{SCRIPT.replace('/', '')}.jsonl"
    output.write_text("{}\n")
    card = write_card(
        output,
        written=output,
        title="Made",
        languages={"x: [y\nlicense: mit": 1},
        counts={},
        sources={f"`{SCRIPT}`\n\n# heading": "0" * 64},
        licences={},
        settings={"template": "```\n<script>"},
    ).read_text(encoding="utf-8")
    front, body = card.split("---\n", 2)[1:]
    assert "\nlicense: mit" not in front
    assert "\n# heading" not in body
    outside = re.sub(r"(`+).*?\1", "", body.partition("## Settings")[0], flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<(script|img|a )", outside)
