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
from innerlingua.data.quality import Quality
from innerlingua.data.translate import Translated, translate
from innerlingua.data.work import read_key
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


def test_what_was_set_aside_is_asked_anew_with_other_draws_when_told(write: Write, tmp_path: Path) -> None:
    def fourth(body: dict[str, Any]) -> str:
        return good(body) if body["seed"] >= 45 or "3 goats" not in source_of(body) else "बकरी"

    source, out = write(ROWS[:2]), tmp_path / "t.jsonl"
    with FaultServer(answer=fourth) as server:
        done = run(server, source, out, tries=2)
        assert (done.counts["translated"], done.counts["set_aside"], server.requests) == (1, 1, 5)
        # The same command again asks for nothing: checks that fail are answers, too.
        assert run(server, source, out, tries=2, overwrite=True).counts["set_aside"] == 1
        assert server.requests == 5
        done = run(server, source, out, tries=2, retry_failed=True)
        assert [body["seed"] for body in server.bodies[5:]] == [44, 45]
        assert {body["temperature"] for body in server.bodies[5:]} == {0.7}
        assert (done.counts["translated"], done.counts["set_aside"]) == (2, 0)
        run(server, source, out, tries=2, retry_failed=True)
        assert server.requests == 7
    first = rows_of(out)[0]
    assert first["provenance"]["tries"] == {"prompt": 4, "completion": 1}
    assert first["provenance"]["drawn"]["prompt"] == {"temperature": 0.7, "seed": 45}
    assert rows_of(done.set_aside) == []


def test_retries_replace_only_what_their_own_journal_made(write: Write, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("mine")
    with FaultServer(answer=good) as server, pytest.raises(DataError, match="exists already"):
        run(server, write(ROWS[:1]), tmp_path / "t.jsonl", retry_failed=True)
    assert (tmp_path / "t.jsonl").read_text() == "mine"


def test_a_round_of_retries_that_was_broken_off_goes_on(write: Write, tmp_path: Path) -> None:
    source, out = write(ROWS[:1]), tmp_path / "t.jsonl"
    with FaultServer(answer=lambda body: "बकरी") as server:
        run(server, source, out, tries=1)
    with FaultServer(script=lambda number, seen: "404") as server, pytest.raises(DataError, match="Check --url"):
        run(server, source, out, tries=1, retry_failed=True)
    with FaultServer(answer=good) as server:
        assert run(server, source, out, tries=1, overwrite=True).counts["translated"] == 1
        assert sorted(body["seed"] for body in server.bodies) == [43, 43]


def test_a_run_can_grow_by_rows_and_languages(write: Write, tmp_path: Path) -> None:
    source, out = write(ROWS), tmp_path / "t.jsonl"
    with FaultServer(answer=good) as server:
        assert run(server, source, out, limit=1).counts["translated"] == 1
        assert run(server, source, out, limit=4, overwrite=True).counts["translated"] == 4
        assert server.requests == 8
        done = run(server, source, out, to=["npi_Deva", "hin_Deva"], limit=2, overwrite=True)
        assert (done.languages, server.requests) == ({"npi_Deva": 2, "hin_Deva": 2}, 12)


def test_a_server_that_lies_about_its_model_stops_the_work_and_what_is_done_is_kept(
    write: Write, tmp_path: Path
) -> None:
    source, out = write(ROWS), tmp_path / "t.jsonl"
    with FaultServer(answer=good, script=lambda number, seen: "wrong_model" if number == 8 else None) as server:
        with pytest.raises(DataError, match="answers as 'another' where 'tiny' was asked for"):
            run(server, source, out)
        assert not out.exists()
        assert run(server, source, out).counts["translated"] == 6


def test_replies_that_name_no_model_are_counted(write: Write, tmp_path: Path) -> None:
    with FaultServer(answer=good, script=lambda number, seen: "no_model" if number < 3 else None) as server:
        done = run(server, write(ROWS), tmp_path / "t.jsonl")
    assert done.counts["replies_without_model"] == 3
    assert "| replies without model | 3 |" in done.card.read_text(encoding="utf-8")


def test_source_and_licence_go_with_the_row_and_into_the_card(write: Write, tmp_path: Path) -> None:
    rows = [{**ROWS[0], "source": "GSM8K"}, {**ROWS[1], "source": "own", "license": "CC-BY-NC-4.0"}, ROWS[2]]
    source, out = write(rows), tmp_path / "t.jsonl"
    with FaultServer(answer=good) as server:
        with pytest.raises(DataError, match=r"line 2: a row for non-commercial use only \(CC-BY-NC-4\.0\).*--non-comm"):
            run(server, source, out)
        assert server.requests == 0
        done = run(server, source, out, non_commercial="drop")
        assert (done.counts["translated"], done.counts["left_out_non_commercial"]) == (2, 1)
        run(server, source, out, non_commercial="keep", overwrite=True)
    kept = rows_of(out)
    assert [(row.get("source"), row.get("license")) for row in kept] == [
        ("GSM8K", "MIT"),
        ("own", "CC-BY-NC-4.0"),
        (None, None),
    ]
    assert kept[0]["provenance"]["translated_from"]["license"] == "MIT"
    card = done.card.read_text(encoding="utf-8")
    assert "| GSM8K | MIT | 1 |" in card
    assert "| not stated | not stated | 1 |" in card
    assert "1 row that went in is for non-commercial use only" in card


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

    key = tmp_path / "key"
    key.write_text("sk-quality-1")
    with QualityServer(answer=good) as server:
        quality = Quality(server.url + "/score", 0.5, read_key(file=key))
        done = run(server, write(ROWS), tmp_path / "t.jsonl", quality=quality, tries=1)
        with_key = ["sk-quality-1" in head for head in server.headers]
        assert with_key == ["mt" in body for body in server.bodies]  # and to nobody else
    assert "sk-quality-1" not in done.journal.read_text(encoding="utf-8") + done.card.read_text(encoding="utf-8")
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
        ([{"id": "1", "prompt": " ", "completion": "a"}], {}, "prompt is empty"),
        ([{"id": "1"}], {}, "no text to translate"),
        ([ROWS[0]], {"to": ["hindi"]}, r"did you mean hin_Deva \(Hindi\)"),
        ([ROWS[0]], {"template": "nothing"}, "no such template"),
        ([ROWS[0]], {"to": ["eng_Latn"]}, "all rows are in eng_Latn already"),
        ([], {}, "no rows"),
        ([], {"to": ["swh_Latn", "hin_Deva"]}, "no rows"),
        ([ROWS[0]], {"limit": 0}, "--limit 0: at least 1"),
        ([ROWS[0]], {"restart": True, "retry_failed": True}, "give one of them"),
        ([{"id": 1.5, "text": "a"}], {}, "id must be text"),
        ([{"id": "1", "instruction": "a"}], {}, "its columns: id, instruction"),
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
