"""TRL's SFTTrainer with more loss terms.

    loss = SFTTrainer's loss (cross-entropy, and the load-balancing loss where the model has one)
           + sum over terms of weight * (sum over all pairs of the step) / (number of pairs of the step)

The step is the global batch: every rank and every accumulated micro-batch. A term is therefore a mean over its pairs
however they are split up, also when the last micro-batches are smaller. Only `get_batch_samples` (which sees all
micro-batches of a step and counts the pairs), `compute_loss`, and `_get_grad_norm` (where alone the norm is known
before the step, at no cost) are overridden, each through `super()`; without terms they change nothing at all. With or
without terms, a resume that would lose weights is refused (`resume.py`), and a training that diverges is stopped
(`divergence.py`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from innerlingua.anatomy import check_joined_rows, find_moe_layers, mixed_precision
from innerlingua.anatomy.leaves import gather_experts_together
from innerlingua.errors import InnerlinguaError, ModelError, RecipeError
from innerlingua.training.collate import TermCollator, split_batch
from innerlingua.training.divergence import ConstantTerms, DivergenceError, WeightGuard, refuse_loss, refuse_norm
from innerlingua.training.refusals import checked_terms, refuse_conflicts, refuse_parallelism
from innerlingua.training.resume import ResumeGuard
from innerlingua.training.rows import prepare_rows
from innerlingua.training.sharding import is_zero_3
from innerlingua.training.terms import Term

__all__ = ["Trainer"]


class Trainer(SFTTrainer):  # type: ignore[misc]  # TRL is not typed
    """`trl.SFTTrainer` with loss terms; every other argument is TRL's.

    ```python
    trainer = Trainer(model=model, args=SFTConfig(...), train_dataset=pairs, terms=[RoutingAlignment(anchor=prior)])
    ```

    With terms, `train_dataset` holds pairs as `read_pairs` or `tokenize_pairs` give them. Each term is logged under its
    name (the plain mean over pairs) and as `<name>_weighted` (what it adds to the loss). Text is never cut: a row or an
    anchor that is longer than `args.max_length` is a `DataError`. Rows without an anchor are trained as plain rows, and
    one warning says how many there are; when no row has one, that is a `DataError`. Raises `RecipeError` for arguments
    that would make a term silently wrong, and whatever the terms' own checks raise.

    `packing` is the number of tokens up to which whole rows of `train_dataset` are laid end to end, anchors and ids
    kept; batches are then padding-free. `SFTConfig(padding_free=True)` does the latter alone, with the rows of a batch.
    Rows that lie end to end do not see each other: with `packing` or terms, a model that lets them is a `ModelError`.
    """

    data_collator: Any

    def __init__(
        self,
        model: Any,
        args: SFTConfig | None = None,
        *,
        terms: Sequence[Term] | None = (),
        packing: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.terms = checked_terms(terms)
        note = None
        if self.terms or packing is not None:
            args = SFTConfig() if args is None else copy(args)  # changed below; the caller's own may serve another run
            refuse_conflicts(args, self.terms, kwargs)
            rows = prepare_rows(args, self.terms, kwargs, packing=packing)
            kwargs = kwargs | {"train_dataset": rows.train_dataset, "eval_dataset": rows.eval_dataset}
            args.padding_free = args.padding_free or packing is not None
            note = rows.note()
            # Decided above, on both sides of the pair; TRL would cut the target alone, and without a word.
            args.max_length = None
            args.remove_unused_columns = False
            # The labels say it already, and TRL would refuse rows that are no longer messages.
            args.assistant_only_loss = False
        super().__init__(model, args, **kwargs)
        if is_zero_3(self.args):
            gather_experts_together(self.model)
        self._name_the_number_of_experts()
        self.add_callback(ResumeGuard(self.model))
        self.add_callback(WeightGuard(self._summed))
        self._loss_of_step: Tensor | None = None
        if not self.terms:
            if packing is not None:
                self._check_model()
            return
        # TRL may itself turn this on (ZeRO-3 with PEFT).
        if self.args.gradient_checkpointing and (self.args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            raise RecipeError(
                "reentrant gradient checkpointing drops the gradient of the routing without a word: set "
                "gradient_checkpointing_kwargs: {use_reentrant: false}, or gradient_checkpointing: false"
            )
        # A launcher or the model may bring what the arguments do not say.
        refuse_parallelism(
            self.terms, tensor=self.get_tp_size(), context=self.get_cp_size(), sequence=self.get_sp_size()
        )
        self._check_model()
        self.data_collator = TermCollator(self.data_collator, self.terms)
        self._pairs_of_step = torch.zeros(len(self.terms), dtype=torch.long)
        self._sums = _RunningSums([term.name for term in self.terms])
        self._constant = ConstantTerms([term.name for term in self.terms], [term.weight for term in self.terms])
        self.add_callback(_StartEvaluation(self._sums))
        if note is not None and self.accelerator.is_main_process:
            warnings.warn(note, stacklevel=2)

    def _check_model(self) -> None:
        """Let each term look at the model, and see that it keeps rows apart where they are laid end to end.

        What one process refuses is raised in all, or the others would wait.
        """
        refused: list[InnerlinguaError | None] = [None]
        try:
            # FSDP may load the weights in the first process of a machine alone, which then looks for the others.
            elsewhere = any(parameter.is_meta for parameter in self.model.parameters())
            if not elsewhere or self.accelerator.num_processes == 1:
                with self._casting():
                    if self.padding_free:
                        check_joined_rows(self.model, self.data_collator)
                    for term in self.terms:
                        term.check(self.model)
        except InnerlinguaError as error:
            refused = [error]
        if self.accelerator.num_processes > 1:
            own, refused = refused[0], gather_object(refused)
            refused = [own, *refused]
        for refusal in refused:
            if refusal is not None:
                raise refusal

    def _casting(self) -> torch.autocast:
        """The automatic casting of the training's passes. accelerate puts it around the whole model's forward alone."""
        return mixed_precision(self.args.mixed_precision, self.accelerator.device)

    def _name_the_number_of_experts(self) -> None:
        """TRL computes the balance loss by itself and reads `num_experts`, which some families (PhiMoE, Granite,
        Llama 4) call otherwise: it would end in an AttributeError at the first step."""
        config = self.model.config.get_text_config()
        if self.aux_loss_enabled and not hasattr(config, "num_experts"):
            config.num_experts = find_moe_layers(self.model)[0].num_experts

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one step; counts the pairs of each term over all of them and all ranks.

        None are left for a run that is resumed after its last step. transformers would make one more.
        """
        if 0 < self.state.max_steps <= self.state.global_step:
            self.control.should_training_stop = True
            return [], None
        self._loss_of_step = None  # an earlier training may have ended between the micro-batches of a step
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.terms:
            counts = torch.zeros(len(self.terms), dtype=torch.long)
            for batch in batches:
                _, entries = split_batch(batch, self.terms)
                counts += torch.tensor([entry["pair_index"].numel() for entry in entries])
            self._pairs_of_step = self._summed(counts.to(device)).cpu()
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """TRL's loss of one micro-batch, and its share of each term."""
        if not self.terms:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self._refuse_divergence(result[0] if return_outputs else result)
            return result
        inputs, entries = split_batch(inputs, self.terms)
        with ExitStack() as captures:
            with self._casting():
                captured = [
                    captures.enter_context(term.capture(model, entry))
                    for term, entry in zip(self.terms, entries, strict=True)
                ]
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss: Tensor = result[0] if return_outputs else result
        parts = [term.loss(got, entry) for term, got, entry in zip(self.terms, captured, entries, strict=True)]
        plain = loss
        for position, (term, (total, pairs)) in enumerate(zip(self.terms, parts, strict=True)):
            if self.model.training:
                pairs_of_step = int(self._pairs_of_step[position])
                if term.weight > 0 and pairs_of_step > 0:
                    if pairs > 0 and not total.requires_grad and torch.is_grad_enabled():
                        raise ModelError(
                            f"no gradient flows from the term {term.name} into the model, so its weight of "
                            f"{term.weight:g} would do nothing: its `loss` must not detach, and a part that it depends "
                            "on must be trained. With a weight of 0 it is measured alone"
                        )
                    loss = loss + term.weight * total * (self._gradient_share(num_items_in_batch) / pairs_of_step)
            elif pairs > 0:
                loss = loss + term.weight * total / pairs
        self._log_terms(parts)
        self._refuse_divergence(plain)
        return (loss, result[1]) if return_outputs else loss

    def _refuse_divergence(self, loss: Tensor) -> None:
        """Gather the losses of a step's micro-batches, and refuse them together before the last one goes backward."""
        if not self.model.training:
            return
        loss = loss.detach().float()
        self._loss_of_step = loss if self._loss_of_step is None else self._loss_of_step + loss
        if self.accelerator.sync_gradients:
            total, self._loss_of_step = self._summed(self._loss_of_step), None
            refuse_loss(total, self.state.global_step)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Any:
        """The norm of a step's gradient, refused when it is not finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self.args.mixed_precision != "fp16":
            refuse_norm(norm, self.state.global_step)
        return norm

    def _gradient_share(self, num_items_in_batch: Tensor | int | None) -> float:
        """What to multiply a loss with whose sum over micro-batches and ranks is wanted.

        Data parallelism averages gradients over ranks, and the Trainer divides a loss by the accumulation steps unless
        it is already normalised by the items of the whole step.
        """
        ranks = self.accelerator.num_processes
        normalised = self.model_accepts_loss_kwargs and num_items_in_batch is not None
        return float(ranks if normalised else ranks * self.current_gradient_accumulation_steps)

    def _log_terms(self, parts: Sequence[tuple[Tensor, int]]) -> None:
        """Hand TRL's metrics the mean over pairs of each term.

        In training it is that of a whole step, in evaluation that of all batches so far.
        """
        training = self.model.training
        mode = "train" if training else "eval"
        self._sums.add(mode, parts)
        if training and not self.accelerator.sync_gradients:
            return
        sums, pairs = self._sums.totals(mode)
        device = self.accelerator.device
        totals = self._summed(torch.tensor([*sums, *map(float, pairs)], dtype=torch.float32).to(device)).tolist()
        for position, term in enumerate(self.terms):
            count = totals[len(self.terms) + position]
            if count == 0:
                continue
            mean = totals[position] / count
            if not math.isfinite(mean):
                raise DivergenceError(
                    f"the term {term.name} is {mean} at step {self.state.global_step}: the training has diverged, or "
                    "the model's routers give values that are not finite"
                )
            if training:
                self._constant.see(position, mean, self._learning_rate())
            for key, value in ((term.name, mean), (f"{term.name}_weighted", term.weight * mean)):
                if training:
                    self._metrics[mode][key].append(value)
                else:
                    self._metrics[mode][key] = [value]
        if training:
            self._sums.clear(mode)

    def _learning_rate(self) -> float:
        """The largest of the step to come; 0 before an optimiser is there."""
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        return max((float(group["lr"]) for group in groups), default=0.0)

    def _summed(self, values: Tensor) -> Tensor:
        """`values` summed over all ranks."""
        return values if self.accelerator.num_processes == 1 else self.accelerator.reduce(values, reduction="sum")


class _RunningSums:
    """Sums and pair counts of each term since the last report, by mode."""

    def __init__(self, names: Sequence[str]) -> None:
        self._size = len(names)
        self._sums: dict[str, Tensor] = {}
        self._pairs: dict[str, list[int]] = {}
        for mode in ("train", "eval"):
            self.clear(mode)

    def clear(self, mode: str) -> None:
        self._sums[mode] = torch.zeros(self._size)
        self._pairs[mode] = [0] * self._size

    def add(self, mode: str, parts: Sequence[tuple[Tensor, int]]) -> None:
        self._sums[mode] += torch.stack([total.detach().float().cpu() for total, _ in parts])
        self._pairs[mode] = [before + pairs for before, (_, pairs) in zip(self._pairs[mode], parts, strict=True)]

    def totals(self, mode: str) -> tuple[list[float], list[int]]:
        return self._sums[mode].tolist(), self._pairs[mode]


class _StartEvaluation(TrainerCallback):
    """Forgets the evaluation sums once an evaluation has been reported, so that the next one starts from nothing."""

    def __init__(self, sums: _RunningSums) -> None:
        self._sums = sums

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the Trainer after each evaluation."""
        self._sums.clear("eval")

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Called by the Trainer after each prediction, which runs in evaluation mode, too."""
        self._sums.clear("eval")
