"""What cannot be combined with a term, refused by name before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from accelerate import ParallelismConfig
from trl import SFTConfig

from innerlingua.errors import RecipeError
from innerlingua.training.terms import Term

__all__ = ["checked_packing", "checked_terms", "refuse_conflicts", "refuse_counted_padding", "refuse_parallelism"]


def checked_terms(terms: Any) -> tuple[Term, ...]:
    """`terms` as a tuple; None is no term. Raises `RecipeError` unless each is a term with a usable name and weight."""
    if terms is None:
        return ()
    if isinstance(terms, Term):
        raise RecipeError(f"terms is a list: terms=[{type(terms).__name__}(...)], also for one term")
    if not isinstance(terms, Sequence) or isinstance(terms, str):
        raise RecipeError(f"terms is a list of terms, such as [RoutingAlignment(...)], not {terms!r}")
    for term in terms:
        if not isinstance(term, Term):
            raise RecipeError(f"{term!r} is no term: a term is an object such as RoutingAlignment(anchor=prior)")
        # Names are keys of the batch and of the log.
        if not isinstance(term.name, str) or not term.name.isidentifier():
            raise RecipeError(f"a term's name is one word of letters, digits and underscores, not {term.name!r}")
        weight: Any = term.weight
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= float(weight) < float("inf"):
            raise RecipeError(f"the weight of the term {term.name} must be zero or a positive number, not {weight!r}")
    names = [term.name for term in terms]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RecipeError(
            f"two terms have the same name ({', '.join(repeated)}): each is logged and collated under its own. Give "
            "one of them another: term.name = ..."
        )
    return tuple(terms)


def checked_packing(packing: Any) -> int | None:
    """`packing` as a number of tokens; None is no packing. Raises `RecipeError` for anything else."""
    if packing is None:
        return None
    if isinstance(packing, bool) or not isinstance(packing, Integral) or packing < 1:
        raise RecipeError(
            "packing is the number of tokens that a packed row takes, a whole number of at least 1, such as "
            f"packing=2048, or None for padding; not {packing!r}"
        )
    return int(packing)


def refuse_conflicts(args: SFTConfig, terms: Sequence[Term], kwargs: Mapping[str, Any]) -> None:
    """Raise `RecipeError` for an argument that would make a term, or without terms packed rows, silently wrong."""
    what = f"the term {_names(terms)}" if terms else "Trainer(..., packing=N)"
    if not isinstance(args, SFTConfig):
        given = "terms are" if terms else "packing is"
        raise RecipeError(f"args must be a trl.SFTConfig when {given} given, not {type(args).__name__}")
    conflicts = {
        "n_gpu > 1": args.n_gpu > 1,
        "packing": args.packing,
        "eval_packing": bool(args.eval_packing),
        "label_smoothing_factor": args.label_smoothing_factor > 0,
        "compute_loss_func": kwargs.get("compute_loss_func") is not None,
        "formatting_func": kwargs.get("formatting_func") is not None,
        "chat_template_path": args.chat_template_path is not None,
        "eos_token": args.eos_token is not None,
        "dispatch_batches": bool(args.accelerator_config.dispatch_batches),
    }
    reasons = {
        "n_gpu > 1": "one process would drive several GPUs; use accelerate launch, or CUDA_VISIBLE_DEVICES for one",
        "packing": "TRL's packing loses the ids of the rows; Trainer(..., packing=N) keeps them",
        "eval_packing": "TRL's packing loses the ids of the rows; padding_free=True does without padding",
        "label_smoothing_factor": "it takes the loss from another forward pass than the one that is captured",
        "compute_loss_func": "it takes the loss from another forward pass than the one that is captured",
        "formatting_func": "it rewrites the target and leaves the anchor as it is",
        "chat_template_path": "it changes the tokenizer after the prior was made; set tokenizer.chat_template before",
        "eos_token": "it changes the tokenizer after the prior was made; set tokenizer.eos_token before",
        "dispatch_batches": "it cuts a batch into ranks without cutting its pairs",
    }
    if not terms:
        reasons |= {
            "packing": "TRL would pack the packed rows again; leave one of the two out",
            "label_smoothing_factor": "packed rows have been tried with TRL's own loss alone",
            "compute_loss_func": "packed rows have been tried with TRL's own loss alone",
            "formatting_func": "rows are tokenised before TRL would call it; apply it to the dataset first",
            "chat_template_path": "it changes the tokenizer after the rows were tokenised; set tokenizer.chat_template",
            "eos_token": "it changes the tokenizer after the rows were tokenised; set tokenizer.eos_token",
            "dispatch_batches": "it cuts a batch into ranks, and a packed row cannot be cut",
        }
    for option, given in conflicts.items():
        if given:
            raise RecipeError(f"{option} cannot be combined with {what}: {reasons[option]}")
    if kwargs.get("data_collator") is not None:
        raise RecipeError(f"{what} needs the trainer's own collator: leave data_collator out")
    config = args.parallelism_config
    if isinstance(config, ParallelismConfig):
        refuse_parallelism(terms, tensor=config.tp_size, context=config.cp_size, sequence=config.sp_size)


def refuse_counted_padding(args: SFTConfig, *, packing: int | None) -> None:
    """Raise `RecipeError` for padding at the end of rows that lie end to end, unless there is no balance loss.

    Such a batch has no attention mask, by which alone transformers leaves padding out of the balance loss.
    """
    joined = args.padding_free or packing is not None
    if joined and args.pad_to_multiple_of is not None and args.router_aux_loss_coef != 0:
        raise RecipeError(
            f"pad_to_multiple_of cannot be combined with {'packing' if packing is not None else 'padding_free'}: where "
            "rows lie end to end, the model's load-balancing loss counts the padding as tokens. Leave "
            "pad_to_multiple_of out, or turn that loss off by router_aux_loss_coef: 0.0"
        )


def refuse_parallelism(terms: Sequence[Term], *, tensor: int, context: int, sequence: int) -> None:
    """Raise `RecipeError` when a text, or a layer, is spread over several processes; the sizes are those of groups."""
    reasons = {
        "context": "each process sees a piece of a text, and the mean over a text would be one over a piece",
        "sequence": "each process sees a piece of a text, and the mean over a text would be one over a piece",
        "tensor": "each process holds a piece of a layer, and what its router gives has not been checked there",
    }
    for kind, size in (("context", context), ("sequence", sequence), ("tensor", tensor)):
        if size > 1:
            raise RecipeError(
                f"{kind} parallelism (size {size}) cannot be combined with the term {_names(terms)}: {reasons[kind]}. "
                "Spread the rows instead: DDP, FSDP (fsdp_version: 2) or DeepSpeed (ZeRO-2, ZeRO-3)"
            )


def _names(terms: Sequence[Term]) -> str:
    return ", ".join(term.name for term in terms)
