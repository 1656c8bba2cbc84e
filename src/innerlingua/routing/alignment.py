"""The alignment term of SARA: pull the routing of a target towards that of its anchor.

    L_JS = mean over pairs of  1/|L| * sum over aligned layers l of  JS(P[b, l], Q[b, l])

P is the pooled routing of the anchor (a stored prior, or the current weights), Q that of the target, taken in the same
forward pass that gives the fine-tuning loss. Source: Dong et al., Findings of ACL 2026; the prior as a constant, the
mean over the pairs of the global batch, and what the options other than the defaults do are choices of this package.

The term trains the routers of the aligned layers and, through the hidden states, everything below them. Routers above
the last aligned layer get nothing from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from innerlingua.anatomy import RoutingCapture, RoutingTap, check_routing, compute_type, layer_indices
from innerlingua.anatomy.check import evaluation_mode
from innerlingua.errors import ModelError, PriorError, RecipeError
from innerlingua.routing.divergence import js_unchecked
from innerlingua.routing.fingerprint import describe
from innerlingua.routing.pooling import PooledText, batch_texts, check_pooling, segment_ids
from innerlingua.routing.prior import RoutingPrior

__all__ = ["RoutingAlignment"]


class RoutingAlignment:
    """SARA's alignment loss as a term of the trainer.

    ```python
    prior = RoutingPrior.compute(model, pairs, tokenizer, args=args, layers=range(7, 35))
    trainer = Trainer(model=model, args=args, train_dataset=pairs, terms=[RoutingAlignment(anchor=prior)])
    ```

    Args:
        anchor: a `RoutingPrior`, or `"live"`: the anchor goes through the current weights in the same step, in
            evaluation mode and without language-model head.
        weight: what the term is multiplied with in the loss. With 0 it is measured without gradient and logged.
        layers: aligned decoder layers. By default those of the prior; a live anchor has no default.
        anchor_gradient: let the gradient also flow into a live anchor. The model can then lower the divergence by
            making both sides uniform, so watch the routing entropy.
        pooling: `sequence`, `completion`, `prompt`, or `spans` (each aligned span is a pair; needs a live anchor).
        score: routing distribution, by default the family's.
        verify_weights: refuse a prior that was computed with other weights than the trainer starts from. Set it to
            False when a training is resumed, whose weights have moved.
    """

    name = "routing_alignment"

    def __init__(
        self,
        *,
        anchor: RoutingPrior | str,
        weight: float = 1.5,
        layers: Sequence[int] | None = None,
        anchor_gradient: bool = False,
        pooling: str = "sequence",
        score: str | None = None,
        verify_weights: bool = True,
    ) -> None:
        _check_anchor_kind(anchor)
        _check_weight(weight)
        _check_flags(anchor_gradient=anchor_gradient, verify_weights=verify_weights)
        layers = None if layers is None else layer_indices(layers)
        self.prior = anchor if isinstance(anchor, RoutingPrior) else None
        self.weight = float(weight)
        self.pooling = check_pooling(pooling)
        self.anchor_gradient = anchor_gradient
        self.score = score
        if self.prior is not None:
            _check_against(self.prior, pooling=pooling, score=score, layers=layers, anchor_gradient=anchor_gradient)
            layers = self.prior.layers if layers is None else layers
            self.score = self.prior.score
        if layers is None:
            raise RecipeError("a live anchor needs `layers`: the decoder layers to align, as in layers=range(7, 35)")
        self.layers = layer_indices(layers)
        self.verify_weights = verify_weights
        self._verified: set[str] = set()  # ids whose anchor was compared with the prior's
        self.columns = self._columns()
        self._taps: dict[int, RoutingTap] = {}  # by id of the model, which the tap keeps alive
        self._pad_token_id = 0  # masked, so any id does

    def __repr__(self) -> str:
        anchor = "'live'" if self.prior is None else repr(self.prior)
        return (
            f"RoutingAlignment(weight={self.weight:g}, layers={self.layers}, pooling={self.pooling!r}, anchor={anchor})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # The collator carries the term into data-loading workers, which need no copy of the model.
        return self.__dict__ | {"_taps": {}}

    # -- before training ----------------------------------------------------------------------------------------------

    def check(self, model: nn.Module) -> None:
        """Raise `ModelError` unless `model` routes as expected at the aligned layers and a gradient can reach them.

        Also `PriorError` for a stored prior that was made with other weights, or in another numeric type than a pass of
        `model` would use now. The trainer asks inside the automatic casting of its passes. The routing itself is looked
        at in the type of the weights.
        """
        tap = self._tap(model)
        experts = {layer.num_experts for layer in tap.layers}
        if self.prior is not None and len(self.prior):
            stored = self.prior.rows(self.prior.ids[:1]).shape[-1]
            if experts != {stored}:
                raise PriorError(
                    f"the prior was computed for {stored} experts, the aligned layers have {sorted(experts)}"
                )
        if self.prior is not None:
            if self.verify_weights:
                _check_weights(self.prior, model)
            _check_type(self.prior, model)
        device = next(model.parameters()).device.type
        with torch.autocast(device, enabled=False):
            check_routing(tap, gradient=self.weight > 0)

    # -- one batch ----------------------------------------------------------------------------------------------------

    def collate(self, rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, Tensor]:
        """The term's part of a batch of `rows` that is padded on the right to `width` tokens; keys as in `Term`."""
        paired = [position for position, row in enumerate(rows) if self._has_anchor(row)]
        batch: dict[str, Tensor] = {"pair_index": torch.tensor(paired, dtype=torch.long)}
        if not paired:
            return batch
        if self.pooling != "sequence":
            batch["segments"], batch["pair_index"] = self._target_segments(rows, paired, width)
        if self.prior is not None:
            for position in paired:
                self._check_anchor(self.prior, rows[position])
            prior = self.prior.rows([rows[position]["id"] for position in paired])
            batch["prior"] = prior[:, [self.prior.layers.index(layer) for layer in self.layers]]
        else:
            anchors = [
                PooledText(
                    rows[position]["id"],
                    rows[position]["anchor_input_ids"],
                    segment_ids(rows[position], self.pooling, prefix="anchor_"),
                )
                for position in paired
            ]
            names = ("anchor_input_ids", "anchor_attention_mask", "anchor_segments")
            batch.update(zip(names, batch_texts(anchors, self._pad_token_id), strict=True))
        return batch

    @contextmanager
    def capture(self, model: nn.Module, batch: dict[str, Tensor]) -> Iterator[RoutingCapture]:
        """Capture the targets' routing in the forward pass inside; live anchors go through the model before it.

        Among several processes each makes the anchors' pass, also one whose rows have no anchor: where parameters are
        sharded all must take part in gathering them, or those that do would wait for ever. It sends one token, whose
        routing counts nothing.
        """
        tap = self._tap(model)
        if self.prior is None and ("anchor_input_ids" in batch or _is_distributed()):
            batch["prior"] = self._live(tap, batch)
        with tap.capture(segments=batch.get("segments"), detach=self.weight == 0) as routing:
            yield routing

    def loss(self, captured: RoutingCapture, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """(sum over pairs of the mean over layers of JS, number of pairs), the sum in nats as a scalar tensor."""
        pooled = captured.pooled
        if self.weight > 0 and torch.is_grad_enabled() and not pooled.requires_grad:
            raise ModelError(
                "no gradient flows from the captured routing into the model, so the alignment term would do nothing. "
                "Reentrant gradient checkpointing does this (set gradient_checkpointing_kwargs: "
                "{use_reentrant: false}), and so does freezing everything at and below the aligned layers"
            )
        pairs = batch["pair_index"].numel()
        if pairs == 0:
            nothing = pooled.sum() * 0.0
            # A live anchor with gradient: its graph must run backward here, as it does in the other processes.
            return (nothing + batch["prior"].sum() * 0.0 if "prior" in batch else nothing), 0
        target = pooled[batch["pair_index"].to(pooled.device)]
        anchor = batch["prior"].to(pooled.device)
        return js_unchecked(anchor, target).mean(dim=-1).sum(), pairs

    # -- details ------------------------------------------------------------------------------------------------------

    def _columns(self) -> tuple[str, ...]:
        sides = ("", "anchor_") if self.prior is None else ("",)
        wanted = ["id"] if self.prior is not None else ["id", "anchor_input_ids"]
        if self.pooling in ("completion", "prompt"):
            wanted += [f"{side}labels" for side in sides]
        if self.pooling == "spans":
            wanted += [f"{side}span_ids" for side in sides]
        return tuple(wanted)

    def _check_anchor(self, prior: RoutingPrior, row: Mapping[str, Any]) -> None:
        """Refuse a row whose anchor, where the row has it, is not the one that the prior was computed from."""
        name = row["id"]
        if name in self._verified or name not in prior or "anchor_input_ids" not in row:
            return
        if not prior.holds(name, row["anchor_input_ids"], segment_ids(row, self.pooling, prefix="anchor_")):
            raise PriorError(
                f"the routing prior is stale: the anchor of row {name!r} is not the text that it was computed from "
                "(or other tokens of it are pooled). Compute the prior anew from these rows"
            )
        self._verified.add(name)

    def _has_anchor(self, row: Mapping[str, Any]) -> bool:
        # A row without an anchor says so with None; rows that never had the column have all their anchors in the prior.
        if "anchor_input_ids" in row and row["anchor_input_ids"] is None:
            return False
        return self.pooling != "spans" or max(row["span_ids"], default=-1) >= 0

    def _target_segments(
        self, rows: Sequence[Mapping[str, Any]], paired: Sequence[int], width: int
    ) -> tuple[Tensor, Tensor]:
        """The segments of the targets that have an anchor, (rows, width), and the segment of each pair: all of them."""
        segments = torch.full((len(rows), width), -1)
        offset = 0
        for position in paired:
            local = torch.tensor(segment_ids(rows[position], self.pooling))
            segments[position, : len(local)] = torch.where(local >= 0, local + offset, -1)
            offset += int(local.max()) + 1
        return segments, torch.arange(offset)

    def _live(self, tap: RoutingTap, batch: Mapping[str, Tensor]) -> Tensor:
        nothing = torch.zeros((1, 1), dtype=torch.long, device=batch["pair_index"].device)
        input_ids = batch.get("anchor_input_ids", nothing)
        position_ids = batch.get("anchor_position_ids")
        attention_mask = batch.get("anchor_attention_mask", nothing + 1) if position_ids is None else None
        keep_graph = self.anchor_gradient and self.weight > 0 and torch.is_grad_enabled()
        with (
            evaluation_mode(tap.layers[0].backbone),
            torch.set_grad_enabled(keep_graph),
            tap.capture(segments=batch.get("anchor_segments", nothing)) as routing,
        ):
            output = tap.run(input_ids, attention_mask, position_ids)
        return routing.pooled + 0.0 * output.float().sum() if keep_graph and output is not None else routing.pooled

    def _tap(self, model: nn.Module) -> RoutingTap:
        if id(model) not in self._taps:
            self._taps[id(model)] = RoutingTap(model, self.layers, score=self.score)
        return self._taps[id(model)]


def _check_anchor_kind(anchor: Any) -> None:
    if isinstance(anchor, RoutingPrior) or (isinstance(anchor, str) and anchor == "live"):
        return
    hint = ": RoutingPrior.open reads a stored one" if isinstance(anchor, str | PathLike) else ""
    raise RecipeError(f"the anchor is a RoutingPrior or 'live', not {anchor!r}{hint}")


def _check_weight(weight: Any) -> None:
    if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= float(weight) < float("inf"):
        raise RecipeError(f"the weight of the alignment term must be zero or a positive number, not {weight!r}")


def _check_flags(**flags: Any) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise RecipeError(f"{name} must be True or False, not {value!r}")


def _is_distributed() -> bool:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return distributed and torch.distributed.get_world_size() > 1


def _check_against(
    prior: RoutingPrior,
    *,
    pooling: str,
    score: str | None,
    layers: Sequence[int] | None,
    anchor_gradient: bool,
) -> None:
    if anchor_gradient:
        raise RecipeError("anchor_gradient needs anchor 'live': a stored prior is a constant")
    if pooling != prior.pooling:
        raise PriorError(
            f"the prior was pooled by {prior.pooling!r}, the term asks for {pooling!r}: compute the prior anew"
        )
    if score is not None and score != prior.score:
        raise PriorError(
            f"the prior holds {prior.score!r} distributions, the term asks for {score!r}: compute the prior anew"
        )
    missing = sorted(set(layers or ()) - set(prior.layers))
    if missing:
        raise PriorError(
            f"the prior has no layers {missing} (it has {prior.layers}): compute it with the layers to align"
        )


def _check_type(prior: RoutingPrior, model: nn.Module) -> None:
    """Refuse a prior of another numeric type: some tokens are routed differently in it, and that has no meaning."""
    stored, now = prior.fingerprint["compute"], compute_type(model)
    if stored != now:
        raise PriorError(
            f"the routing prior was computed in {stored}, and the passes of this training compute in {now} (bf16 and "
            "fp16 of the training's arguments decide; bf16 is on by default): a divergence between the two would be "
            "aligned that is only rounding. Compute it with RoutingPrior.compute(..., args=args), or train in its type"
        )


def _check_weights(prior: RoutingPrior, model: nn.Module) -> None:
    """Refuse a prior of other weights. Adapters and the names that they bring are looked through."""
    stored: dict[str, str] = prior.fingerprint["weights"]
    levels = {"base_layer", "original_module"}
    compared, moved = 0, []
    for name, tensor in model.state_dict().items():
        plain = ".".join(level for level in name.removeprefix("base_model.model.").split(".") if level not in levels)
        if plain in stored:
            compared += 1
            if stored[plain] != describe(tensor):
                moved.append(plain)
    if moved or not compared:
        first = (
            f"{len(moved)} of {compared} tensors, the first is {moved[0]}"
            if moved
            else "no tensor has a name in common"
        )
        raise PriorError(
            f"the routing prior was computed with other weights than this model's ({first}). Compute it anew; when a "
            "training is resumed, whose weights have moved, say RoutingAlignment(..., verify_weights=False)"
        )
