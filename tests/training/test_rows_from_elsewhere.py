"""Rows that were tokenised elsewhere: what does not fit is one message, which names the row."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from runs import config, gap, model_of, train
from transformers import PreTrainedTokenizerFast

from innerlingua.errors import DataError
from innerlingua.routing import RoutingAlignment, RoutingPrior, pair_divergence
from innerlingua.training import Trainer

ROWS: list[dict[str, Any]] = [
    {"id": "a", "input_ids": [8, 6, 7], "labels": [-100, 6, 7], "anchor_input_ids": [7, 9]},
    {"id": "b", "input_ids": [5, 6, 7, 9], "labels": [-100, -100, 7, 9], "anchor_input_ids": [9]},
    {"id": "c", "input_ids": [5, 9, 7], "labels": [5, 9, 7], "anchor_input_ids": None},
]
WAYS: list[dict[str, Any]] = [{}, {"padding_free": True}, {"packing": 16}]


def build(
    folder: Path, rows: Dataset, tokenizer: PreTrainedTokenizerFast, *, pooling: str = "sequence", **changes: Any
) -> Trainer:
    given: dict[str, Any] = {"terms": [RoutingAlignment(anchor="live", layers=[1, 2], pooling=pooling)]}
    given |= {name: changes.pop(name) for name in ("terms", "packing", "eval_dataset") if name in changes}
    return Trainer(
        model=model_of(),
        args=config(folder, max_steps=1, per_device_train_batch_size=3, **changes),
        train_dataset=rows,
        processing_class=tokenizer,
        **given,
    )


def with_row(**changes: Any) -> Dataset:
    """The rows, the second of them changed."""
    return Dataset.from_list([ROWS[0], ROWS[1] | changes, ROWS[2]])


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "fewer labels": (
        {"labels": [6, 7, 9]},
        "has 4 tokens in input_ids and 3 values in labels: each token",
    ),
    "more labels": ({"labels": [5, 6, 7, 9, 9]}, "has 4 tokens in input_ids and 5 values in labels"),
    "no labels": ({"labels": None}, "has 4 tokens in input_ids and 0 values in labels"),
    "no tokens": ({"input_ids": [], "labels": []}, r"has no tokens \(input_ids is empty or None\): leave it out"),
    "null": ({"input_ids": None}, r"has no tokens \(input_ids is empty or None\): leave it out"),
    "an empty anchor": ({"anchor_input_ids": []}, r"has an anchor without tokens .*a row without an anchor has None"),
}


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("misfit", MISFITS)
def test_a_row_that_does_not_fit(
    misfit: str, way: dict[str, Any], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    changes, message = MISFITS[misfit]
    with pytest.raises(DataError, match=rf"^row 1 \(id 'b'\) of train_dataset {message}"):
        build(tmp_path, with_row(**changes), tokenizer, **way)


def test_labels_that_only_fit_together(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """As many labels as tokens in all, so packed rows look right, and each label would lie under the next token."""
    rows = [ROWS[0] | {"labels": [6, 7]}, ROWS[1] | {"labels": [-100, -100, 7, 9, 9]}]
    for terms in ([], [RoutingAlignment(anchor="live", layers=[1])]):
        with pytest.raises(DataError, match=r"^row 0 \(id 'a'\) of train_dataset has 3 tokens"):
            build(tmp_path, Dataset.from_list(rows), tokenizer, terms=terms, packing=16)


def test_the_rows_of_an_evaluation_and_rows_without_ids(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    good, bad = Dataset.from_list(ROWS), with_row(labels=[7])
    with pytest.raises(DataError, match=r"^row 1 \(id 'b'\) of eval_dataset\['x'\] has 4 tokens"):
        build(tmp_path, good, tokenizer, eval_dataset={"x": bad})
    with pytest.raises(DataError, match=r"^row 1 of train_dataset has 4 tokens"):
        build(tmp_path, bad.remove_columns("id"), tokenizer, terms=[], packing=16)


def test_the_place_is_that_of_the_rows_as_they_are_given(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    turned = with_row(labels=[7]).select([2, 0, 1])
    with pytest.raises(DataError, match=r"^row 2 \(id 'b'\) of train_dataset has 4 tokens"):
        build(tmp_path, turned, tokenizer)
    assert len(build(tmp_path, turned.select([0, 1]), tokenizer).train_dataset) == 2


@pytest.mark.parametrize("labelled", [True, False])
def test_a_single_token_is_predicted_from_nothing(
    labelled: bool, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = with_row(input_ids=[5], labels=[5])
    rows = rows if labelled else rows.remove_columns("labels")
    with pytest.raises(DataError, match=r"^row 1 \(id 'b'\) of train_dataset has no token to train on: .*from nothing"):
        build(tmp_path, rows, tokenizer, padding_free=True)


def test_labels_of_anchors_where_they_are_read(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    labels = [[-100, 9], [9, 9], None]
    rows = Dataset.from_list([row | {"anchor_labels": own} for row, own in zip(ROWS, labels, strict=True)])
    assert len(build(tmp_path, rows, tokenizer).train_dataset) == 3  # nobody reads them
    with pytest.raises(DataError, match=r"^row 1 \(id 'b'\) .* 1 tokens in anchor_input_ids and 2 values in anchor_"):
        build(tmp_path, rows, tokenizer, pooling="completion")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchor_input_ids": []}, "has an anchor without tokens"),
        ({"anchor_labels": [9, 9, 9]}, "has 1 tokens in anchor_input_ids and 3 values in anchor_labels"),
        ({"anchor_labels": None}, "has 1 tokens in anchor_input_ids and 0 values in anchor_labels"),
        ({"input_ids": None}, "has no tokens"),
    ],
)
@pytest.mark.parametrize("what", ["prior", "divergence"])
def test_routing_looks_at_them_too(
    what: str, changes: dict[str, Any], message: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    given = [row | {"anchor_labels": row["anchor_input_ids"]} for row in ROWS[:2]]
    rows = Dataset.from_list([given[0], given[1] | changes])
    look: Any = partial(RoutingPrior.compute, pooling="completion") if what == "prior" else pair_divergence
    with pytest.raises(DataError, match=rf"^row 1 \(id 'b'\) of the rows {message}"):
        look(model_of(), rows, tokenizer, layers=[1], progress=False)


@pytest.mark.parametrize("column", ["input_ids", "labels"])
def test_columns_that_hold_no_lists(column: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_list([row | {column: "5 6"} for row in ROWS])
    with pytest.raises(DataError, match=rf"the column {column} of train_dataset holds string: .* whole numbers"):
        build(tmp_path, rows, tokenizer)


def test_overlong_rows_are_named(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"^row 1 \(id 'b'\) of train_dataset has 4 tokens, more than max_length 3"):
        build(tmp_path, Dataset.from_list(ROWS), tokenizer, max_length=3)
    assert len(build(tmp_path, Dataset.from_list(ROWS), tokenizer, max_length=4).train_dataset) == 3


MASKS: dict[str, tuple[tuple[str, ...], dict[str, Any], list[list[int]]]] = {
    "assistant": (("assistant_masks",), {}, [[-100, 6, 7], [-100, -100, 7, -100], [-100, 9, -100]]),
    "completion": (
        ("completion_mask",),
        {"completion_only_loss": True},
        [[-100, -100, 7], [-100, 6, 7, 9], [-100, 9, -100]],
    ),
    "both": (
        ("assistant_masks", "completion_mask"),
        {"completion_only_loss": True},
        [[-100, -100, 7], [-100, -100, 7, -100], [-100, 9, -100]],
    ),
    "completion that is not asked for": (("completion_mask",), {}, [row["input_ids"] for row in ROWS]),
}
ASSISTANT = [[0, 1, 1], [0, 0, 1, 0], [0, 1, 0]]
COMPLETION = [[False, False, True], [False, True, True, True], [False, True, False]]


def masked(columns: tuple[str, ...]) -> Dataset:
    rows = Dataset.from_list(ROWS).remove_columns("labels")
    for name, values in (("assistant_masks", ASSISTANT), ("completion_mask", COMPLETION)):
        if name in columns:
            rows = rows.add_column(name, values)
    return rows


@pytest.mark.parametrize("masks", MASKS)
def test_masks_are_the_labels_that_trl_makes_of_them(
    masks: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    columns, options, expected = MASKS[masks]
    plain = build(tmp_path, masked(columns), tokenizer, terms=[], **options)  # TRL itself
    assert plain.train_dataset["labels"][:] == expected
    [gradients], _ = train(plain)
    measured = RoutingAlignment(anchor="live", layers=[1], weight=0.0)
    for way in ({"terms": [], "packing": 16}, *({"terms": [measured]} | way for way in WAYS)):
        [found], _ = train(build(tmp_path, masked(columns), tokenizer, **way, **options))
        assert gap(found, gradients) < 2e-6


def test_masks_of_another_length_or_of_nothing(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_list(ROWS).remove_columns("labels")
    with pytest.raises(DataError, match=r"^row 1 \(id 'b'\) .* 4 tokens in input_ids and 2 values in assistant_masks"):
        build(tmp_path, rows.add_column("assistant_masks", [[0, 1, 1], [0, 1], [0, 1, 1]]), tokenizer, packing=16)
    nothing = rows.add_column("assistant_masks", [[0, 1, 1], [1, 0, 0, 0], [0, 1, 1]])
    with pytest.raises(DataError, match=re.escape("row 1 (id 'b') of train_dataset has no token to train on")):
        build(tmp_path, nothing, tokenizer)
