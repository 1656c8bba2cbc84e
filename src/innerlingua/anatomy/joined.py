"""Rows that lie end to end in one: does a model keep them apart?

Attention does, by position ids that start again or by the limits that flash attention takes; but some families of
transformers (5.23: gpt-oss, Afmoe) do not hand the position ids to what makes the mask, and without flash attention
their rows see each other in silence. Layers with a state of their own (Mamba, linear attention) need kernels that are
told where a row begins; some of the plain versions carry the state of one row into the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from innerlingua.anatomy.check import evaluation_mode
from innerlingua.anatomy.precision import compute_type
from innerlingua.anatomy.sharding import check_present, is_sharded, resharded
from innerlingua.errors import ModelError

__all__ = ["check_joined_rows"]

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Any]]

_TOKENS = 12
_LIMIT = {"float32": 1e-4, "float64": 1e-4}  # of the mean size; coarser types: two digits
_REMEDY = "train it with padding (packing off, padding_free=False)"


def check_joined_rows(model: nn.Module, collate: Collate) -> None:
    """Raise `ModelError` when what `model` computes for a row depends on the row that lies before it.

    `collate` makes a batch of rows (`input_ids`, `labels`), end to end, as the training will; ask inside the automatic
    casting of its passes. A few tokens are sent through the model in evaluation mode: the second row after two
    different first rows, which must make no difference, and by itself, which must not either. Rounding hides a small
    difference in 16 bits, so the gradient of the second row's values is also taken at the first row's embedded tokens:
    it is zero in any type, to the bit, or the rows see each other. No parameter is given a gradient. Where parameters
    are sharded, every process must take part, and values alone are compared.
    """
    check_present(model)
    embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator]  # transformers' method
    weight = next(embedding.parameters())
    first, other, second = torch.randint(
        weight.shape[0], (3, _TOKENS), generator=torch.Generator().manual_seed(0)
    ).tolist()

    def last_row(*rows: Sequence[int]) -> Tensor:
        batch = dict(collate([{"input_ids": list(row), "labels": list(row)} for row in rows]))
        del batch["labels"]
        there = {key: value.to(weight.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        end = _TOKENS * len(rows)
        output: Tensor = model(**there, use_cache=False).logits
        return output[0, end - _TOKENS : end].float()

    with resharded(model), evaluation_mode(model):
        try:
            with torch.no_grad():
                joined, after_another, alone = last_row(first, second), last_row(other, second), last_row(second)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ModelError(
                f"{type(model).__name__} cannot take rows that lie end to end ({' '.join(str(error).split())}): "
                f"{_REMEDY}"
            ) from error
        size = alone.abs().mean()
        if not torch.isfinite(size):
            raise ModelError(
                f"{type(model).__name__} gives values that are not finite for {_TOKENS} tokens: look for such values "
                "among its weights"
            )
        for compared, what in (
            (after_another, "another row before it"),
            (alone, "no row before it"),
        ):
            gap = float((joined - compared).abs().mean() / size)
            if not gap <= _LIMIT.get(compute_type(model), 2e-2):
                raise _seen(model, f"with {what} a row gives other values (by {gap:.1%} of their mean size)")
        if not is_sharded(model) and _depends_on_the_first(embedding, lambda: last_row(first, second)):
            raise _seen(model, "what it gives for a row has a gradient at the tokens of the row before it")


def _depends_on_the_first(embedding: nn.Module, last_row: Callable[[], Tensor]) -> bool:
    """Whether the values of the last row have a gradient at the embedded tokens of the first one."""
    embedded: list[Tensor] = []

    def cut(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        embedded[:] = [output.detach().requires_grad_()]
        return embedded[0]

    handle = embedding.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            values = last_row()
    finally:
        handle.remove()
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(0)).to(values.device)
    (gradient,) = torch.autograd.grad((values * weights).sum(), embedded)
    return bool(gradient.flatten(0, -2)[:_TOKENS].any())


def _seen(model: nn.Module, what: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} does not keep rows apart that lie end to end: {what}. Load it with flash attention "
        "(attn_implementation: flash_attention_2) where only attention mixes tokens; layers with a state (Mamba, "
        "linear attention) need their own kernels (mamba-ssm, causal-conv1d, flash-linear-attention); or "
        f"{_REMEDY}"
    )
