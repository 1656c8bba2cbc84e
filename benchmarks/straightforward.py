"""SARA the straightforward way: what one writes from the paper on top of `trl.SFTTrainer`, to measure ours against.

The target goes through the model with `output_router_logits=True`, the anchor through the same model, whole and with
its head, without gradient; the router logits of all layers become distributions for every token, and these are kept,
averaged over the tokens and compared. The model's own loss is taken, since TRL 1.16 hands out no router logits of its
fused head (with `return_outputs=True` it gives those of a further forward pass, which carry no gradient).

The value of the loss is that of ours to the digits that float32 has, which `step.py` asserts: cross-entropy over the
items of the step, the load-balancing loss with the checkpoint's coefficient, and the weighted mean over pairs and
aligned layers of JS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from trl import SFTTrainer

from innerlingua import Trainer


class CollatePairs:
    """TRL's batch of the targets, and the padded anchors beside it."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.base(rows)
        anchors = [torch.tensor(row["anchor_input_ids"]) for row in rows]
        batch["anchor_input_ids"] = pad_sequence(anchors, batch_first=True, padding_value=0)
        masks = [torch.ones_like(anchor) for anchor in anchors]
        batch["anchor_attention_mask"] = pad_sequence(masks, batch_first=True, padding_value=0)
        return batch


class ModelHeadTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is not typed
    """The plain part of the straightforward way: the model's own head and loss in place of TRL's fused ones."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        outputs = model(**inputs, use_cache=False, output_router_logits=True, num_items_in_batch=num_items_in_batch)
        # The balance loss is a mean over the micro-batches of a step, as TRL has it; the cross-entropy is one already.
        repeated = 1 - 1 / self.current_gradient_accumulation_steps
        loss = outputs.loss - repeated * self.router_aux_loss_coef * outputs.aux_loss
        return (loss, outputs) if return_outputs else loss


class SameHeadTrainer(Trainer, ModelHeadTrainer):
    """Ours on that head and loss: what is left between it and the straightforward way is the alignment alone."""


class StraightforwardTrainer(ModelHeadTrainer):
    """Live anchors, with `layers` aligned at `weight`."""

    def __init__(self, *, layers: Sequence[int], weight: float, **kwargs: Any) -> None:
        self.layers, self.weight = list(layers), weight
        kwargs["args"].remove_unused_columns = False
        super().__init__(**kwargs)
        self.data_collator = CollatePairs(self.data_collator)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        anchor_ids, anchor_mask = inputs.pop("anchor_input_ids"), inputs.pop("anchor_attention_mask")
        plain_loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        model.eval()
        with torch.no_grad():
            anchor = model(input_ids=anchor_ids, attention_mask=anchor_mask, use_cache=False, output_router_logits=True)
        model.train()
        target_BLE = self._pooled(outputs.router_logits, inputs["attention_mask"])
        anchor_BLE = self._pooled(anchor.router_logits, anchor_mask)
        aligned = js(anchor_BLE, target_BLE).mean() / self.current_gradient_accumulation_steps
        loss = plain_loss + self.weight * aligned
        return (loss, outputs) if return_outputs else loss

    def _pooled(self, router_logits: Sequence[Tensor], mask_BT: Tensor) -> Tensor:
        probabilities = [torch.softmax(logits.float(), dim=-1).view(*mask_BT.shape, -1) for logits in router_logits]
        routing_BTLE = torch.stack(probabilities, dim=2)
        weight_BT = mask_BT / mask_BT.sum(dim=1, keepdim=True)
        return (routing_BTLE * weight_BT[:, :, None, None]).sum(dim=1)[:, self.layers]


def js(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence over the last dimension, nats."""
    mean = (p + q) / 2
    return ((p * (p / mean).log()).sum(dim=-1) + (q * (q / mean).log()).sum(dim=-1)) / 2
