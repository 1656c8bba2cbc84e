"""The pass: a model, rows of parallel text, and what the routing of each language does in each layer.

Every side goes once through the backbone (no language-model head, evaluation mode, no gradient), an anchor once for
all its languages. Inside the forward pass the routing of each sentence is taken (`watch`), after each window of
sentences it is added to sums that do not grow (`totals`), and at the end estimates and intervals are read from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from transformers import PreTrainedModel

from innerlingua.anatomy import MoELayer, RoutingTap, check_routing
from innerlingua.anatomy.check import evaluation_mode
from innerlingua.data import LANGUAGES, check_language
from innerlingua.errors import DataError, ModelError
from innerlingua.routing.fingerprint import hash_text, model_fingerprint
from innerlingua.routing.profile.bootstrap import LEVEL
from innerlingua.routing.profile.layout import SCHEMA
from innerlingua.routing.profile.record import assemble
from innerlingua.routing.profile.samples import SampleDraw, sample_records
from innerlingua.routing.profile.sides import Sides
from innerlingua.routing.profile.totals import Measured, Totals
from innerlingua.routing.profile.watch import device_of, watch_routing
from innerlingua.routing.profile.windows import Skipped, Window, batches_of, windows_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["RoutingProfile", "measure_window", "profile_routing"]

# Small batches stay in a CPU's caches and waste little on padding: 1024 is a fifth faster than 4096 there.
_BATCH_TOKENS: Final = 1024
_BATCH_TOKENS_ACCELERATOR: Final = 8192


@dataclass(frozen=True)
class RoutingProfile:
    """One profile: `record` as it stands in `profile.json`, and the tensors and samples of the other files.

    `mean` and `load` are (languages, layers, experts) float32, in the order of `record["languages"]`; `replicates`
    holds for each measure the bootstrap estimates, (replicates, languages, layers) float32, from which intervals of
    differences come.
    """

    record: dict[str, Any]
    mean: Tensor
    load: Tensor
    replicates: dict[str, Tensor]
    samples: list[dict[str, Any]]


def profile_routing(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sides: Sides,
    *,
    label: str,
    layers: Sequence[int] | None = None,
    score: str | None = None,
    max_length: int | None = None,
    batch_tokens: int | None = None,
    seed: int = 0,
    replicates: int = 200,
    top_experts: int = 15,
    threshold: float = 0.4,
    samples: int = 24,
    seen_in_training: Sequence[str] | None = None,
    command: str = "",
    progress: bool = False,
) -> RoutingProfile:
    """Profile the routing of `model` on the meanings of `sides`.

    Args:
        model: a transformers MoE model, on its device; left in the mode it is in.
        tokenizer: of the model.
        sides: what `read_sides` read; it may be used for any number of profiles.
        label: the name of this profile beside others.
        layers: decoder-layer indices; all MoE layers by default.
        score: routing distribution, by default the family's.
        max_length: the most tokens of a side; by default, and at most, what the model's positions allow. A pair with a
            longer side is left out and counted.
        batch_tokens: positions of a batch, padding included; 1024 on a CPU and 8192 elsewhere by default.
        seed: of the bootstrap and of the choice of samples.
        replicates: of the bootstrap.
        top_experts, threshold: of the rule for shared and exclusive experts (`measures.expert_shares`).
        samples: pairs kept whole; 0 keeps no text.
        seen_in_training: the languages that the model was trained on, when known; stored as it is.
        command: what to store as the command.
        progress: show a progress bar.

    Raises:
        ModelError: no MoE layers, layers that do not exist or differ in their experts, routing that fails the
            self-check.
        DataError: no pair is left, an unknown language in `seen_in_training`, options out of range, rows that the
            tokenizer cannot render.
    """
    for code in seen_in_training or []:
        # A misspelt code would call a language that was trained on never seen.
        check_language(code, "seen_in_training", known={**LANGUAGES, **sides.names})
    tap = RoutingTap(model, layers, score=score)
    moe_layers = tap.layers
    experts, top_k = _uniform(moe_layers)
    check_routing(tap)
    backbone = moe_layers[0].backbone
    config = backbone.config.get_text_config()
    context = config.to_dict().get("max_position_embeddings")
    limits = [limit for limit in (max_length, context) if isinstance(limit, int)]
    max_length = min(limits) if limits else None
    device = device_of(backbone)
    if batch_tokens is None:
        batch_tokens = _BATCH_TOKENS if device.type == "cpu" else _BATCH_TOKENS_ACCELERATOR
    _check_options(batch_tokens, replicates, top_experts, threshold, samples, max_length)
    vocabulary = _vocabulary(backbone, tokenizer)
    languages = [sides.anchor, *sides.targets]
    totals = Totals(
        languages=len(languages),
        layers=len(moe_layers),
        experts=experts,
        top_k=top_k,
        replicates=replicates,
        seed=seed,
        # Sums are float64, which Apple's GPUs lack.
        device=device if device.type in ("cpu", "cuda") else torch.device("cpu"),
    )
    skipped = Skipped()
    draw = SampleDraw(samples, len(sides.targets), seed=seed)
    pad_token_id = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0
    with evaluation_mode(backbone), torch.no_grad(), _bar(sides.total, enabled=progress) as advance:
        for window in windows_of(sides, tokenizer, skipped, max_length=max_length):
            _check_tokens(window, vocabulary, sides)
            measured = measure_window(
                window, moe_layers, score=score, batch_tokens=batch_tokens, pad_token_id=pad_token_id, advance=advance
            )
            totals.add(window, measured)
            draw.offer(window)
        kept = sample_records(draw, moe_layers, tokenizer, sides.targets, score=score)
    _check_any(sides, totals, skipped, max_length)
    record, estimates = assemble(
        totals, sides, skipped, layers=moe_layers, depth=config.num_hidden_layers, top=top_experts, threshold=threshold
    )
    record = {
        "schema": SCHEMA,
        "command": command,
        "versions": {name: version(name) for name in ("innerlingua", "torch", "transformers")},
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": str(backbone.config.name_or_path),
            "model_type": config.model_type,
            "layers": [layer.index for layer in moe_layers],
            "depth": config.num_hidden_layers,
            "experts": experts,
            "top_k": top_k,
            "score": score or moe_layers[0].score,
            "weights": hash_text(json.dumps(model_fingerprint(backbone)["weights"], sort_keys=True)),
        },
        "label": label,
        **record,
        "settings": {
            "bootstrap": replicates,
            "level": LEVEL,
            "K": top_experts,
            "threshold": threshold,
            "max_length": max_length,
            "batch_tokens": batch_tokens,
            "limit": sides.limit,
            "samples": len(kept),
            "pooling": "sequence",
        },
    }
    record["data"]["seen_in_training"] = None if seen_in_training is None else list(seen_in_training)
    return RoutingProfile(record, estimates.mean, estimates.load, estimates.replicates, kept)


def measure_window(
    window: Window,
    layers: Sequence[MoELayer],
    *,
    score: str | None,
    batch_tokens: int,
    pad_token_id: int,
    advance: Callable[[int], None] = lambda sides: None,
) -> Measured:
    """Send a window's sides through the backbone of `layers` and take their routing, on the model's device."""
    backbone = layers[0].backbone
    device = device_of(backbone)
    number = len(window.token_ids)
    shape = (number, len(layers), layers[0].num_experts)
    mean, counts = torch.empty(shape, device=device), torch.empty(shape, device=device)
    entropy = torch.empty(shape[:2], device=device)
    for batch in batches_of(window, batch_tokens=batch_tokens, pad_token_id=pad_token_id):
        mask = batch.attention_mask.to(device)
        with watch_routing(layers, mask, score=score) as found:
            backbone(input_ids=batch.input_ids.to(device), attention_mask=mask, use_cache=False)
        sides = torch.tensor(batch.sides, device=device)
        mean[sides], entropy[sides], counts[sides] = found.mean, found.entropy, found.counts
        advance(len(batch.sides))
    return Measured(mean, entropy, counts)


@contextmanager
def _bar(total: int, *, enabled: bool) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not enabled) as bar:
        task = bar.add_task("Routing profile", total=total, rate="")

        def advance(sides: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=sides, rate=f"{speed:.0f} sentences/s" if speed else "")

        yield advance
        bar.update(task, completed=total)


def _uniform(layers: Sequence[MoELayer]) -> tuple[int, int]:
    """Experts and top-k of all layers; `ModelError` when they differ."""
    sizes = {(layer.num_experts, layer.top_k) for layer in layers}
    if len(sizes) > 1:
        found = ", ".join(f"layer {layer.index}: {layer.num_experts} (top {layer.top_k})" for layer in layers)
        raise ModelError(
            f"the layers differ in their experts ({found}): profile layers of one size at a time, by layers"
        )
    return next(iter(sizes))


def _vocabulary(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the model has embeddings for; `ModelError` for a tokenizer that knows no text."""
    # For a folder without the files of a tokenizer, transformers makes an empty one of the model's class.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelError(
            f"the tokenizer has no vocabulary (its {len(tokenizer)} entries are special tokens), so all text would be "
            "the same to it: put the tokenizer's files beside the model (tokenizer.save_pretrained)"
        )
    weight = backbone.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.shape[0]


def _check_tokens(window: Window, vocabulary: int, sides: Sides) -> None:
    largest = max(max(ids, default=0) for ids in window.token_ids)
    if largest >= vocabulary:
        side = next(at for at, ids in enumerate(window.token_ids) if max(ids, default=0) == largest)
        name, code = window.ids[window.group[side]], [sides.anchor, *sides.targets][window.language[side]]
        raise ModelError(
            f"the tokenizer is not the model's: it gives token {largest} (id {name!r}, {code}), and "
            f"the model has embeddings for {vocabulary} tokens"
        )


def _check_options(
    batch_tokens: int, replicates: int, top_experts: int, threshold: float, samples: int, max_length: int | None
) -> None:
    least = {"batch_tokens": (batch_tokens, 1), "bootstrap": (replicates, 20), "top_experts": (top_experts, 1)}
    least |= {"samples": (samples, 0), "max_length": (1 if max_length is None else max_length, 1)}
    for name, (value, limit) in least.items():
        if value < limit:
            raise DataError(f"{name.replace('_', '-')} is {value}; it must be at least {limit}")
    if not 0 < threshold <= 1:
        raise DataError(f"threshold is {threshold}; it is a share, above 0 and at most 1")


def _check_any(sides: Sides, totals: Totals, skipped: Skipped, max_length: int | None) -> None:
    if any(totals.sides[1:]):
        return
    raise DataError(
        f"{', '.join(sides.files)}: no pair is left of {skipped.read}: {sum(skipped.without_anchor.values())} without "
        f"{sides.anchor}, {sum(skipped.empty.values())} with an empty side, {sum(skipped.overlong.values())} with a "
        f"side of more than {max_length} tokens"
    )
