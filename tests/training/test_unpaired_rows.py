"""Rows without an anchor are plain rows; how many there are is said once, and none at all is an error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from runs import ALIGNED, ANCHORED, config, model_of
from transformers import PreTrainedTokenizerFast

from innerlingua.data import read_pairs, tokenize_pairs
from innerlingua.errors import DataError
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer

PLAIN = ANCHORED.count(False)


def notes(folder: Path, train: Dataset, tokenizer: PreTrainedTokenizerFast, term: Any, **kwargs: Any) -> list[str]:
    """What the construction of a trainer warns of, of its own accord."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(
            model=model_of(),
            args=config(folder),
            train_dataset=train,
            processing_class=tokenizer,
            terms=term if isinstance(term, list) else [term],
            **kwargs,
        )
    return [str(warning.message) for warning in caught if "anchor" in str(warning.message)]


def without_some(pairs: Dataset) -> Dataset:
    rows = pairs.to_list()
    for row, anchored in zip(rows, ANCHORED, strict=True):
        if not anchored:
            row["anchor_prompt"] = row["anchor_completion"] = None
    return Dataset.from_list(rows)


@pytest.mark.parametrize("anchor", ["prior", "live"])
@pytest.mark.parametrize("form", ["text", "tokens"])
def test_they_are_counted_once(
    form: str,
    anchor: str,
    tmp_path: Path,
    pairs: Dataset,
    tokenised: Dataset,
    prior: RoutingPrior,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    if anchor == "live":
        term = RoutingAlignment(anchor="live", layers=ALIGNED)
    rows = without_some(pairs) if form == "text" else tokenised
    assert notes(tmp_path, rows, tokenizer, term) == [
        "3 of 8 rows of train_dataset have no anchor for the term routing_alignment: they are taken as plain rows, "
        "without it"
    ]
    whole = pairs if form == "text" else tokenize_pairs(pairs, tokenizer).dataset
    assert notes(tmp_path, whole, tokenizer, term) == []


def test_every_data_set_is_counted_by_its_name(
    tmp_path: Path, pairs: Dataset, tokenised: Dataset, prior: RoutingPrior, tokenizer: PreTrainedTokenizerFast
) -> None:
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    whole = tokenize_pairs(pairs, tokenizer).dataset
    [note] = notes(tmp_path, whole, tokenizer, term, eval_dataset={"whole": whole, "part": tokenised.select([0, 1, 4])})
    assert note.startswith("2 of 3 rows of eval_dataset['part'] have no anchor for the term")
    [note] = notes(tmp_path, tokenised, tokenizer, term, eval_dataset=tokenised.select([0, 1, 4]))
    assert note.startswith(f"{PLAIN} of 8 rows of train_dataset have no anchor for the term routing_alignment; 2 of 3 ")


def test_spans_count_rows_and_not_spans(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    content = [
        ("a", "jua ni njano na kubwa", "the sun is yellow and large", [[0, 3, 4, 7], [7, 12, 11, 17]]),
        ("b", "anga ni buluu", "the sky is blue", []),
        ("c", "theluji ni baridi", "snow is cold", [[11, 17, 8, 12]]),
    ]
    names = ("id", "text", "anchor_text", "spans")
    data = [dict(zip(names, row, strict=True)) | {"language": "swh_Latn"} for row in content]
    rows = tokenize_pairs(read_pairs(Dataset.from_list(data)).dataset, tokenizer).dataset
    spans = RoutingAlignment(anchor="live", layers=ALIGNED, pooling="spans")
    whole = RoutingAlignment(anchor="live", layers=ALIGNED)
    whole.name = "whole_sequences"
    [note] = notes(tmp_path, rows, tokenizer, [spans, whole])
    assert note.startswith("1 of 3 rows of train_dataset have no anchor for the term routing_alignment: they")


@pytest.mark.parametrize("form", ["text without the columns", "text", "tokens"])
def test_none_at_all_is_an_error(
    form: str, tmp_path: Path, pairs: Dataset, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = {
        "text without the columns": pairs.remove_columns(["anchor_prompt", "anchor_completion"]),
        "text": without_some(pairs).select([1, 4, 5]),
        "tokens": tokenised.select([1, 4, 5]),
    }[form]
    term = RoutingAlignment(anchor="live", layers=ALIGNED)
    with pytest.raises(DataError, match="no row of train_dataset has an anchor, so the term routing_alignment could"):
        notes(tmp_path, rows, tokenizer, term)
    with pytest.raises(DataError, match="no row of eval_dataset has an anchor"):
        notes(tmp_path, tokenised, tokenizer, term, eval_dataset=rows)
