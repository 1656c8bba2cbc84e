"""TRL's SFTTrainer with more loss terms.

    loss = SFTTrainer's loss (cross-entropy, and the load-balancing loss where the model has one)
           + sum over terms of weight * (sum over all pairs of the step) / (number of pairs of the step)

The step is the global batch: every rank and every accumulated micro-batch. A term is therefore a mean over its pairs
however they are split up, also when the last micro-batches are smaller. Only `get_batch_samples` (which sees all
micro-batches of a step and counts the pairs) and `compute_loss` are overridden, both through `super()`; without terms
they change nothing at all. With or without terms, a resume that would lose weights is refused (`resume.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from innerlingua.data import read_pairs, tokenize_pairs
from innerlingua.errors import DataError, ModelError, RecipeError
from innerlingua.training.collate import TermCollator, split_batch
from innerlingua.training.resume import ResumeGuard
from innerlingua.training.terms import Term

__all__ = ["Trainer"]

_ROWS_AT_ONCE = 64


class Trainer(SFTTrainer):  # type: ignore[misc]  # TRL is not typed
    """`trl.SFTTrainer` with loss terms; every other argument is TRL's.

    ```python
    trainer = Trainer(model=model, args=SFTConfig(...), train_dataset=pairs, terms=[RoutingAlignment(anchor=prior)])
    ```

    With terms, `train_dataset` holds pairs as `read_pairs` or `tokenize_pairs` give them. Each term is logged under its
    name (the plain mean over pairs) and as `<name>_weighted` (what it adds to the loss). Text is never cut: a row or an
    anchor that is longer than `args.max_length` is a `DataError`. Raises `RecipeError` for arguments that would make a
    term silently wrong, and whatever the terms' own checks raise.
    """

    data_collator: Any

    def __init__(self, model: Any, args: SFTConfig | None = None, *, terms: Sequence[Term] = (), **kwargs: Any) -> None:
        self.terms = tuple(terms)
        if self.terms:
            args = SFTConfig() if args is None else copy(args)  # changed below; the caller's own may serve another run
            _refuse_conflicts(args, self.terms, kwargs)
            kwargs = _prepared(args, self.terms, kwargs)
            # Decided above, on both sides of the pair; TRL would cut the target alone, and without a word.
            args.max_length = None
            args.remove_unused_columns = False
            # The labels say it already, and TRL would refuse rows that are no longer messages.
            args.assistant_only_loss = False
        super().__init__(model, args, **kwargs)
        self.add_callback(ResumeGuard(self.model))
        if not self.terms:
            return
        # TRL may itself turn this on (ZeRO-3 with PEFT).
        if self.args.gradient_checkpointing and (self.args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            raise RecipeError(
                "reentrant gradient checkpointing drops the gradient of the routing without a word: set "
                "gradient_checkpointing_kwargs: {use_reentrant: false}, or gradient_checkpointing: false"
            )
        self.data_collator = TermCollator(self.data_collator, self.terms)
        self._pairs_of_step = torch.zeros(len(self.terms), dtype=torch.long)
        self._sums = _RunningSums([term.name for term in self.terms])
        self.add_callback(_StartEvaluation(self._sums))
        for term in self.terms:
            term.check(self.model)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one step; counts the pairs of each term over all of them and all ranks."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.terms:
            counts = torch.zeros(len(self.terms), dtype=torch.long)
            for batch in batches:
                _, entries = split_batch(batch, self.terms)
                counts += torch.tensor([entry["pair_index"].numel() for entry in entries])
            # Ranks of one tensor-parallel group hold the same batch.
            self._pairs_of_step = self._summed(counts.to(device)).cpu() // self.get_tp_size()
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
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs, entries = split_batch(inputs, self.terms)
        with ExitStack() as captures:
            captured = [
                captures.enter_context(term.capture(model, entry))
                for term, entry in zip(self.terms, entries, strict=True)
            ]
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss: Tensor = result[0] if return_outputs else result
        parts = [term.loss(got, entry) for term, got, entry in zip(self.terms, captured, entries, strict=True)]
        for position, (term, (total, pairs)) in enumerate(zip(self.terms, parts, strict=True)):
            if not bool(torch.isfinite(total.detach())):
                raise ModelError(
                    f"the term {term.name} is {total.item()} at step {self.state.global_step}: the training has "
                    "diverged, or the model's routers give values that are not finite"
                )
            if self.model.training:
                pairs_of_step = int(self._pairs_of_step[position])
                if term.weight > 0 and pairs_of_step > 0:
                    loss = loss + term.weight * total * (self._gradient_share(num_items_in_batch) / pairs_of_step)
            elif pairs > 0:
                loss = loss + term.weight * total / pairs
        self._log_terms(parts)
        return (loss, result[1]) if return_outputs else loss

    def _gradient_share(self, num_items_in_batch: Tensor | int | None) -> float:
        """What to multiply a loss with whose sum over micro-batches and ranks is wanted.

        Data parallelism averages gradients over ranks, and the Trainer divides a loss by the accumulation steps unless
        it is already normalised by the items of the whole step.
        """
        ranks = self.accelerator.num_processes // self.get_tp_size()
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
            for key, value in ((term.name, mean), (f"{term.name}_weighted", term.weight * mean)):
                if training:
                    self._metrics[mode][key].append(value)
                else:
                    self._metrics[mode][key] = [value]
        if training:
            self._sums.clear(mode)

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


def _refuse_conflicts(args: SFTConfig, terms: Sequence[Term], kwargs: dict[str, Any]) -> None:
    names = ", ".join(term.name for term in terms)
    if len({term.name for term in terms}) < len(terms):
        raise RecipeError(f"two terms have the same name ({names}): each is logged and collated under its own")
    conflicts = {
        "n_gpu > 1": args.n_gpu > 1,
        "packing": args.packing,
        "eval_packing": bool(args.eval_packing),
        "padding_free": args.padding_free,
        "label_smoothing_factor": args.label_smoothing_factor > 0,
        "compute_loss_func": kwargs.get("compute_loss_func") is not None,
        "formatting_func": kwargs.get("formatting_func") is not None,
        "chat_template_path": args.chat_template_path is not None,
        "eos_token": args.eos_token is not None,
        "dispatch_batches": bool(args.accelerator_config.dispatch_batches),
    }
    reasons = {
        "n_gpu > 1": "one process would drive several GPUs; use accelerate launch, or CUDA_VISIBLE_DEVICES for one",
        "packing": "TRL's packing loses the ids of the rows",
        "eval_packing": "TRL's packing loses the ids of the rows",
        "padding_free": "TRL's padding-free batches lose the limits of the rows",
        "label_smoothing_factor": "it takes the loss from another forward pass than the one that is captured",
        "compute_loss_func": "it takes the loss from another forward pass than the one that is captured",
        "formatting_func": "it rewrites the target and leaves the anchor as it is",
        "chat_template_path": "it changes the tokenizer after the prior was made; set tokenizer.chat_template before",
        "eos_token": "it changes the tokenizer after the prior was made; set tokenizer.eos_token before",
        "dispatch_batches": "it cuts a batch into ranks without cutting its pairs",
    }
    for option, given in conflicts.items():
        if given:
            raise RecipeError(f"{option} cannot be combined with the term {names}: {reasons[option]}")
    if kwargs.get("data_collator") is not None:
        raise RecipeError(f"the term {names} needs the trainer's own collator: leave data_collator out")


def _prepared(args: SFTConfig, terms: Sequence[Term], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments for TRL with both data sets tokenised, pairs and all."""
    prepared = dict(kwargs)
    prepared["train_dataset"] = _tokenised(kwargs.get("train_dataset"), args, terms, kwargs, "train_dataset")
    evaluation = kwargs.get("eval_dataset")
    if isinstance(evaluation, dict):
        prepared["eval_dataset"] = {
            name: _tokenised(dataset, args, terms, kwargs, f"eval_dataset[{name!r}]")
            for name, dataset in evaluation.items()
        }
    elif evaluation is not None:
        prepared["eval_dataset"] = _tokenised(evaluation, args, terms, kwargs, "eval_dataset")
    return prepared


def _tokenised(dataset: Any, args: SFTConfig, terms: Sequence[Term], kwargs: dict[str, Any], name: str) -> Dataset:
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name} must be a datasets.Dataset when terms are given, not {type(dataset).__name__}")
    if "input_ids" not in dataset.column_names:
        tokenizer = kwargs.get("processing_class")
        if tokenizer is None:
            raise DataError(
                f"{name} holds text: give the tokenizer as `processing_class`, or tokenise it with tokenize_pairs"
            )
        # Ids and anchors are checked; which languages there are is the caller's business.
        known = (
            {str(code): str(code) for code in set(dataset["language"])} if "language" in dataset.column_names else {}
        )
        rows = read_pairs(dataset, languages=known, missing_anchor="keep", same_as_anchor="keep").dataset
        dataset = tokenize_pairs(
            rows,
            tokenizer,
            max_length=args.max_length,
            completion_only_loss=args.completion_only_loss,
            assistant_only_loss=args.assistant_only_loss,
        ).dataset
    elif args.max_length is not None:
        _refuse_overlong(dataset, args.max_length, name)
    for term in terms:
        missing = [column for column in term.columns if column not in dataset.column_names]
        if missing:
            raise DataError(
                f"{name} lacks the columns {missing} that the term {term.name} reads: give pairs with anchors"
            )
        if _count_pairs(dataset, term) == 0:
            raise DataError(f"no row of {name} has an anchor, so the term {term.name} could never act")
    return dataset


def _count_pairs(dataset: Dataset, term: Term) -> int:
    """The pairs of all rows. Collating each once also finds a row that the term would refuse in the middle of a run."""
    pairs = 0
    for columns in dataset.iter(batch_size=_ROWS_AT_ONCE):
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        pairs += term.collate(rows, max(len(row["input_ids"]) for row in rows))["pair_index"].numel()
    return pairs


def _refuse_overlong(dataset: Dataset, max_length: int, name: str) -> None:
    columns = [column for column in ("input_ids", "anchor_input_ids") if column in dataset.column_names]
    for position, row in enumerate(dataset.select_columns(columns)):
        longest = max(len(row[column] or []) for column in columns)
        if longest > max_length:
            raise DataError(
                f"row {position} of {name} has {longest} tokens, more than max_length {max_length}: raise max_length "
                "(None for no limit), or leave such rows out with tokenize_pairs(..., overlong='drop')"
            )
