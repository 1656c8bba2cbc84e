"""The sides of a profile as batches for the backbone: gathered by id, tokenised, sorted by length, within a bounded
window.

A window holds whole ids, at least `SIDES` sides where there are so many, and everything that is kept per sentence is
kept for one window only. An anchor is in it once, however many languages it is compared with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from innerlingua.data.encode import Plan, encode_sides, plan_for
from innerlingua.data.rows import Content, is_blank
from innerlingua.routing.profile.sides import Meaning, Sides

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SIDES", "Skipped", "TokenBatch", "Window", "batches_of", "windows_of"]

SIDES: Final = 1024
"""Sides of a window: enough to fill batches with sentences of like length, few enough to keep their routing in
memory."""


@dataclass
class Skipped:
    """What was read and not profiled, counted while the windows pass.

    `missing_side`: by language, ids without it. The rest counts pairs: `without_anchor`, `empty` (either side blank),
    `overlong` (either side), each by target language. read = kept + these three. `same_as_anchor` pairs are kept.
    """

    read: int = 0
    missing_side: Counter[str] = field(default_factory=Counter)
    without_anchor: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    overlong: Counter[str] = field(default_factory=Counter)
    same_as_anchor: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Window:
    """Some ids and their sides S, the sides of an id next to each other and its anchor first.

    `ids` are the G ids; of each side, `group` is its id's place, `language` its language's place (0 is the anchor's),
    and `anchor` the place of its id's anchor among the sides.
    """

    ids: list[str]
    token_ids: list[list[int]]
    group: list[int]
    language: list[int]
    anchor: list[int]


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded rows for the backbone, (rows, tokens), and which sides of the window they are."""

    sides: list[int]
    input_ids: Tensor
    attention_mask: Tensor


def windows_of(
    sides: Sides, tokenizer: PreTrainedTokenizerBase, skipped: Skipped, *, max_length: int | None, size: int = SIDES
) -> Iterator[Window]:
    """The windows of `sides`, tokenised as `tokenize_pairs` does; what is left out is counted in `skipped`."""
    languages = [sides.anchor, *sides.targets]
    plan: Plan | None = None
    waiting: list[Meaning] = []
    held = 0
    for meaning in sides:
        kept = _complete(meaning, sides, skipped)
        if kept is None:
            continue
        if plan is None:
            example: dict[str, Any] = {"id": meaning.name, "language": sides.anchor, **kept.sides[sides.anchor]}
            plan = plan_for(Dataset.from_list([example]), tokenizer, None, False, {})
        waiting.append(kept)
        held += len(kept.sides)
        if held >= size:
            yield from _window(waiting, languages, plan, skipped, max_length)
            waiting, held = [], 0
    if waiting and plan is not None:
        yield from _window(waiting, languages, plan, skipped, max_length)


def _complete(meaning: Meaning, sides: Sides, skipped: Skipped) -> Meaning | None:
    """The id with the anchor and the targets that are not blank, the anchor first; None when no pair is left."""
    for language in (sides.anchor, *sides.targets):
        skipped.missing_side[language] += language not in meaning.sides
    targets = [language for language in sides.targets if language in meaning.sides]
    skipped.read += len(targets)
    anchor = meaning.sides.get(sides.anchor)
    if anchor is None:
        skipped.without_anchor.update(targets)
        return None
    kept: dict[str, Content] = {}
    for language in targets:
        content = meaning.sides[language]
        if is_blank(anchor) or is_blank(content):
            skipped.empty[language] += 1
        else:
            kept[language] = content
    return Meaning(meaning.name, {sides.anchor: anchor, **kept}) if kept else None


def _window(
    meanings: Sequence[Meaning], languages: Sequence[str], plan: Plan, skipped: Skipped, max_length: int | None
) -> Iterator[Window]:
    names = [f"{meaning.name} ({language})" for meaning in meanings for language in meaning.sides]
    contents = [content for meaning in meanings for content in meaning.sides.values()]
    encoded = iter([side.input_ids for side in encode_sides(contents, names, plan)])
    place = {language: position for position, language in enumerate(languages)}
    anchor_language = languages[0]
    window = Window([], [], [], [], [])
    for meaning in meanings:
        tokens = {language: next(encoded) for language in meaning.sides}
        long = {language for language, ids in tokens.items() if max_length is not None and len(ids) > max_length}
        targets = [language for language in tokens if language != anchor_language]
        kept = [language for language in targets if language not in long and anchor_language not in long]
        skipped.overlong.update(set(targets) - set(kept))
        skipped.same_as_anchor.update(
            language for language in kept if meaning.sides[language] == meaning.sides[anchor_language]
        )
        if not kept:
            continue
        first = len(window.token_ids)
        for language in (anchor_language, *kept):
            window.token_ids.append(tokens[language])
            window.group.append(len(window.ids))
            window.language.append(place[language])
            window.anchor.append(first)
        window.ids.append(meaning.name)
    if window.ids:
        yield window


def batches_of(window: Window, *, batch_tokens: int, pad_token_id: int) -> Iterator[TokenBatch]:
    """Batches of sides of like length, the longest first, of at most `batch_tokens` positions with padding (one row
    at least)."""
    lengths = [len(ids) for ids in window.token_ids]
    order = sorted(range(len(lengths)), key=lambda side: lengths[side], reverse=True)
    start = 0
    while start < len(order):
        width = lengths[order[start]]
        chunk = order[start : start + max(1, batch_tokens // width)]
        start += len(chunk)
        ids = np.full((len(chunk), width), pad_token_id, dtype=np.int64)
        mask = np.zeros((len(chunk), width), dtype=np.int64)
        for row, side in enumerate(chunk):
            ids[row, : lengths[side]] = window.token_ids[side]
            mask[row, : lengths[side]] = 1
        yield TokenBatch(chunk, torch.from_numpy(ids), torch.from_numpy(mask))
