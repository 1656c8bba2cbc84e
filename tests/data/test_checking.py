from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from rich.console import Console

from innerlingua.data import PACK_VARIABLE
from innerlingua.data.checking import check_pairs, render
from innerlingua.data.checking.grams import hash_words, shares_of_runs, windows
from innerlingua.data.checking.near import group_alike, signatures
from innerlingua.data.scripts import UNSPACED, code_points, script_share, script_shares
from innerlingua.errors import DataError

Write = Callable[..., Path]
ENGLISH = "the old ferry crosses the wide river every morning before the first market bell rings in town"
SWAHILI = "kivuko cha zamani huvuka mto mpana kila asubuhi kabla ya kengele ya kwanza ya soko kulia mjini"


def row(number: int, text: str = "", anchor: str = "", **more: Any) -> dict[str, Any]:
    base = {"id": f"r{number}", "language": "swh_Latn", "text": text or f"{SWAHILI} {number}"}
    return {**base, "anchor_text": anchor or f"{ENGLISH} {number}", **more}


def test_windows_are_equal_exactly_where_the_words_are() -> None:
    words = hash_words(["a b c d", "b c d e", "x"])
    hashes, owner = windows(words, 3)
    assert owner.tolist() == [0, 0, 1, 1]
    assert hashes[1] == hashes[2]
    assert len(set(hashes.tolist())) == 3


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert hash_words(["你好 世界", "สวัสดี", "नमस्ते दुनिया", "Mtu, 3!"]).lengths.tolist() == [4, 4, 2, 2]


@pytest.mark.parametrize("shared", [0.2, 0.5, 0.8])
def test_signatures_estimate_the_jaccard_index(shared: float) -> None:
    rng = random.Random(1)
    estimates = []
    for _ in range(40):
        common = [f"w{rng.random()}" for _ in range(200)]
        count = round(200 * shared)
        first = common[:count] + [f"a{rng.random()}" for _ in range(200 - count)]
        second = common[:count] + [f"b{rng.random()}" for _ in range(200 - count)]
        signed = signatures(hash_words([" ".join(first), " ".join(second)]))
        estimates.append((signed[0] == signed[1]).mean())
    grams = 196
    both = round(200 * shared) - 4
    truth = both / (2 * grams - both)
    assert np.mean(estimates) == pytest.approx(truth, abs=4 * np.sqrt(truth * (1 - truth) / 64 / 40))


def test_alike_texts_form_groups_with_their_first_member() -> None:
    rng = random.Random(2)
    base = [f"word{i}" for i in range(60)]
    other = [f"else{rng.random()}" for _ in range(60)]
    texts = [" ".join(base), " ".join(other), " ".join([*base[:-1], "changed"]), " ".join(other), "alone"]
    assert group_alike(signatures(hash_words(texts)), 0.7).tolist() == [0, 1, 0, 1, 4]


def test_every_fault_is_counted_once_and_placed(write: Write) -> None:
    rows = [
        row(0),
        row(1, text="completely different words stand here and nothing of them is anywhere else in this set"),
        row(2, text="   "),
        row(
            3,
            anchor="the very same text on both sides of this pair",
            text="the very same text on both sides of this pair",
        ),
        row(4, text=f"ni {ENGLISH}", anchor=ENGLISH),
        row(5, text=SWAHILI + " tena"),
        row(6, text=SWAHILI + " tena"),
        row(7, text="maneno haya ni ya lugha nyingine kabisa", language="hin_Deva"),
        {k: v for k, v in row(8, text="bila nanga kabisa hapa").items() if k != "anchor_text"},
        row(0, text="kitambulisho kilekile tena hapa chini"),
    ]
    report = check_pairs(write(rows))
    swahili, hindi = report.languages["swh_Latn"], report.languages["hin_Deva"]
    assert report.rows == 10
    assert (swahili.rows, hindi.rows) == (9, 1)
    assert (swahili.empty, swahili.same_as_anchor, swahili.untranslated) == (1, 1, 1)
    assert (swahili.duplicates, swahili.near_duplicates) == (1, 1)
    assert (swahili.without_anchor, hindi.wrong_script) == (1, 1)
    assert report.id_collisions == 1
    assert report.examples["empty"] == [f"{report.sources[0]}, line 3 (id 'r2')"]


def overlap(write: Write, rows: list[dict[str, Any]], tests: list[dict[str, Any]]) -> Any:
    path = write(tests, "tests.jsonl")
    return check_pairs(write(rows, "rows.jsonl"), tests=[path]).overlap[str(path)]


WORDS = [f"w{i}" for i in range(40)]


@pytest.mark.parametrize(("shared", "found"), [(12, 0), (13, 1), (14, 1)])
def test_overlap_needs_thirteen_words_of_the_anchor(write: Write, shared: int, found: int) -> None:
    anchor = " ".join(["x", *WORDS[:shared], "y", "z"])
    test = {"id": "t", "lang": "eng_Latn", "question": " ".join(["p", *WORDS[:shared], "q"])}
    result = overlap(write, [row(1, anchor=anchor)], [test])
    assert (result.overlapping, result.not_checkable) == (found, 0)


def test_overlap_crosses_languages_through_the_english_side(write: Write) -> None:
    test = {"id": "t", "items": {"eng_Latn": {"passage": " ".join(WORDS)}, "swh_Latn": {"passage": "kitu kingine"}}}
    result = overlap(write, [row(1, anchor=" ".join(WORDS[10:30]))], [test])
    assert result.by == {"13-gram": 1}
    assert result.languages == {"swh_Latn": 1}


@pytest.mark.parametrize("name", ["eng_Latn", "eng", "en", "English", None])
def test_english_is_known_by_the_names_that_evaluation_sets_give_it(write: Write, name: str | None) -> None:
    tests = [{"id": "t", "language": name, "question": " ".join(WORDS)}]
    assert overlap(write, [row(1, anchor=" ".join(WORDS))], tests).by == {"13-gram": 1}
    if name is not None:
        tests = [{"id": "t", "question": {name: " ".join(WORDS), "fr": "autre chose"}}]
        assert overlap(write, [row(1, anchor=" ".join(WORDS))], tests).by == {"13-gram": 1}


@pytest.mark.parametrize(("length", "found"), [(7, 0), (8, 1), (12, 1)])
def test_a_short_text_is_found_whole_inside_a_longer_one(write: Write, length: int, found: int) -> None:
    short, long = " ".join(WORDS[5 : 5 + length]), " ".join(WORDS)
    ours = overlap(write, [row(1, anchor=short)], [{"id": "t", "lang": "eng_Latn", "question": long}])
    theirs = overlap(write, [row(1, anchor=long)], [{"id": "t", "lang": "eng_Latn", "question": short}])
    assert (ours.overlapping, theirs.overlapping) == (found, found)


def test_shared_ids_and_groups_overlap(write: Write) -> None:
    tests = [{"id": "r1", "group": "g1", "question": "?"}, {"id": "t", "group": "g2", "question": "?"}]
    result = overlap(write, [row(1), row(2, group="g2"), row(3, group="g3")], tests)
    assert result.by == {"id": 1, "group": 1}


def test_a_row_with_nothing_to_compare_is_not_checkable(write: Write) -> None:
    bare = {"id": "a", "language": "swh_Latn", "text": SWAHILI}
    tests = [{"id": "t", "group": "g", "lang": "eng_Latn", "question": ENGLISH}]
    assert overlap(write, [bare], tests).not_checkable == 1
    assert overlap(write, [{**bare, "group": "h"}], tests).not_checkable == 0
    assert overlap(write, [row(1)], tests).not_checkable == 0
    assert overlap(write, [row(1)], [{"id": "t", "language": "swh_Latn", "text": SWAHILI}]).not_checkable == 1


def test_a_template_of_many_groups_is_no_overlap(write: Write) -> None:
    template = " ".join(WORDS[:20])
    tests = [{"id": f"t{i}", "lang": "eng_Latn", "question": f"{template} {i}"} for i in range(11)]
    assert overlap(write, [row(1, anchor=template)], tests[:10]).overlapping == 1
    result = overlap(write, [row(1, anchor=template)], tests)
    assert result.overlapping == 0
    assert result.templates > 0


def test_the_packs_questions_with_several_answers_are_compared(write: Write) -> None:
    """XQuAD and AfriQA: the English side of a question stands in `items`, or in a question by language."""
    if PACK_VARIABLE not in os.environ:
        pytest.skip(f"{PACK_VARIABLE} is not set")
    pack = Path(os.environ[PACK_VARIABLE]) / "mcq"
    for name, share in (("xquad", 0.99), ("afriqa", 0.6)):
        tests = pack / f"{name}.jsonl.gz"
        with gzip.open(tests, "rt", encoding="utf-8") as stream:
            items = [json.loads(line) for line in stream]
        asked = [
            i["items"]["eng_Latn"]["question"] if "items" in i else i["question"].get("eng_Latn") for i in items[:400]
        ]
        rows = [row(n, anchor=text, text=f"swali {n}") for n, text in enumerate(asked) if text is not None]
        found = check_pairs(write(rows), tests=[tests]).overlap[str(tests)]
        assert found.overlapping >= share * sum(len(r["anchor_text"].split()) >= 6 for r in rows)
        assert found.test_rows == len(items)


def test_thirteen_grams_find_what_the_groups_of_real_data_say(tmp_path: Path) -> None:
    """SIB-200 holds FLORES sentences, Belebele passages of the same; the pack's groups say which belong together."""
    if PACK_VARIABLE not in os.environ:
        pytest.skip(f"{PACK_VARIABLE} is not set")
    pack = Path(os.environ[PACK_VARIABLE])
    tests = pack / "mcq" / "belebele.jsonl.gz"
    by_group = tmp_path / "grouped.jsonl"
    bare = tmp_path / "bare.jsonl"
    with gzip.open(pack / "parallel" / "sib200.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    for path, keep in ((by_group, True), (bare, False)):
        with path.open("w", encoding="utf-8") as out:
            for item in rows:
                text = {code: item["text"][code] for code in ("eng_Latn", "swh_Latn")}
                made = {"id": item["id"], "text": text, **({"group": item["group"]} if keep else {})}
                out.write(json.dumps(made, ensure_ascii=False) + "\n")
    grouped = check_pairs(by_group, tests=[tests]).overlap[str(tests)].by["group"]
    found = check_pairs(bare, tests=[tests]).overlap[str(tests)].overlapping
    assert found >= 0.97 * grouped


def test_the_summary_names_languages_and_faults_in_eighty_columns(write: Write, tmp_path: Path) -> None:
    faults = [row(1, text=" "), row(2, text=f"ni {ENGLISH}", anchor=ENGLISH), row(3, license="CC-BY-NC-4.0"), row(3)]
    hindi = [row(n, text=f"{SWAHILI} {n % 2}", language="hin_Deva") for n in range(4, 8)]
    alike = [row(8, text=ENGLISH, anchor=ENGLISH), row(9, text=f"{SWAHILI} leo {SWAHILI}")]
    bare = {"id": "r10", "language": "swh_Latn", "text": "maneno"}
    tests = write([{"id": "r1", "lang": "eng_Latn", "question": ENGLISH}], "tests.jsonl")
    report = check_pairs(write([row(0), *faults, *hindi, *alike, bare]), tests=[tests])
    assert all(getattr(report.languages["swh_Latn"], name) for name in ("empty", "untranslated", "same_as_anchor"))
    console = Console(record=True, width=80)
    console.print(render(report))
    text = console.export_text()
    table = [line for line in text.splitlines() if line.strip().startswith(("swh_Latn", "hin_Deva"))]
    assert len(table) == 4  # nothing of a table is wrapped or cut
    assert max(map(len, text.splitlines())) <= 80
    assert not any("…" in line for line in text.splitlines())
    words = " ".join(text.split())
    assert "12 rows in 2 languages from" in words
    assert "(id 'r1')" in words
    assert "overlap with tests.jsonl (1 row): 11, by 13-gram 10, id 1" in words
    assert "licences: CC-BY-NC-4.0 (non-commercial) 1, not stated 11" in words
    assert "1 id that collides" in words


@pytest.mark.parametrize("content", [None, b"{}", b"\xff\xfe", b'{"a": 1}'])
def test_what_is_no_tokenizer_is_named(write: Write, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"--tokenizer .*tokenizer\.json.*leave --tokenizer out"):
        check_pairs(write([row(0)]), tokenizer=path)


def test_words_are_those_of_the_regular_expression() -> None:
    """The same words, found one text at a time by their definition."""
    unspaced = "".join(rf"\p{{Script={name}}}" for name in UNSPACED)
    pattern = regex.compile(rf"[{unspaced}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{Nd}}]--[{unspaced}]]+", regex.V1)
    rng = random.Random(3)
    alphabet = "aBßé́ ก่ไ中々x9,.\u0301\u0e48कि\u093fに゛ゝ𠀀İ \n_-"
    texts = ["", *("".join(rng.choices(alphabet, k=rng.randint(0, 12))) for _ in range(3000)), ""]
    found = hash_words(texts)
    words = [pattern.findall(text.casefold()) for text in texts]
    assert found.lengths.tolist() == [len(listed) for listed in words]
    flat = [word for listed in words for word in listed]
    assert len(set(zip(flat, found.hashes.tolist(), strict=True))) == len(set(flat)) == len(set(found.hashes.tolist()))


def test_long_texts_are_hashed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{SWAHILI} {n}" for n in range(50)]
    whole = hash_words(texts)
    monkeypatch.setattr("innerlingua.data.checking.grams._CHUNK", 300)
    pieces = hash_words(texts)
    assert pieces.hashes.tolist() == whole.hashes.tolist()
    assert pieces.lengths.tolist() == whole.lengths.tolist()


def test_the_share_of_runs_is_taken_within_a_text_and_its_partner() -> None:
    words = hash_words(["a b c d", "a b c x", "a b", "p q r s"])
    others = hash_words(["y a b c", "p q r s"])
    shares = shares_of_runs(words, others, np.array([1, 2]), 2)
    assert shares.tolist() == pytest.approx([0, 2 / 3, 0, 0])


def test_script_shares_are_those_of_one_text_at_a_time() -> None:
    texts = ["", "123", "mto नदी", "नदी", "中文 mto", "に 中 a", "ナ゛"]
    for script in ("Deva", "Jpan", "Hans", "Latn", "Xxxx"):
        shares = script_shares(code_points(texts), script)
        expected = [script_share(text, script) for text in texts]
        assert [None if np.isnan(share) else share for share in shares.tolist()] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language": ["swh_Latn"]}, r"line 2: language must be text, not \['swh_Latn'\]"),
        ({"spans": [[0, 9000, 0, 1]]}, r"line 2: spans\[0\] has \[0, 9000\)"),
        ({"group": 1.5}, "line 2: group must be text"),
        ({"text": None, "anchor_text": None, "messages": [], "anchor_messages": []}, "line 2: messages, where .* text"),
    ],
)
def test_what_training_would_refuse_is_refused(write: Write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_pairs(write([row(0), {**row(1), **changes}]))


@pytest.mark.parametrize("near", [0, 1.5])
def test_a_likeness_outside_its_range_is_refused(write: Write, near: float) -> None:
    with pytest.raises(DataError, match=r"--near .*: a likeness"):
        check_pairs(write([row(0)]), near=near)
