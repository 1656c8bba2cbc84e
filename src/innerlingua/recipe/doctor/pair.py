"""One row as the model reads it: both sides rendered and tokenised, with marks around what the loss is taken over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from innerlingua.data.encode import IGNORED
from innerlingua.recipe.doctor.report import Pair, Side

__all__ = ["CLOSE", "OPEN", "rendered_pair"]

OPEN, CLOSE = "⟦", "⟧"


def rendered_pair(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Pair:
    """The first of `rows` that has an anchor, or the first at all, decoded from the very tokens that are trained on."""
    place = next((index for index, ids in enumerate(rows["anchor_input_ids"]) if ids is not None), 0)
    row = rows[place]
    anchor = None
    if row["anchor_input_ids"] is not None:
        anchor = _side(row["anchor_input_ids"], row["anchor_labels"], tokenizer)
    return Pair(
        id=row["id"],
        language=row["language"],
        target=_side(row["input_ids"], row["labels"], tokenizer),
        anchor=anchor,
    )


def _side(token_ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Side:
    # The first token is never predicted, whatever its label says.
    supervised = [index > 0 and label != IGNORED for index, label in enumerate(labels)]
    text = ""
    for marked, group in groupby(zip(supervised, token_ids, strict=True), key=lambda item: item[0]):
        piece = str(tokenizer.decode([token for _, token in group], clean_up_tokenization_spaces=False))
        text += f"{OPEN}{piece}{CLOSE}" if marked else piece
    return Side(marked=text, tokens=len(token_ids), supervised=sum(supervised))
