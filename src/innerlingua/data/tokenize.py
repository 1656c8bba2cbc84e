"""Pairs as token ids and labels: both sides by one path, the length decided on the pair, everything counted.

How a side becomes tokens is in `encode.py` and follows TRL. Two things differ from TRL on purpose: nothing is truncated
(an overlong pair is an error, or is dropped as a pair and counted), and a row without one supervised token is an error,
for it would train nothing.

The result lives in memory as 32-bit integers and leaves no cache file beside the user's data.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from innerlingua.data.encode import IGNORED, Plan, Side, encode_sides, plan_for, reply_place, side_content
from innerlingua.data.languages import ENGLISH
from innerlingua.data.rows import PREFIX, Content
from innerlingua.data.spans import link_tokens, token_spans
from innerlingua.errors import DataError, nearest

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = ["TokenizedPairs", "tokenize_pairs"]

_BATCH = 500


@dataclass(frozen=True)
class TokenizedPairs:
    """Token ids and labels of both sides.

    `dataset` has the columns id, language, anchor_language, input_ids, labels (-100: no loss), anchor_input_ids and
    anchor_labels (null in rows without an anchor), and where the rows have spans, span_ids and anchor_span_ids: per
    token the number of its span in the row, -1 for none; null on the anchor side without an anchor.

    `counts` holds `read`, `kept`, `dropped_overlong` (read = kept + dropped); of the kept rows `kept_without_anchor`,
    `tokens` and `anchor_tokens`; and with spans `spans` and `spans_without_tokens`, those that got no token on one side
    and were left out on both.
    """

    dataset: Dataset
    counts: dict[str, int]


def tokenize_pairs(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    overlong: Literal["error", "drop"] = "error",
    completion_only_loss: bool | None = None,
    assistant_only_loss: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> TokenizedPairs:
    """Render and tokenise the target and the anchor of every row by the same path.

    Args:
        dataset: rows as `read_pairs` gives them; other columns are left out.
        tokenizer: of the model; its chat template renders messages. Spans need a fast tokenizer.
        max_length: the most tokens that either side may have; None for no limit.
        overlong: whether a pair with a longer side is an error or is dropped, both sides together.
        completion_only_loss: labels on the completion only; None means yes for prompt and completion, as in TRL.
        assistant_only_loss: labels only on what the assistant generates; needs messages and a template that marks it.
        chat_template_kwargs: passed to the chat template for every row and both sides, such as `enable_thinking`.

    Raises:
        DataError: a column is missing; the options do not fit the content; the tokenizer lacks EOS, a chat template or
            marks in it; pairs are overlong (the first by id, and how many); a row has no supervised token; the template
            refuses a row.
    """
    if overlong not in ("error", "drop"):
        raise DataError(f"overlong: {overlong!r} is no policy{nearest(overlong, ('error', 'drop'))}")
    if max_length is not None and max_length < 1:
        raise DataError(f"max_length is {max_length}; it is a number of tokens, at least 1, or null for no limit")
    plan = plan_for(dataset, tokenizer, completion_only_loss, assistant_only_loss, dict(chat_template_kwargs or {}))
    run = _Run(plan, max_length)
    rows = dataset.select_columns([name for name in dataset.column_names if name in _read_columns(plan)])
    tokens = rows.with_format(None).map(
        run.batch,
        batched=True,
        batch_size=_BATCH,
        remove_columns=rows.column_names,
        features=_features(plan),
        keep_in_memory=True,
        load_from_cache_file=False,
        new_fingerprint=uuid.uuid4().hex,
        desc="Tokenizing pairs",
    )
    run.finish(overlong)
    return TokenizedPairs(tokens, run.counts)


def _read_columns(plan: Plan) -> set[str]:
    own = {"id", "language", "anchor_language", "spans"}
    return own | set(plan.columns) | {PREFIX + column for column in plan.columns}


def _features(plan: Plan) -> Any:
    from datasets import Features, List, Value

    ids = List(Value("int32"))
    names = ["input_ids", "labels", "anchor_input_ids", "anchor_labels"]
    if plan.with_offsets:
        names += ["span_ids", "anchor_span_ids"]
    return Features(
        {**{n: Value("string") for n in ("id", "language", "anchor_language")}, **dict.fromkeys(names, ids)}
    )


class _Run:
    """One pass over the rows: tokens out, and what was met on the way."""

    def __init__(self, plan: Plan, max_length: int | None) -> None:
        self._plan = plan
        self._max_length = max_length
        self._overlong: tuple[str, int, int] | None = None
        self._moved: tuple[str, str] | None = None
        self._moved_count = 0
        self.counts = dict.fromkeys(
            ("read", "kept", "dropped_overlong", "kept_without_anchor", "tokens", "anchor_tokens"), 0
        )
        if plan.with_offsets:
            self.counts |= {"spans": 0, "spans_without_tokens": 0}

    def batch(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Tokens of one batch of rows; overlong pairs are left out and counted."""
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        targets = [side_content(row, self._plan, "") for row in rows]
        anchors = [side_content(row, self._plan, PREFIX) if _has_anchor(row, self._plan) else None for row in rows]
        target_sides = encode_sides(targets, [row["id"] for row in rows], self._plan)
        anchored = [index for index, anchor in enumerate(anchors) if anchor is not None]
        encoded = encode_sides(
            [anchor for anchor in anchors if anchor is not None],
            [f"{rows[i]['id']} (anchor)" for i in anchored],
            self._plan,
        )
        anchor_sides = dict(zip(anchored, encoded, strict=True))
        columns: dict[str, list[Any]] = {name: [] for name in _features(self._plan)}
        for index, row in enumerate(rows):
            out = self._row(row, target_sides[index], anchor_sides.get(index), targets[index], anchors[index])
            for name in columns if out is not None else ():
                columns[name].append(out[name] if out is not None else None)
        return columns

    def _row(
        self, row: dict[str, Any], target: Side, anchor: Side | None, text: Content, anchor_text: Content | None
    ) -> dict[str, Any] | None:
        self.counts["read"] += 1
        lengths = len(target.input_ids), len(anchor.input_ids) if anchor else 0
        if self._max_length is not None and max(lengths) > self._max_length:
            self.counts["dropped_overlong"] += 1
            self._overlong = self._overlong or (row["id"], *lengths)
            return None
        for side, name in ((target, "the target"), (anchor, "the anchor")):
            if side is not None:
                self._check_side(side, name, row)
        self.counts["kept"] += 1
        self.counts["kept_without_anchor"] += anchor is None
        self.counts["tokens"] += lengths[0]
        self.counts["anchor_tokens"] += lengths[1]
        out = {
            "id": row["id"],
            "language": row["language"],
            "anchor_language": (row.get("anchor_language") or ENGLISH) if anchor else None,
            "input_ids": target.input_ids,
            "labels": target.labels,
            "anchor_input_ids": anchor.input_ids if anchor else None,
            "anchor_labels": anchor.labels if anchor else None,
        }
        return out | self._spans(row, target, anchor, text, anchor_text) if self._plan.with_offsets else out

    def _check_side(self, side: Side, name: str, row: dict[str, Any]) -> None:
        if side.prompt_rest:
            self._moved_count += 1
            self._moved = self._moved or (row["id"], str(self._plan.tokenizer.decode(side.prompt_rest)))
        # The first token is predicted from nothing, so its label never counts.
        if all(label == IGNORED for label in side.labels[1:]):
            cause = "the chat template marks nothing as generated by the assistant (no assistant message?)"
            if not self._plan.assistant_only:
                cause = "the completion adds no token to the prompt"
                if len(side.input_ids) < 2:
                    cause = f"the tokenizer makes {len(side.input_ids) or 'no'} token of it (special ones included)"
            raise DataError(f"row {row['id']!r} ({row['language']}): {name} has no token to train on: {cause}")

    def _spans(
        self, row: dict[str, Any], target: Side, anchor: Side | None, text: Content, anchor_text: Content | None
    ) -> dict[str, Any]:
        spans = row["spans"] or []
        if not spans or anchor is None or anchor_text is None:
            none = [-1] * len(anchor.input_ids) if anchor else None
            return {"span_ids": [-1] * len(target.input_ids), "anchor_span_ids": none}
        owners = []
        for side, content, at, name in ((target, text, 0, ""), (anchor, anchor_text, 2, " (anchor)")):
            assert side.offsets is not None, "offsets are kept whenever there are spans"
            begin, lead = reply_place(content, self._plan, f"{row['id']}{name}")
            shifted = [
                (start - begin + lead, end - begin + lead) if end > start else (0, 0) for start, end in side.offsets
            ]
            owners.append(token_spans(shifted, [(span[at], span[at + 1]) for span in spans]))
        target_ids, anchor_ids, lost = link_tokens(owners[0], owners[1], len(spans))
        self.counts["spans"] += len(spans)
        self.counts["spans_without_tokens"] += lost
        return {"span_ids": target_ids, "anchor_span_ids": anchor_ids}

    def finish(self, overlong: str) -> None:
        """Raise or warn about what only the whole dataset can tell."""
        if self._overlong is not None and (overlong == "error" or self.counts["kept"] == 0):
            row_id, target, anchor = self._overlong
            remedy = "Raise max_length, shorten them, or leave them out by overlong: drop."
            if overlong == "drop":
                remedy = "overlong: drop leaves no row: raise max_length, or shorten them."
            raise DataError(
                f"row {row_id!r}: {target} tokens in the target and {anchor} in the anchor, where max_length is "
                f"{self._max_length}; {self.counts['dropped_overlong']} of {self.counts['read']} pairs are too long. "
                f"{remedy}"
            )
        if self._moved is not None:
            warnings.warn(
                f"In {self._moved_count} sides the prompt alone is not tokenised like the beginning of prompt and "
                f"completion (first row {self._moved[0]!r}, {self._moved[1]!r} is lost). Training then sees another "
                "context than generation will; end the prompt on a token boundary, or use a template that renders both "
                "alike.",
                stacklevel=3,
            )


def _has_anchor(row: dict[str, Any], plan: Plan) -> bool:
    return any(row.get(PREFIX + column) is not None for column in plan.columns)
