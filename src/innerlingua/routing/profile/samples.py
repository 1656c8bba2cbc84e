"""A few sentence pairs kept whole for looking at: their tokens, and the experts that each token chose in each layer.

The pairs are drawn by the hash of (seed, id), so that languages and profiles show the same sentences; pairs with a side
longer than `LONGEST` tokens come only when there are too few others, because a page has to hold them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from innerlingua.anatomy import MoELayer
from innerlingua.anatomy.layers import on_routing
from innerlingua.routing.divergence import js_divergence
from innerlingua.routing.profile.bootstrap import id_hash
from innerlingua.routing.profile.watch import device_of, named_experts, watch_routing
from innerlingua.routing.profile.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["LONGEST", "SampleDraw", "sample_records", "token_texts"]

LONGEST: Final = 96


@dataclass(frozen=True)
class _Pair:
    name: str
    target: list[int]
    anchor: list[int]


class SampleDraw:
    """Keeps, for each language, the pairs that come first by (longer than `LONGEST`, hash of the id)."""

    def __init__(self, number: int, languages: int, *, seed: int) -> None:
        """`number` pairs in all, spread over the `languages` targets, and one of each at least; 0 keeps none."""
        each, rest = divmod(number, languages)
        self._quota = [max(1, each + (at < rest)) if number else 0 for at in range(languages)]
        self._seed = seed
        self._heaps: list[list[tuple[tuple[int, int], str, _Pair]]] = [[] for _ in range(languages)]

    def offer(self, window: Window) -> None:
        """Look at the pairs of a window."""
        for side, language in enumerate(window.language):
            if language == 0 or not self._quota[language - 1]:
                continue
            name = window.ids[window.group[side]]
            pair = _Pair(name, window.token_ids[side], window.token_ids[window.anchor[side]])
            long = max(len(pair.target), len(pair.anchor)) > LONGEST
            # heapq keeps the smallest on top, which is the first to go: the order is turned round.
            entry = ((-int(long), -id_hash(name, self._seed)), name, pair)
            heap = self._heaps[language - 1]
            if len(heap) < self._quota[language - 1]:
                heapq.heappush(heap, entry)
            elif entry[0] > heap[0][0]:
                heapq.heapreplace(heap, entry)

    def drawn(self) -> list[tuple[int, _Pair]]:
        """The pairs kept, as (place of the language among the targets, pair), by language and then by draw."""
        return [
            (language, pair)
            for language, heap in enumerate(self._heaps)
            for _, _, pair in sorted(heap, key=lambda entry: entry[0], reverse=True)
        ]


@torch.no_grad()
def sample_records(
    draw: SampleDraw,
    layers: Sequence[MoELayer],
    tokenizer: PreTrainedTokenizerBase,
    targets: Sequence[str],
    *,
    score: str | None,
) -> list[dict[str, Any]]:
    """The drawn pairs as records of `samples.json`; the model must be in evaluation mode."""
    records = []
    for language, pair in draw.drawn():
        target, target_mean = _side(pair.target, layers, tokenizer, score)
        anchor, anchor_mean = _side(pair.anchor, layers, tokenizer, score)
        divergence = js_divergence(target_mean.double(), anchor_mean.double())
        records.append(
            {
                "id": pair.name,
                "language": targets[language],
                "target": target,
                "anchor": anchor,
                "js": [float(f"{value:.6g}") for value in divergence.tolist()],
            }
        )
    return records


def _side(
    token_ids: list[int], layers: Sequence[MoELayer], tokenizer: PreTrainedTokenizerBase, score: str | None
) -> tuple[dict[str, Any], Tensor]:
    backbone = layers[0].backbone
    input_ids = torch.tensor([token_ids], device=device_of(backbone))
    mask = torch.ones_like(input_ids)
    chosen: dict[int, list[list[int]]] = {}

    def keeper(layer: MoELayer) -> Callable[[Tensor, Any], None]:
        def keep(logits: Tensor, output: Any) -> None:
            chosen[layer.index] = named_experts(layer, logits, output).tolist()

        return keep

    handles = [handle for layer in layers for handle in on_routing(layer, keeper(layer))]
    try:
        with watch_routing(layers, mask, score=score) as found:
            backbone(input_ids=input_ids, attention_mask=mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    side = {"tokens": token_texts(token_ids, tokenizer), "experts": [chosen[layer.index] for layer in layers]}
    return side, found.mean[0].cpu()


def token_texts(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each token adds to the text; together they are the text.

    Where a character is split over several tokens, as byte-level vocabularies do with other scripts, the last of them
    has the character and those before it are empty.
    """
    texts = []
    shown = ""
    for end in range(1, len(token_ids) + 1):
        whole = str(
            tokenizer.decode(list(token_ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )
        if whole.endswith("\ufffd") and end < len(token_ids):
            texts.append("")
            continue
        # A decoder that rewrites what came before leaves nothing to add by position; then the token's own text stands.
        texts.append(whole[len(shown) :] if whole.startswith(shown) else str(tokenizer.decode([token_ids[end - 1]])))
        shown = whole
    return texts
