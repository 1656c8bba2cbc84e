from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer

from innerlingua.data import read_pairs
from innerlingua.data.asking import ModelSpec
from innerlingua.data.joining import pair
from innerlingua.data.translate import Quality, Translated, translate
from innerlingua.errors import DataError

Write = Callable[..., Path]

ROWS = [
    {
        "id": f"{number}",
        "language": "eng_Latn",
        "prompt": f"A farmer has {number} goats and buys 12 more goats. How many goats are there?",
        "completion": rf"There are {number} + 12 = {number + 12} goats in all: the answer is \boxed{{{number + 12}}}.",
        "answer": str(number + 12),
        "group": f"g{number}",
    }
    for number in range(3, 9)
]
_KEEP = re.compile(r"\\boxed\{[^{}]*\}|\\[a-z]+|[^A-Za-z\\]+|[A-Za-z]+|\\")
_LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz", "अबचदएफगहइजकलमनओपखरसतउवयक्षट"[:26], strict=False))


def devanagari(text: str) -> str:
    """A pretended translation: Latin words in Devanagari letters; numbers, LaTeX and signs as they are."""
    pieces = _KEEP.findall(text)
    return "".join(p if not p.isalpha() else "".join(_LETTERS.get(c, "अ") for c in p.lower()) for p in pieces)


def source_of(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"]).split("\n\n", 1)[1]


def good(body: dict[str, Any]) -> str:
    return devanagari(source_of(body))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(server: FaultServer, source: Path, out: Path, **options: Any) -> Translated:
    given = {"to": ["hin_Deva"], "identify": False, "quiet": True, **options}
    return translate([source], out, model=ModelSpec("tiny", url=server.url, attempts=3), **given)


def test_rows_that_survive_are_written_and_pair_with_their_anchors(write: Write, tmp_path: Path) -> None:
    source = write(ROWS, "verified.jsonl")
    with FaultServer(answer=good) as server:
        done = run(server, source, tmp_path / "t.jsonl", to=["hin_Deva", "npi_Deva"])
        assert server.requests == 24
        assert "from English to Nepali" in "".join(b["messages"][0]["content"] for b in server.bodies)
    assert done.languages == {"hin_Deva": 6, "npi_Deva": 6}
    assert (done.counts["asked"], done.counts["translated"], done.counts["set_aside"]) == (12, 12, 0)
    pair([done.path], tmp_path / "pairs.parquet", anchors=[source])
    pairs = read_pairs(tmp_path / "pairs.parquet").dataset
    assert len(pairs) == 12
    first = pairs[0]
    assert first["anchor_completion"] == ROWS[0]["completion"]
    assert r"\boxed{15}" in first["completion"]
    assert first["group"] == "g3"


def test_a_translation_that_fails_is_asked_again_warmer_with_another_seed(write: Write, tmp_path: Path) -> None:
    def second(body: dict[str, Any]) -> str:
        return good(body) if body["seed"] > 42 else "बकरी"

    with FaultServer(answer=second) as server:
        done = run(server, write(ROWS[:1]), tmp_path / "t.jsonl")
    draws = sorted((body["seed"], body["temperature"]) for body in server.bodies)
    assert draws == [(42, 0.0), (42, 0.0), (43, 0.7), (43, 0.7)]
    (row,) = rows_of(done.path)
    assert row["provenance"]["tries"] == {"prompt": 2, "completion": 2}


def test_what_never_survives_is_set_aside_with_the_reason(write: Write, tmp_path: Path) -> None:
    def changed(body: dict[str, Any]) -> str:
        return good(body).replace("15", "16")

    with FaultServer(answer=changed) as server:
        done = run(server, write(ROWS), tmp_path / "t.jsonl", tries=2)
    assert (done.counts["translated"], done.counts["set_aside"]) == (5, 1)
    (aside,) = rows_of(done.set_aside)
    assert (aside["id"], aside["language"]) == ("3", "hin_Deva")
    assert list(aside["reasons"]) == ["completion"]
    assert any("final answer lost: 15" in told for told in aside["reasons"]["completion"])
    assert done.reasons["final answer lost"] == 1


def test_a_copy_of_the_source_is_no_translation(write: Write, tmp_path: Path) -> None:
    with FaultServer(answer=source_of) as server:
        done = run(server, write(ROWS[:2]), tmp_path / "t.jsonl", to=["swh_Latn"], tries=1)
    assert done.counts["set_aside"] == 2
    assert done.reasons["untranslated"] == 2


def test_messages_are_translated_one_by_one(write: Write, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Where is the market?"}, {"role": "assistant", "content": "It is near."}]
    with FaultServer(answer=good) as server:
        done = run(server, write([{"id": "1", "messages": messages}]), tmp_path / "t.jsonl")
    (row,) = rows_of(done.path)
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    assert row["messages"][0]["content"] == devanagari("Where is the market?")


def test_quality_below_the_threshold_sets_aside(write: Write, tmp_path: Path) -> None:
    """The same small server plays the quality server: its path and its reply are ours to choose."""

    class QualityServer(FaultServer):
        async def _respond(self, head: str, body: dict[str, Any], writer: Any) -> bool:
            if "mt" not in body:
                return await super()._respond(head, body, writer)
            score = 0.9 if body["src"].startswith("A farmer has 3") or "3 + 12" in body["src"] else 0.1
            self._send(writer, "200", json.dumps({"score": score}).encode())
            return True

    with QualityServer(answer=good) as server:
        quality = Quality(server.url + "/score", 0.5)
        done = run(server, write(ROWS), tmp_path / "t.jsonl", quality=quality, tries=1)
    assert (done.counts["translated"], done.counts["set_aside"]) == (1, 5)
    (row,) = rows_of(done.path)
    assert row["provenance"]["scores"] == {"prompt": 0.9, "completion": 0.9}
    assert done.reasons == {"quality": 5}


def test_the_card_names_the_identifier_and_the_reasons(write: Write, tmp_path: Path) -> None:
    with FaultServer(answer=good) as server:
        done = run(server, write(ROWS[:2]), tmp_path / "t.jsonl", identify=True, tries=1)
    card = done.card.read_text(encoding="utf-8")
    assert "py3langid" in card
    assert "language identified" in card


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"prompt": "?"}], {}, "no column 'id'"),
        ([ROWS[0], ROWS[0]], {}, "the id occurs twice"),
        ([{"id": "1", "prompt": " ", "completion": "a"}], {}, "an empty text"),
        ([{"id": "1"}], {}, "no text to translate"),
        ([ROWS[0]], {"to": ["hindi"]}, r"did you mean hin_Deva \(Hindi\)"),
        ([ROWS[0]], {"template": "nothing"}, "no such template"),
    ],
)
def test_bad_input_is_named(
    write: Write, tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    with FaultServer() as server, pytest.raises(DataError, match=message):
        run(server, write(rows), tmp_path / "t.jsonl", **options)


def test_a_template_from_a_file_keeps_its_braces(write: Write, tmp_path: Path) -> None:
    template = tmp_path / "mine.txt"
    template.write_text("Say {text} in {target_language}; keep \\boxed{} and {this}.\n")
    with FaultServer(answer=lambda body: "x") as server:
        run(server, write([{"id": "1", "text": "a {target_language} b"}]), tmp_path / "t.jsonl", template=str(template))
        asked = server.bodies[0]["messages"][0]["content"]
    assert asked == "Say a {target_language} b in Hindi; keep \\boxed{} and {this}."
