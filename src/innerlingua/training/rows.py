"""The rows of a training with terms: tokenised, pairs and all, never cut, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig

from innerlingua.data import pack_rows, read_pairs, tokenize_pairs
from innerlingua.data.packing import LENGTHS
from innerlingua.data.tokenised import MASKS, labels_from_masks, refuse_misfits, row_name, token_counts
from innerlingua.errors import DataError
from innerlingua.training.refusals import checked_packing, refuse_counted_padding
from innerlingua.training.supervision import refuse_unsupervised
from innerlingua.training.terms import Term

__all__ = ["PreparedRows", "prepare_rows"]

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class PreparedRows:
    """The tokenised data sets as TRL takes them, and per data set and term (rows without a pair, rows)."""

    train_dataset: Dataset
    eval_dataset: Dataset | dict[str, Dataset] | None
    unpaired: dict[tuple[str, str], tuple[int, int]]

    def note(self) -> str | None:
        """How many rows are without a pair, in one sentence; None when every row has one."""
        some = [
            f"{without} of {rows} rows of {name} have no anchor for the term {term}"
            for (name, term), (without, rows) in self.unpaired.items()
            if without
        ]
        return f"{'; '.join(some)}: they are taken as plain rows, without it" if some else None


def prepare_rows(
    args: SFTConfig, terms: Sequence[Term], kwargs: Mapping[str, Any], *, packing: int | None = None
) -> PreparedRows:
    """The data sets of a trainer's keyword arguments, tokenised and counted, that of the training packed if wanted.

    Collating each row once also finds a row that a term would refuse in the middle of a run. Raises `DataError` for
    rows that cannot be used, and when none of them has an anchor; `RecipeError` for a `packing` that is no length, or
    that cannot be combined with padding.
    """
    packing = checked_packing(packing)
    refuse_counted_padding(args, packing=packing)
    unpaired: dict[tuple[str, str], tuple[int, int]] = {}
    masks = _masks(args, kwargs.get("train_dataset"))

    def prepared(dataset: Any, name: str) -> Dataset:
        rows = _tokenised(dataset, args, terms, kwargs, name, masks)
        for term in terms:
            pairs = _paired_rows(rows, term)
            if pairs == 0:
                raise DataError(f"no row of {name} has an anchor, so the term {term.name} could never act")
            unpaired[name, term.name] = (len(rows) - pairs, len(rows))
        refuse_unsupervised(rows, name)
        return rows

    train = prepared(kwargs.get("train_dataset"), "train_dataset")
    if packing is not None:
        train = pack_rows(train, packing)
    evaluation = kwargs.get("eval_dataset")
    if isinstance(evaluation, dict):
        held_out: Any = {name: prepared(rows, f"eval_dataset[{name!r}]") for name, rows in evaluation.items()}
    else:
        held_out = None if evaluation is None else prepared(evaluation, "eval_dataset")
    return PreparedRows(train, held_out, unpaired)


def _masks(args: SFTConfig, train_dataset: Any) -> list[str]:
    """The masks that count where rows have no labels, by TRL's rule, which asks the rows of the training for all."""
    completion_only = args.completion_only_loss
    if completion_only is None:
        columns = set(train_dataset.column_names) if isinstance(train_dataset, Dataset) else set()
        completion_only = columns >= {"input_ids", "prompt", "completion"}
    return [mask for mask in MASKS if completion_only or mask != "completion_mask"]


def _tokenised(
    dataset: Any, args: SFTConfig, terms: Sequence[Term], kwargs: Mapping[str, Any], name: str, masks: Sequence[str]
) -> Dataset:
    if not isinstance(dataset, Dataset):
        given = "terms are" if terms else "packing is"
        raise DataError(
            f"{name} must be a datasets.Dataset when {given} given, not {type(dataset).__name__}{_remedy(dataset)}"
        )
    if "input_ids" not in dataset.column_names:
        tokenizer = kwargs.get("processing_class")
        if tokenizer is None:
            raise DataError(
                f"{name} holds text: give the tokenizer as `processing_class`, or tokenise it with tokenize_pairs"
            )
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            hint = ", whose .tokenizer it is" if hasattr(tokenizer, "tokenizer") else ""
            raise DataError(
                f"{name} holds text: `processing_class` must be the tokenizer, not {type(tokenizer).__name__}{hint}"
            )
        # Ids and anchors are checked; which languages there are is the caller's business.
        known = {str(code): str(code) for code in dataset["language"]} if "language" in dataset.column_names else {}
        rows = read_pairs(dataset, languages=known, missing_anchor="keep", same_as_anchor="keep").dataset
        dataset = tokenize_pairs(
            rows,
            tokenizer,
            max_length=args.max_length,
            completion_only_loss=args.completion_only_loss,
            assistant_only_loss=args.assistant_only_loss,
        ).dataset
    else:
        dataset = _looked_at(dataset, args, terms, name, masks)
    for term in terms:
        missing = [column for column in term.columns if column not in dataset.column_names]
        if missing:
            raise DataError(
                f"{name} lacks the columns {missing} that the term {term.name} reads: give pairs with anchors"
            )
    return dataset


def _looked_at(dataset: Dataset, args: SFTConfig, terms: Sequence[Term], name: str, masks: Sequence[str]) -> Dataset:
    """Rows that came tokenised, with the labels that their masks stand for; `DataError` when they cannot be used."""
    if LENGTHS in dataset.column_names:
        raise DataError(
            f"{name} is packed already (it has the column {LENGTHS}): give its rows as they were before, and "
            "Trainer(..., packing=N) packs them"
        )
    labelled = "labels" in dataset.column_names
    masks = [mask for mask in masks if mask in dataset.column_names and not labelled]
    columns = {"labels", *masks, *(column for term in terms for column in term.columns)}
    refuse_misfits(dataset, name, columns, anchors=bool(terms))
    if args.max_length is not None:
        _refuse_overlong(dataset, args.max_length, name)
    return labels_from_masks(dataset, masks) if masks else dataset


def _remedy(dataset: Any) -> str:
    if isinstance(dataset, DatasetDict):
        return f": choose a split of it ({', '.join(map(repr, dataset))})"
    if isinstance(dataset, IterableDataset):
        return ": a stream has no length and is read once; Dataset.from_list(list(stream)) holds it"
    if isinstance(dataset, list | tuple):
        return ": Dataset.from_list(rows) makes one"
    return ": give its .dataset" if hasattr(dataset, "dataset") else ""


def _paired_rows(dataset: Dataset, term: Term) -> int:
    """How many rows have a pair, or several."""
    paired = 0
    for columns in dataset.iter(batch_size=_ROWS_AT_ONCE):
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        batch = term.collate(rows, max(len(row["input_ids"]) for row in rows))
        if "segments" in batch:
            paired += int((batch["segments"] >= 0).any(dim=1).sum())
        else:
            paired += len(set(batch["pair_index"].tolist()))
    return paired


def _refuse_overlong(dataset: Dataset, max_length: int, name: str) -> None:
    columns = [column for column in ("input_ids", "anchor_input_ids") if column in dataset.column_names]
    longest = np.max([token_counts(dataset, column) for column in columns], axis=0)
    if (longest > max_length).any():
        place = int((longest > max_length).argmax())
        raise DataError(
            f"{row_name(dataset, place, name)} has {longest[place]} tokens, more than max_length {max_length}: raise "
            "max_length (None for no limit), or leave such rows out with tokenize_pairs(..., overlong='drop')"
        )
