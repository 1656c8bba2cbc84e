"""What the study measures on pairs that no run saw: routing divergence per layer, and loss per token and per byte.

One forward pass per sentence gives both the loss and the pooled routing. The JS of a language at a layer is the mean
over pairs of `js_divergence(pooled target, pooled English)` in nats, both sides under the same weights. Beside it
stands `js_mismatched`, the same with the English of another sentence (each row with the next in the order of a hash
of its id): where the two are equal, what is shared is the language's or the domain's and not the sentence's meaning.
The entropy of the pooled routing tells whether a fall of JS came from both sides going uniform.

Loss is summed over all tokens but the first (nothing predicts it), the end token included; per byte it is divided by
the UTF-8 bytes of the whole sentence.

Intervals are over sentences, 95 %, by a Poisson bootstrap of 200 replicates whose weights come from a hash of (seed,
id), so that runs and languages share them and differences between runs are paired.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from corpus import ANCHOR, TARGETS, Sentence
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerlingua import capture_routing, js_divergence

REPLICATES = 200


@dataclass(frozen=True)
class Passed:
    """One language of one set under one model, sentences in order: summed loss, tokens, bytes, pooled routing."""

    nats: NDArray[np.float64]  # (sentences,)
    tokens: NDArray[np.int64]  # (sentences,), predicted tokens
    bytes: NDArray[np.int64]  # (sentences,)
    pooled: Tensor  # (sentences, layers, experts)


def fitting(
    sentences: Sequence[Sentence], tokenizer: PreTrainedTokenizerFast, *, max_length: int
) -> tuple[list[Sentence], int]:
    """The sentences that are short enough in all six languages, and how many are not."""
    kept = [
        sentence
        for sentence in sentences
        if all(len(ids) < max_length for ids in tokenizer([sentence.text[x] for x in (ANCHOR, *TARGETS)])["input_ids"])
    ]
    return kept, len(sentences) - len(kept)


@torch.no_grad()
def pass_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, batch_size: int = 32
) -> Passed:
    """Send `texts`, each closed by the end token, through the model in evaluation mode."""
    model.eval()  # type: ignore[no-untyped-call]
    encoded = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(texts))["input_ids"]]
    order = sorted(range(len(texts)), key=lambda row: len(encoded[row]))
    nats = np.zeros(len(texts))
    pooled: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        width = max(len(encoded[row]) for row in chunk)
        input_ids = torch.full((len(chunk), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(input_ids)
        for place, row in enumerate(chunk):
            input_ids[place, : len(encoded[row])] = torch.tensor(encoded[row])
            mask[place, : len(encoded[row])] = 1
        with capture_routing(model) as routing:
            logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction="none")
        nats[chunk] = (losses * mask[:, 1:]).sum(dim=1).numpy()
        pooled.update(zip(chunk, routing.pooled, strict=True))
    return Passed(
        nats,
        np.array([len(ids) - 1 for ids in encoded]),
        np.array([len(text.encode()) for text in texts]),
        torch.stack([pooled[row] for row in range(len(texts))]),
    )


def bootstrap_weights(ids: Sequence[str], *, seed: int) -> NDArray[np.float64]:
    """Poisson(1) weights, (replicates, sentences); those of a sentence depend on the seed and its id alone."""
    columns = []
    for name in ids:
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        columns.append(np.random.default_rng(int.from_bytes(digest[:8], "big")).poisson(1.0, REPLICATES))
    return np.stack(columns, axis=1).astype(np.float64)


def interval(top: NDArray[np.float64], bottom: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float]:
    """[low, high] of sum(top) / sum(bottom) over the replicates: 95 %."""
    ratios = (weights @ top) / (weights @ bottom)
    return [round(float(bound), 5) for bound in np.quantile(ratios, [0.025, 0.975])]


def mismatch(ids: Sequence[str]) -> list[int]:
    """For each row the position of another one, the next in the order of a hash of its id."""
    order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(ids[row].encode()).hexdigest())
    following = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return [following[row] for row in range(len(ids))]


def entropy(pooled: Tensor) -> Tensor:
    """Entropy in nats over the last dimension."""
    total: Tensor = torch.special.entr(pooled).sum(dim=-1)
    return total


def measure_set(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    sentences: Sequence[Sentence],
    *,
    aligned: Sequence[int],
    layers: Sequence[int],
    seed: int,
) -> dict[str, dict[str, dict[str, object]]]:
    """Every model on one set: {run: {language: numbers}}; `layers` are the decoder layers of all MoE layers in order.

    With a run called `sft` and one called `sara*`, the differences from `sft` are given with their own paired
    intervals.
    """
    ids = [sentence.id for sentence in sentences]
    weights = bootstrap_weights(ids, seed=seed)
    ones = np.ones(len(ids))
    other = mismatch(ids)
    columns = [list(layers).index(layer) for layer in aligned]
    per_run: dict[str, dict[str, dict[str, object]]] = {}
    divergences: dict[tuple[str, str], NDArray[np.float64]] = {}
    losses: dict[tuple[str, str], NDArray[np.float64]] = {}
    for name, model in models.items():
        passed = {
            language: pass_texts(model, tokenizer, [sentence.text[language] for sentence in sentences])
            for language in (ANCHOR, *TARGETS)
        }
        per_run[name] = {}
        for language, found in passed.items():
            numbers: dict[str, object] = {
                "n": len(ids),
                "tokens": int(found.tokens.sum()),
                "bytes": int(found.bytes.sum()),
                "nats_per_token": round(float(found.nats.sum() / found.tokens.sum()), 4),
                "nats_per_token_interval": interval(found.nats, found.tokens.astype(float), weights),
                "nats_per_byte": round(float(found.nats.sum() / found.bytes.sum()), 5),
                "nats_per_byte_interval": interval(found.nats, found.bytes.astype(float), weights),
                "entropy_aligned": round(float(entropy(found.pooled)[:, columns].mean()), 4),
            }
            losses[name, language] = found.nats
            if name != "sft" and ("sft", language) in losses:
                change = found.nats - losses["sft", language]
                numbers["nats_per_token_minus_sft"] = round(float(change.sum() / found.tokens.sum()), 4)
                numbers["nats_per_token_minus_sft_interval"] = interval(change, found.tokens.astype(float), weights)
            if language != ANCHOR:
                anchors = passed[ANCHOR].pooled
                js = js_divergence(anchors, found.pooled).double().numpy()
                wrong = js_divergence(anchors[other], found.pooled).double().numpy()
                means = js_divergence(anchors.mean(dim=0), found.pooled.mean(dim=0)).tolist()
                in_aligned = js[:, columns].mean(axis=1)
                divergences[name, language] = in_aligned
                numbers |= {
                    "js": {
                        str(layer): round(float(value), 5) for layer, value in zip(layers, js.mean(axis=0), strict=True)
                    },
                    "js_of_means": {str(layer): round(value, 5) for layer, value in zip(layers, means, strict=True)},
                    "js_aligned": round(float(in_aligned.mean()), 5),
                    "js_aligned_interval": interval(in_aligned, ones, weights),
                    "js_aligned_mismatched": round(float(wrong[:, columns].mean()), 5),
                    "matched_minus_mismatched_interval": interval(
                        in_aligned - wrong[:, columns].mean(axis=1), ones, weights
                    ),
                }
                if name != "sft" and ("sft", language) in divergences:
                    change = in_aligned - divergences["sft", language]
                    numbers["js_aligned_minus_sft"] = round(float(change.mean()), 5)
                    numbers["js_aligned_minus_sft_interval"] = interval(change, ones, weights)
            per_run[name][language] = numbers
    return per_run
