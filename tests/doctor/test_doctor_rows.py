"""Rows in numbers and as text: what is counted, and what is shown of one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, List, Value
from doctor_files import write
from transformers import PreTrainedTokenizerFast

from innerlingua.data import tokenize_pairs
from innerlingua.recipe.doctor.pair import rendered_pair
from innerlingua.recipe.doctor.report import Report
from innerlingua.recipe.doctor.rows import describe, row_lengths, same_rows

IDS = List(Value("int32"))
FEATURES = Features(
    {
        "id": Value("string"),
        "language": Value("string"),
        "input_ids": IDS,
        "labels": IDS,
        "anchor_input_ids": IDS,
        "anchor_labels": IDS,
    }
)


def tokenised(*rows: tuple[str, int, int, int | None]) -> Dataset:
    """Rows of (language, tokens, of them without a label, tokens of the anchor)."""
    made = []
    for number, (language, tokens, masked, anchor) in enumerate(rows):
        ids = list(range(10, 10 + tokens))
        row: dict[str, Any] = {"id": str(number), "language": language, "input_ids": ids}
        row["labels"] = [-100] * masked + ids[masked:]
        row["anchor_input_ids"] = row["anchor_labels"] = None if anchor is None else list(range(50, 50 + anchor))
        made.append(row)
    return Dataset.from_list(made, features=FEATURES)


def test_lengths_languages_and_the_supervised_share() -> None:
    rows = tokenised(("hin_Deva", 10, 4, 5), ("swh_Latn", 20, 0, None), ("hin_Deva", 30, 29, 7))
    found = describe("train", ["x.jsonl"], {"read": 5}, row_lengths(rows))
    hindi, swahili = found.languages
    assert (hindi.language, hindi.rows, hindi.without_anchor) == ("hin_Deva", 2, 0)
    assert (swahili.language, swahili.rows, swahili.without_anchor) == ("swh_Latn", 1, 1)
    assert (hindi.target.least, hindi.target.median, hindi.target.most, hindi.target.total) == (10, 20.0, 30, 40)
    assert hindi.anchor is not None
    assert (hindi.anchor.rows, hindi.anchor.mean, hindi.anchor.total) == (2, 6.0, 12)
    assert swahili.anchor is None
    # The first token of a row is never predicted, whatever its label says.
    assert (hindi.supervised, swahili.supervised) == (6 + 1, 19)
    assert found.everything.supervised_share == pytest.approx(26 / 60)
    assert sum(found.histogram.target) == 3
    assert sum(found.histogram.anchor) == 2
    assert found.histogram.edges[-1] > 30


@pytest.mark.parametrize("length", [1, 7, 8, 9, 99, 100, 2048, 131072])
def test_every_length_is_in_the_histogram(length: int) -> None:
    histogram = describe("train", [], {}, row_lengths(tokenised(("swh_Latn", length, 0, length)))).histogram
    assert sum(histogram.target) == sum(histogram.anchor) == 1
    assert len(histogram.target) <= 10
    place = histogram.target.index(1)
    assert histogram.edges[place] <= length < histogram.edges[place + 1]


def test_rows_whose_sides_are_the_same_tokens() -> None:
    rows = tokenised(("swh_Latn", 4, 0, 4), ("swh_Latn", 5, 0, 4)).to_list()
    rows[0]["anchor_input_ids"] = rows[0]["input_ids"]
    found = describe("train", [], {}, row_lengths(Dataset.from_list(rows, features=FEATURES)))
    assert found.identical_sides == 1


def test_overlap_of_training_and_evaluation() -> None:
    train = tokenised(("swh_Latn", 4, 0, 4), ("swh_Latn", 6, 0, 4), ("swh_Latn", 8, 0, 4))
    other = tokenised(("swh_Latn", 9, 0, 4), ("hin_Deva", 6, 0, 4), ("swh_Latn", 11, 0, 4))
    assert same_rows(train, other) == (1, 2)  # the tokens of row 1; ids and languages of rows 0 and 2


def test_overlap_is_a_warning(examined: Callable[..., Report], rows_file: Path) -> None:
    report = examined("--data.eval", str(rows_file))
    assert [finding.level for finding in report.findings if "24 have a target that is trained on" in finding.what] == [
        "warning"
    ]


def test_a_pair_is_shown_as_it_is_read(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = tokenize_pairs(pairs, tokenizer).dataset
    pair = rendered_pair(rows, tokenizer)
    assert (pair.id, pair.language) == ("sky", "swh_Latn")
    assert pair.target.marked == "rangi ya anga ni ipi⟦anga ni buluu</s>⟧"
    assert pair.anchor is not None
    assert pair.anchor.marked == "what colour is the sky⟦the sky is blue</s>⟧"
    for side, column in ((pair.target, "labels"), (pair.anchor, "anchor_labels")):
        assert side.supervised == sum(label != -100 for label in rows[0][column])
        assert side.tokens == len(rows[0][column])


def test_a_chat_is_shown_with_its_template(examined: Callable[..., Report], pairs: Dataset, tmp_path: Path) -> None:
    rows = [
        {
            "id": row["id"],
            "language": row["language"],
            **{
                f"{side}messages": [
                    {"role": "user", "content": row[f"{side}prompt"]},
                    {"role": "assistant", "content": row[f"{side}completion"]},
                ]
                for side in ("", "anchor_")
            },
        }
        for row in pairs
    ]
    report = examined("--data.train", str(write(tmp_path / "chats.jsonl", rows)))
    assert report.pair is not None
    assert report.pair.target.marked == "<|user|>rangi ya anga ni ipi<|assistant|>⟦anga ni buluu</s>⟧"
    assert any("assistant_only_loss: true" in line for line in report.said)


def test_rows_without_an_anchor_are_counted(examined: Callable[..., Report], pairs: Dataset, tmp_path: Path) -> None:
    rows = pairs.to_list()
    for row in rows[:3]:
        row["anchor_prompt"] = row["anchor_completion"] = None
    path = write(tmp_path / "some.jsonl", [{k: v for k, v in row.items() if v is not None} for row in rows])
    report = examined("--data.train", str(path), "--data.missing-anchor", "keep")
    assert report.data is not None
    assert report.data[0].everything.without_anchor == report.data[0].counts["kept_without_anchor"] == 3
    assert any("3 of 8 rows have no anchor" in finding.what for finding in report.findings)
