"""The rows of a recipe: read, checked, tokenised and counted. Imports transformers, so import it late."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from innerlingua.data import read_pairs, tokenize_pairs
from innerlingua.data.wording import counted
from innerlingua.errors import DataError
from innerlingua.recipe.schema import Recipe

__all__ = ["Rows", "read_rows", "refuse_unknown_tokens"]

Say = Callable[[str], None]

# A macro hides the function of the same name. It writes a character of a private use area, which no date has.
_MARK = "\ue0d7"
_CLOCK = f"{{% macro strftime_now(form) %}}{_MARK * 32}{{% endmacro %}}"


@dataclass(frozen=True)
class Rows:
    """Tokenised rows of training and evaluation, and what became of each row that was read (read = kept + dropped)."""

    train: Dataset
    evaluation: Dataset | None
    counts: dict[str, dict[str, int] | None]

    @property
    def anchors(self) -> Dataset:
        """The rows of training and evaluation together, with what a prior is computed from."""
        if self.evaluation is None:
            return self.train
        columns = ["id", "input_ids", "anchor_input_ids", "anchor_labels"]
        return concatenate_datasets([self.train.select_columns(columns), self.evaluation.select_columns(columns)])

    def digests(self) -> dict[str, str | None]:
        """A hash of the tokenised rows in their order, whatever file they came from."""
        return {
            "rows": _digest(self.train),
            "eval_rows": None if self.evaluation is None else _digest(self.evaluation),
        }


def read_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, say: Say) -> tuple[Rows, Recipe]:
    """The rows that `recipe` names, and the recipe with `trainer.assistant_only_loss` as it is applied.

    Rows of `messages` train on the assistant's messages alone unless the recipe says otherwise. Raises `DataError` for
    rows that cannot be used, and for a chat template that prints the date of the day.
    """
    train = _read(recipe, recipe.data.train)
    if "messages" not in train[0].column_names and recipe.trainer.get("assistant_only_loss"):
        raise DataError(
            f"trainer.assistant_only_loss: true needs rows of messages, and {', '.join(recipe.data.train)} has others: "
            "leave it out"
        )
    if "messages" in train[0].column_names and "assistant_only_loss" not in recipe.trainer:
        say("trainer.assistant_only_loss: true (rows are conversations; false trains on the whole of them)")
        recipe = recipe.model_copy(update={"trainer": {**recipe.trainer, "assistant_only_loss": True}})
    rows, counts = _tokenised(recipe, recipe.data.train, *train, tokenizer, say)
    if recipe.data.eval is None:
        return Rows(rows, None, {"train": counts, "eval": None}), recipe
    held_out, held_out_counts = _tokenised(recipe, recipe.data.eval, *_read(recipe, recipe.data.eval), tokenizer, say)
    return Rows(rows, held_out, {"train": counts, "eval": held_out_counts}), recipe


def refuse_unknown_tokens(rows: Rows, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Raise `DataError` for a row with a token that `model` has no embedding for; torch would fail in the middle."""
    known = next(model.get_input_embeddings().parameters()).shape[0]
    if max(tokenizer.get_vocab().values(), default=0) < known:
        return
    columns = ["id", "language", "input_ids", "anchor_input_ids"]
    for dataset in (rows.train, rows.evaluation):
        for row in dataset.select_columns(columns) if dataset is not None else ():
            token = max(*row["input_ids"], *(row["anchor_input_ids"] or ()))
            if token >= known:
                raise DataError(
                    f"row {row['id']!r} ({row['language']}) has the token {token} "
                    f"({tokenizer.convert_ids_to_tokens(token)!r}), and the model has embeddings for {known}: the "
                    "tokenizer of model.path knows more than its model. Take the tokenizer that belongs to it, or "
                    "resize the model (resize_token_embeddings) and save both"
                )


def _read(recipe: Recipe, paths: list[str]) -> tuple[Dataset, dict[str, int]]:
    data = recipe.data
    assert data.missing_anchor is not None, "resolved before"
    pairs = read_pairs(
        paths,
        languages=data.languages,
        missing_anchor=data.missing_anchor,
        same_as_anchor=data.same_as_anchor,
        empty=data.empty,
        duplicate=data.duplicate,
    )
    return pairs.dataset, pairs.counts


def _tokenised(
    recipe: Recipe,
    paths: list[str],
    dataset: Dataset,
    read: dict[str, int],
    tokenizer: PreTrainedTokenizerBase,
    say: Say,
) -> tuple[Dataset, dict[str, int]]:
    data = recipe.data
    tokenised = tokenize_pairs(
        dataset,
        tokenizer,
        max_length=data.max_length,
        overlong=data.overlong,
        completion_only_loss=recipe.trainer.get("completion_only_loss"),
        assistant_only_loss=recipe.trainer.get("assistant_only_loss", False),
        chat_template_kwargs=data.chat_template_kwargs,
    )
    pooled = recipe.alignment.pooling if recipe.alignment is not None else None
    if pooled == "spans" and "span_ids" not in tokenised.dataset.column_names:
        raise DataError(
            f"alignment.pooling: spans averages over linked spans, and no row of {', '.join(paths)} has any: add the "
            "column spans ([target_start, target_end, anchor_start, anchor_end], in characters), or choose another "
            "pooling"
        )
    _refuse_dated_template(dataset[0], tokenizer, data.chat_template_kwargs)
    counts = {**read, **{key: value for key, value in tokenised.counts.items() if key != "read"}}
    dropped = ", ".join(f"{value} {key}" for key, value in counts.items() if key.startswith("dropped_") and value)
    kept = f"{counts['kept']:,} of {counted(counts['read'], 'row')}"
    say(f"{', '.join(paths)}: {kept}{f' ({dropped})' if dropped else ''}")
    return tokenised.dataset, counts


def _refuse_dated_template(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, kwargs: dict[str, Any]) -> None:
    """Refuse a template that asks for the time: rows, prior and the check on resume would change at midnight.

    The template is rendered once with a clock of our own, since some ask for the time only when no date is given.
    """
    content = row.get("messages") or row.get("prompt")
    if not isinstance(content, list):
        return
    template = f"{_CLOCK}{tokenizer.get_chat_template()}"
    rendered = tokenizer.apply_chat_template(content, chat_template=template, tokenize=False, **kwargs)
    if _MARK in str(rendered):
        raise DataError(
            "the chat template prints the date of the day (strftime_now), so the same row would be another text "
            "tomorrow: the prior would be stale and the run could not be resumed. Write a fixed date into the template "
            "and save it with the tokenizer of model.path, or, where the template takes the date as an argument, give "
            "it: data.chat_template_kwargs: {date_string: 01 Jan 2026}"
        )


def _digest(rows: Dataset) -> str:
    digest = hashlib.sha256()
    for batch in rows.iter(batch_size=1000):
        digest.update(repr(list(batch.values())).encode())
    return digest.hexdigest()
