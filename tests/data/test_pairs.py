from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, IterableDataset

from innerlingua.data import LANGUAGES, read_pairs
from innerlingua.errors import DataError

Write = Callable[..., Path]
Pair = Callable[..., dict[str, Any]]

TALK = [{"role": "user", "content": "Soko liko wapi?"}, {"role": "assistant", "content": "Karibu na mto."}]
ANCHOR_TALK = [{"role": "user", "content": "Where is the market?"}, {"role": "assistant", "content": "By the river."}]
CONTENTS: dict[str, dict[str, Any]] = {
    "text": {"text": "Soko liko wapi?", "anchor_text": "Where is the market?"},
    "plain prompt": {
        "prompt": "Soko?",
        "completion": " Karibu na mto.",
        "anchor_prompt": "Market?",
        "anchor_completion": " By the river.",
    },
    "messages prompt": {
        "prompt": TALK[:1],
        "completion": TALK[1:],
        "anchor_prompt": ANCHOR_TALK[:1],
        "anchor_completion": ANCHOR_TALK[1:],
    },
    "messages": {"messages": TALK, "anchor_messages": ANCHOR_TALK},
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_rows_come_back_as_they_were_written(kind: str, write: Write) -> None:
    row = {"id": "m1", "language": "swh_Latn", **CONTENTS[kind]}
    assert read_pairs(write([row])).dataset[0] == {**row, "anchor_language": "eng_Latn"}


def test_all_formats_give_the_same_rows(write: Write, pair: Pair, tmp_path: Path) -> None:
    rows = [pair(id=str(n), group=f"g{n % 2}", spans=[[0, 3, 4, 9]]) for n in range(5)]
    plain = write(rows)
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows[:1])}).save_to_disk(
        tmp_path / "splits"
    )
    expected = read_pairs(plain).dataset.to_list()
    assert expected[3]["group"] == "g1"
    assert expected[3]["spans"] == [[0, 3, 4, 9]]
    sources: list[Any] = [packed, tmp_path / "rows.parquet", tmp_path / "saved", f"{tmp_path / 'splits'}:train"]
    for source in [*sources, Dataset.from_list(rows), Dataset.from_list(rows[::-1]).select([4, 3, 2, 1, 0])]:
        assert read_pairs(source).dataset.to_list() == expected


def test_several_files_are_joined_in_order(write: Write, pair: Pair) -> None:
    one = write([pair(id="a")], "one.jsonl")
    two = write([pair(id="b"), pair(id="a", language="hin_Deva")], "two.json")
    pairs = read_pairs([one, str(two)])
    assert pairs.dataset["id"][:] == ["a", "b", "a"]
    assert pairs.sources == [str(one), str(two)]


def test_more_rows_than_one_batch_keep_their_order(write: Write, pair: Pair) -> None:
    rows = [pair(id=str(n)) for n in range(12_345)]
    dataset = read_pairs(write(rows)).dataset
    assert dataset["id"][:] == [str(n) for n in range(12_345)]


def test_integer_ids_become_text(write: Write, pair: Pair) -> None:
    assert read_pairs(write([pair(id=7)])).dataset["id"][:] == ["7"]


def test_columns_of_the_user_are_left_out_and_named(write: Write, pair: Pair) -> None:
    pairs = read_pairs(write([pair(source="own", licence="CC0")]))
    assert pairs.ignored_columns == ["licence", "source"]
    assert set(pairs.dataset.column_names) == {"id", "language", "anchor_language", "text", "anchor_text"}


def test_a_language_outside_the_table_can_be_added(write: Write, pair: Pair) -> None:
    path = write([pair(language="hlt_Latn")])
    assert len(read_pairs(path, languages={"hlt_Latn": "Matu Chin"}).dataset) == 1


def test_the_table_has_all_204_languages_of_flores_200() -> None:
    assert len(LANGUAGES) == 204
    assert all(re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", code) for code in LANGUAGES)
    assert len(set(LANGUAGES.values())) == 204


def test_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(pair()).encode() + b"\n\n")
    assert read_pairs(path).counts["read"] == 1


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"id": None}, r"pairs.jsonl, line 2: no column 'id'"),
    ({"id": None, "identity": "x"}, r"line 2: no column 'id'"),
    ({"id": 1.5}, r"line 2: id must be text \(or an integer\), not 1.5"),
    ({"id": True}, r"line 2: id must be text \(or an integer\), not True"),
    ({"id": " "}, r"line 2: id is empty"),
    ({"language": None}, r"line 2: no column 'language' .* FLORES-200 code, such as swh_Latn"),
    ({"language": None, "lang": "swh_Latn"}, r"line 2: no column 'language' .*the row has 'lang': rename it"),
    ({"language": None, "langauge": "swh_Latn"}, r"line 2: unknown column 'langauge'; did you mean 'language'\?"),
    ({"language": 3}, r"line 2 \(id '2'\): language must be text, not 3"),
    ({"language": "swh_Lat"}, r"line 2 \(id '2'\): unknown language 'swh_Lat'; did you mean swh_Latn \(Swahili\)\?"),
    ({"language": "Swahili"}, r"unknown language 'Swahili'; did you mean swh_Latn \(Swahili\)\?"),
    ({"language": "npi_Latn"}, r"unknown language 'npi_Latn'; did you mean npi_Deva \(Nepali\)\?"),
    ({"language": "xx"}, r"unknown language 'xx'; such as swh_Latn"),
    ({"anchor_language": "eng_Ltn"}, r"line 2 \(id '2'\), anchor_language: unknown language 'eng_Ltn'.*eng_Latn"),
    ({"text": 5}, r"line 2 \(id '2'\): text must be text, not a number \(5\)"),
    ({"anchor_text": ["a"]}, r"line 2 \(id '2'\): anchor_text must be text, not a list"),
    ({"text": None}, r"line 2: no content. A row needs text, or prompt and completion, or messages. Its columns: "),
    ({"text": None, "texts": "a"}, r"line 2: unknown column 'texts'; did you mean 'text'\?"),
    ({"anchr_text": "a", "anchor_text": None}, r"line 2: unknown column 'anchr_text'; did you mean 'anchor_text'\?"),
    ({"anchor_translation": "a"}, r"line 2: unknown column 'anchor_translation'; .*anchor_text"),
    ({"tools": []}, r"line 2: column 'tools': rows with tools are not supported"),
    ({"messages": TALK}, r"line 2: text and messages in one row. Keep one form"),
    ({"text": None, "anchor_text": None, "prompt": "a"}, r"line 2: no column 'completion' \(or it is null\)"),
    ({"anchor_text": None, "anchor_prompt": "a"}, r"line 2: the anchor has anchor_prompt where the target has text"),
    ({"text": "  "}, r"line 2 \(id '2'\): the target is empty. .*empty: drop"),
    ({"anchor_text": ""}, r"line 2 \(id '2'\): the anchor is empty"),
    ({"anchor_text": None}, r"line 2 \(id '2'\): no anchor. .*missing_anchor: drop"),
    ({"text": "Same.", "anchor_text": "Same."}, r"line 2 \(id '2'\): the target equals its anchor"),
    ({"id": "1"}, r"line 2 \(id '1'\): the id occurs twice in swh_Latn, first at .*pairs.jsonl, line 1"),
    ({"id": "1", "language": "hin_Deva", "anchor_text": "Other."}, r"line 2 .*another anchor than at .*jsonl, line 1"),
    ({"id": "1", "language": "hin_Deva", "anchor_language": "fra_Latn"}, r"another anchor than at .*jsonl, line 1"),
    ({"group": 4.5}, r"line 2 \(id '2'\): group must be text .*, not 4.5"),
    ({"spans": [[0, 3, 0]]}, r"line 2 \(id '2'\): spans\[0\] is \[0, 3, 0\]; it must be four integers"),
    ({"spans": [[0, 3, 0, 1.0]]}, r"spans\[0\] is \[0, 3, 0, 1.0\]; it must be four integers"),
    ({"spans": [[3, 3, 0, 2]]}, r"spans\[0\] has \[3, 3\) on the target side, whose text has 32 characters"),
    ({"spans": [[0, 3, 0, 99]]}, r"spans\[0\] has \[0, 99\) on the anchor side, whose text has 40 characters"),
    ({"spans": [[5, 8, 0, 2], [0, 6, 4, 5]]}, r"spans\[1\] and spans\[0\] overlap on the target side"),
    ({"spans": [[0, 2, 0, 4], [2, 6, 3, 5]]}, r"spans\[0\] and spans\[1\] overlap on the anchor side"),
    ({"spans": [[0, 1, 0, 1]], "anchor_text": None}, r"line 2 \(id '2'\): spans in a row without an anchor"),
    ({"spans": "0-3"}, r"line 2 \(id '2'\): spans must be a list"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_ROWS, ids=[message[:60] for _, message in BAD_ROWS])
def test_a_bad_row_is_named_with_file_line_and_id(
    changes: dict[str, Any], message: str, write: Write, pair: Pair
) -> None:
    path = write([pair(), pair(**{"id": "2", **changes})])
    with pytest.raises(DataError, match=message):
        read_pairs(path)


BAD_MESSAGES: list[tuple[Any, str]] = [
    ("text", r"messages must be a list of messages, not text"),
    (["text"], r"messages\[0\] must be an object with role and content, not text"),
    ([{"role": "user"}], r"messages\[0\].content must be text, not null"),
    ([*TALK, {"content": "x"}], r"messages\[2\].role must be text, not null"),
    ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\].content must be text, not a list"),
    ([{"role": "user", "content": "x", "tool_calls": []}], r"messages\[0\] has tool_calls; messages carry role and"),
    ([], r"the target is empty"),
    ([TALK[0], {"role": "assistant", "content": " "}], r"the target is empty"),
]


@pytest.mark.parametrize(("messages", "message"), BAD_MESSAGES)
def test_bad_messages_are_named_by_their_place(messages: Any, message: str, write: Write) -> None:
    path = write([{"id": "1", "language": "swh_Latn", "messages": messages, "anchor_messages": ANCHOR_TALK}])
    with pytest.raises(DataError, match=rf"line 1 \(id '1'\): {message}"):
        read_pairs(path)


def test_the_two_sides_need_the_same_form(write: Write) -> None:
    row = {"id": "1", "language": "swh_Latn", "prompt": TALK[:1], "completion": TALK[1:]}
    path = write([{**row, "anchor_prompt": "a", "anchor_completion": "b"}])
    with pytest.raises(
        DataError, match=r"target has prompt and completion \(lists of messages\) and the anchor prompt"
    ):
        read_pairs(path)


def test_prompt_and_completion_need_one_form(write: Write) -> None:
    path = write([{"id": "1", "language": "swh_Latn", "prompt": TALK[:1], "completion": "b"}])
    with pytest.raises(DataError, match="prompt and completion must be both text or both lists of messages"):
        read_pairs(path, missing_anchor="keep")


def test_spans_need_an_assistant_message(write: Write) -> None:
    row = {"id": "1", "language": "swh_Latn", "messages": TALK[:1], "anchor_messages": ANCHOR_TALK}
    with pytest.raises(DataError, match="no assistant message on the target side"):
        read_pairs(write([{**row, "spans": [[0, 1, 0, 1]]}]))


def test_forms_of_content_cannot_be_mixed(write: Write, pair: Pair) -> None:
    texts = write([pair()], "texts.jsonl")
    talks = write([{"id": "2", "language": "swh_Latn", **CONTENTS["messages"]}], "talks.jsonl")
    with pytest.raises(
        DataError, match=r"talks.jsonl, line 1 \(id '2'\): messages, where .*texts.jsonl, line 1 has text"
    ):
        read_pairs([texts, talks])


POLICIES = [
    ("missing_anchor", {"anchor_text": None}, "dropped_missing_anchor"),
    ("same_as_anchor", {"text": "Same.", "anchor_text": "Same."}, "dropped_same_as_anchor"),
    ("empty", {"text": ""}, "dropped_empty"),
    ("duplicate", {"id": "1", "text": "Another text."}, "dropped_duplicate"),
]


@pytest.mark.parametrize(("policy", "changes", "count"), POLICIES, ids=[policy for policy, *_ in POLICIES])
def test_drop_leaves_the_row_out_and_counts_it(
    policy: str, changes: dict[str, Any], count: str, write: Write, pair: Pair
) -> None:
    path = write([pair(), pair(**{"id": "2", **changes}), pair(id="3")])
    options: dict[str, Any] = {policy: "drop"}
    pairs = read_pairs(path, **options)
    assert pairs.dataset["id"][:] == ["1", "3"]
    assert pairs.counts[count] == 1
    assert {"read": 3, "kept": 2}.items() <= pairs.counts.items()


def test_what_was_read_is_what_was_kept_and_dropped(write: Write, pair: Pair) -> None:
    changes = [change for _, change, _ in POLICIES for _ in range(3)]
    path = write([pair(), *(pair(**{"id": f"n{n}", **change}) for n, change in enumerate(changes))])
    counts = read_pairs(path, missing_anchor="keep", same_as_anchor="keep", empty="drop", duplicate="drop").counts
    assert counts["read"] == 13
    assert counts["kept"] == 7
    assert counts["read"] == counts["kept"] + sum(n for name, n in counts.items() if name.startswith("dropped_"))
    assert (counts["kept_without_anchor"], counts["kept_same_as_anchor"]) == (3, 3)


def test_rows_without_anchors_are_plain_rows_when_kept(write: Write, pair: Pair) -> None:
    dataset = read_pairs(write([pair(anchor_text=None), pair(id="2")]), missing_anchor="keep").dataset
    assert dataset["anchor_text"][0] is None
    assert dataset["anchor_language"][:] == [None, "eng_Latn"]


def test_no_row_left_is_an_error_with_counts(write: Write, pair: Pair) -> None:
    path = write([pair(anchor_text=None)])
    with pytest.raises(DataError, match=r"no row left of 1 row read \(dropped_missing_anchor 1\)"):
        read_pairs(path, missing_anchor="drop")


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(DataError, match=r"none.jsonl: no rows; the file is empty"):
        read_pairs(tmp_path / "none.jsonl")


def test_an_unknown_policy_is_named(write: Write, pair: Pair) -> None:
    with pytest.raises(DataError, match="missing_anchor: 'kep' is no policy; did you mean 'keep'"):
        read_pairs(write([pair()]), missing_anchor="kep")  # type: ignore[arg-type]


BAD_LINES = [
    (b'{"id": "2", ', r"bad.jsonl, line 2: broken JSON: the line ends at column 11 before its object does"),
    (b'{"id": "2', r"bad.jsonl, line 2: broken JSON: the line ends at column 9 before its object does"),
    (b'{"id": "2" "a": 1}', r"bad.jsonl, line 2: broken JSON at column 12: Expecting ','"),
    (b"{", r"line 2: broken JSON: the line ends at column 1 .*`jq -c \.` writes each object on one line"),
    (b'{"id": "2", "id": "3"}', r"line 2: the key 'id' occurs twice in one object"),
    (b'{"id": "2", "text": {"swh_Latn": 1, "swh_Latn": 2}}', r"line 2: the key 'swh_Latn' occurs twice"),
    (b'{"id": NaN}', r"line 2: NaN is no JSON"),
    (b'{"id": %s}' % (b"1" * 5000), r"line 2: a number with thousands of digits"),
    (b'{"id": %s}' % (b"[" * 100_000), r"line 2: broken JSON: nested too deeply"),
    (b'["id"]', r"bad.jsonl, line 2: a JSON array where a row must be an object.*jq -c"),
    (b'"id"', r"bad.jsonl, line 2: a JSON text where a row must be an object"),
    ('{"id": "é"}'.encode("latin-1"), r"bad.jsonl, line 2: not UTF-8 \(byte 0xe9 at column 9\)"),
    (b'{"id": "2", "language": "swh_Latn", "text": "a\\ud800", "anchor_text": "b"}', r"line 2.*half a surrogate pair"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_line_is_named_with_file_and_line(line: bytes, message: str, tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps(pair()).encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=message):
        read_pairs(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"id": "1"}\n'.encode("utf-16"), "line 1: this is no text in UTF-8: it is UTF-16"),
        ("a.jsonl", '{"id": "1"}\n'.encode("utf-16-le"), "line 1: this is no text in UTF-8: it may be UTF-16"),
        ("a.jsonl", gzip.compress(b"{}\n"), "let its name end with .gz"),
        ("a.jsonl", b"PAR1....", "let its name end with .parquet"),
        ("a.csv", b"PK\x03\x04...", "a zip archive or a spreadsheet"),
        ("a.jsonl.gz", b"{}\n", "not compressed by gzip, as its name says"),
        ("a.csv", b"id;language\n1;swh_Latn\n", "the header is one column 'id;language'; cells are separated by ','"),
        ("a.csv", b'id,text\n2,"b\n3,c\n', "lines 2 to 3: broken CSV"),
        ("a.csv", b"id,messages\n1,[\n", "messages must hold JSON in a CSV file"),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / name)


def test_a_long_cell_of_csv_is_read_whole(tmp_path: Path) -> None:
    long = "mto " * 100_000
    (tmp_path / "a.csv").write_text(f"id,language,text,anchor_text\n1,swh_Latn,{long},a river\n")
    assert read_pairs(tmp_path / "a.csv").dataset["text"][:] == [long]


@pytest.mark.parametrize("damage", ["dataset_info.json", "state.json", "data-00000-of-00001.arrow"])
def test_a_damaged_folder_is_named(damage: str, tmp_path: Path, pair: Pair) -> None:
    Dataset.from_list([pair()]).save_to_disk(tmp_path / "folder")
    (tmp_path / "folder" / damage).write_text("?")
    with pytest.raises(DataError, match=r"folder: .*folder is damaged"):
        read_pairs(tmp_path / "folder")


def test_a_byte_order_mark_belongs_to_no_row(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(pair()) + "\n", encoding="utf-8-sig")
    (tmp_path / "a.csv").write_text("id,language,text,anchor_text\n1,swh_Latn,a,b\n", encoding="utf-8-sig")
    assert read_pairs([tmp_path / "a.jsonl"]).counts["kept"] == 1
    assert read_pairs([tmp_path / "a.csv"]).counts["kept"] == 1


def test_a_missing_file_names_the_nearest(write: Write, pair: Pair) -> None:
    path = write([pair()])
    with pytest.raises(DataError, match=r"pears.jsonl: no such file; did you mean '.*pairs.jsonl'"):
        read_pairs(path.with_name("pears.jsonl"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"and no such folder either: .*nowhere"):
        read_pairs(tmp_path / "nowhere" / "pairs.jsonl")


@pytest.mark.parametrize("name", ["cut.jsonl.gz", "cut.parquet"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(json.dumps(pair()).encode() * 50)[:40])
    with pytest.raises(DataError, match=f"{name}: cannot be read"):
        read_pairs(path)


def test_splits_must_be_chosen(tmp_path: Path, pair: Pair) -> None:
    DatasetDict({"train": Dataset.from_list([pair()])}).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match=r"holds the splits train; say which, such as '.*splits:train'"):
        read_pairs(tmp_path / "splits")
    with pytest.raises(DataError, match=r"no split 'trian'; did you mean 'train'"):
        read_pairs(f"{tmp_path / 'splits'}:trian")


BAD_SOURCES: list[tuple[Any, str]] = [
    ([], "the list of paths is empty"),
    (DatasetDict({"train": Dataset.from_list([{"id": "1"}])}), r"has splits \(train\)"),
    (IterableDataset.from_generator(lambda: iter(())), "streamed dataset"),
    ([3], "a path must be text or a Path, not int"),
]


@pytest.mark.parametrize(("source", "message"), BAD_SOURCES)
def test_what_is_no_source_is_refused(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pairs(source)


def test_an_unknown_format_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "pairs.xlsx").write_text("id\n")
    with pytest.raises(DataError, match=r"unknown format '.xlsx'. What can be read: JSON Lines"):
        read_pairs(tmp_path / "pairs.xlsx")


def test_a_folder_of_files_is_refused_with_the_files(write: Write, pair: Pair) -> None:
    with pytest.raises(DataError, match=r"save_to_disk did not write. It holds pairs.jsonl: give the files one by one"):
        read_pairs(write([pair()]).parent)


def test_importing_the_room_imports_neither_torch_nor_datasets() -> None:
    code = (
        "import sys, innerlingua.data; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
