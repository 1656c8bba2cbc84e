"""The routing prior of a run: computed once by all processes, stored beside the run, and held to be the same.

While it is computed, what is finished lies in `.prior.partial` beside the run's files; the next start goes on with it.

A model that is larger than the free memory of its device stays where it is, and its decoder layers visit the device one
after the other. That costs a copy of the visiting layers per batch; larger batches make up for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from innerlingua.anatomy import check_joined_rows, find_moe_layers, mixed_precision
from innerlingua.data.hashes import file_hash
from innerlingua.data.wording import counted
from innerlingua.errors import PriorError
from innerlingua.recipe import run
from innerlingua.recipe.schema import AlignmentSection, Recipe
from innerlingua.routing import RoutingPrior
from innerlingua.routing.pooling import pad_token_id
from innerlingua.routing.prior import RECORD, TENSORS
from innerlingua.routing.processes import all_processes

if TYPE_CHECKING:
    from trl import SFTConfig

__all__ = [
    "Ingredients",
    "check_recorded",
    "on_device",
    "prior_digest",
    "replacing",
    "stale_prior",
    "stored_prior",
    "values_digest",
]

# What of a device's free memory may be weights; the rest is for one batch and the allocator.
_WEIGHTS = 0.7


@dataclass(frozen=True)
class Ingredients:
    """What a term may be built from: the resolved recipe, the loaded model, and the tokenised rows.

    `anchors` are the rows of training and evaluation together. `folder` is the run's, `fresh_weights` is false when a
    checkpoint has replaced the untrained weights, `overwrite` allows to replace what is out of date. `prior` is used in
    place of the stored one.
    """

    recipe: Recipe
    args: SFTConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anchors: Dataset
    folder: Path
    fresh_weights: bool
    overwrite: bool
    say: Callable[[str], None]
    prior: RoutingPrior | None = None


def stored_prior(section: AlignmentSection, given: Ingredients) -> RoutingPrior:
    """The stored prior, computed when it is missing, by all processes. Raises `PriorError` when it is stale.

    With `overwrite` a stale one is replaced, inside `replacing`. A resumed run takes it as it is: `check_recorded` has
    compared it with the run's own record, and the weights have moved since.
    """
    if given.prior is not None:
        return given.prior
    folder = given.folder / run.PRIOR
    if given.fresh_weights:
        _refresh(folder, section, given)
    return RoutingPrior.open(folder)


def prior_digest(recipe: Recipe, folder: Path) -> str | None:
    """A hash of the record of the prior in the run's `folder`; None where there is none or `recipe` needs none."""
    record = folder / run.PRIOR / RECORD
    if recipe.alignment is None or recipe.alignment.anchor == "live" or not record.exists():
        return None
    return hashlib.sha256(record.read_bytes()).hexdigest()


def values_digest(recipe: Recipe, folder: Path) -> str | None:
    """A hash of the numbers of the prior in the run's `folder`; None where there is none or `recipe` needs none."""
    values = folder / run.PRIOR / TENSORS
    if recipe.alignment is None or recipe.alignment.anchor == "live" or not values.exists():
        return None
    return file_hash(values)


def check_recorded(
    recipe: Recipe, folder: Path, recorded: Mapping[str, Any], say: Callable[[str], None] = print
) -> None:
    """Raise `PriorError` unless `folder` holds the prior that the run to be resumed was started with.

    One that was computed anew may differ in the last digits, which is said; one whose numbers are damaged is refused.
    """
    before, now = recorded.get("prior"), prior_digest(recipe, folder)
    stored = folder / run.PRIOR
    if before is not None and before == now:
        prior = RoutingPrior.open(stored)  # raises for a file that is missing or cut short
        numbers = values_digest(recipe, folder)
        if numbers == recorded.get("prior_values", numbers):
            return
        try:
            prior.check_rows()
        except PriorError as error:
            raise PriorError(f"--resume: {error}") from error
        say(f"note: the numbers in {stored} are not those that this run was started with: it was computed anew")
        return
    if before == now:
        return
    if now is None:
        raise PriorError(
            f"--resume: the routing prior {stored} is gone, and the weights have moved since it was computed. Put it "
            "back, compute it from the untrained model by `innerlingua routing prior RECIPE`, or start a new run in "
            "another trainer.output_dir"
        )
    raise PriorError(
        f"--resume: the routing prior in {stored} is not the one that this run was started with, so the run would go "
        "on towards another goal. Put that one back, or start a new run in another trainer.output_dir"
    )


@contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Around all that may still be refused: a prior that was replaced inside comes back when the block fails.

    The new one then lies aside, where the next start that may replace finds it whole. An old one that an earlier
    process left when it was killed comes back only where no prior took its place.
    """
    stored, old = folder / run.PRIOR, _old(folder / run.PRIOR)
    main = PartialState().is_main_process
    if main and old.exists():
        if stored.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, stored)
    try:
        yield
    except BaseException:
        if main and old.exists():
            if stored.exists():
                _move(stored, _aside(stored))
            os.replace(old, stored)
        raise
    if main and old.exists():
        shutil.rmtree(old)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _move(folder: Path, place: Path) -> None:
    """Rename `folder` to `place`, where an earlier folder makes room."""
    if place.exists():
        shutil.rmtree(place)
    os.replace(folder, place)


def _refresh(folder: Path, section: AlignmentSection, given: Ingredients) -> None:
    group = all_processes()
    missing, stale = group.on_main(lambda: _missing(folder, section, given))
    if not missing:
        return
    aside = _aside(folder)
    # Each process opens what is there before the main one moves it.
    prior = group.together(lambda: _compute(section, given, aside))
    group.on_main(lambda: _put(aside, folder, stale, prior, given))


def _missing(folder: Path, section: AlignmentSection, given: Ingredients) -> tuple[bool, PriorError | None]:
    """Whether a prior is to be computed, and why the one in `folder` will not do."""
    stale = stale_prior(folder, section, given, numbers=True) if folder.exists() else None
    if folder.exists() and stale is None:
        given.say(f"routing prior: {folder} is up to date")
        return False, None
    if stale is not None and not given.overwrite:
        raise stale
    return True, stale


def _put(aside: Path, folder: Path, stale: PriorError | None, prior: RoutingPrior, given: Ingredients) -> None:
    """Put what was computed aside in its place."""
    if stale is not None:
        given.say(f"routing prior: replaced, because {stale}")
        _move(folder, _old(folder))
    os.replace(aside, folder)
    given.say(f"routing prior: {counted(len(prior), 'anchor')}, layers {prior.layers}, in {folder}")


def stale_prior(
    folder: Path, section: AlignmentSection, given: Ingredients, *, numbers: bool = False
) -> PriorError | None:
    """Why the prior in `folder` is not the one that `given` needs, or cannot be read; None when it is. With `numbers`
    all of its rows are read, too, in about the time that hashing them takes for the record of the run.
    """
    try:
        prior = RoutingPrior.open(folder)
        prior.check_fresh(
            given.anchors,
            given.tokenizer,
            model=given.model,
            layers=section.layers if section.layers != "auto" else None,
            score=section.score,
            pooling=section.pooling,
            dtype=_compute_type(given),
        )
        if numbers:
            prior.check_rows()
    except PriorError as error:
        return error
    return None


def _compute(section: AlignmentSection, given: Ingredients, folder: Path) -> RoutingPrior:
    device = given.args.device
    # A launcher may have loaded the weights in the main process alone (FSDP's cpu_ram_efficient_loading).
    absent = any(parameter.is_meta for parameter in given.model.parameters())
    there = nullcontext(False) if absent else on_device(given.model, device, say=given.say)
    try:
        with there as whole, mixed_precision(given.args.mixed_precision, device):
            if whole and given.recipe.data.packing:
                _refuse_joined(given)
            return RoutingPrior.compute(
                given.model,
                given.anchors,
                given.tokenizer,
                layers=section.layers if section.layers != "auto" else None,
                score=section.score,
                pooling=section.pooling,
                batch_size=given.args.per_device_eval_batch_size,
                folder=folder,
                split=True,
                say=given.say,
            )
    except torch.OutOfMemoryError as error:
        raise PriorError(
            f"the routing prior does not fit on {device}: {' '.join(str(error).split())[:200]} Lower "
            "trainer.per_device_eval_batch_size (the longest anchors in one pass), or free the device of other programs"
        ) from error


def _refuse_joined(given: Ingredients) -> None:
    """Raise `ModelError` for a model that the training, which asks again, would refuse after the whole pass."""
    collate = DataCollatorForLanguageModeling(pad_token_id(given.tokenizer), padding_free=True)
    # Without room for the gradient that is looked at, the question waits for the training.
    with suppress(torch.OutOfMemoryError):
        check_joined_rows(given.model, collate)


def _compute_type(given: Ingredients) -> str:
    """The numeric type of the training's forward pass: in another one, a prior leaves a gap that is not meaning."""
    with mixed_precision(given.args.mixed_precision, given.args.device):
        if torch.is_autocast_enabled(given.args.device.type):
            return str(torch.get_autocast_dtype(given.args.device.type)).removeprefix("torch.")
    return str(given.model.dtype).removeprefix("torch.")


@contextmanager
def on_device(
    model: PreTrainedModel, device: torch.device, *, free: int | None = None, say: Callable[[str], None] = print
) -> Iterator[bool]:
    """Inside, `model` computes on `device`; afterwards its weights are where they were. Yields whether all of it is
    there at once, so that gradients can be taken.

    What does not fit into `free` bytes (by default the free memory of a GPU) stays at home and visits for its own
    forward pass: decoder layers, the last ones.
    """
    home = model.device
    if free is None and device.type == "cuda" and home.type != "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    room = None if free is None else _WEIGHTS * free
    visitors = [] if room is None else _visitors(model, room)
    handles = []
    try:
        if not visitors:
            model.to(device)  # type: ignore[arg-type]  # transformers leaves the type of `to` out
        else:
            say(
                f"the model has {_bytes(model) / 1e9:.1f} GB, more than {device} has free: {len(visitors)} decoder "
                "layers are copied there for each batch. Larger trainer.per_device_eval_batch_size, fewer copies"
            )
            staying = {id(tensor) for layer in visitors for tensor in _tensors(layer)}
            for tensor in _tensors(model):
                if id(tensor) not in staying:
                    tensor.data = tensor.data.to(device)
            for layer in visitors:
                handles += _visit(layer, device)
        yield not visitors
    finally:
        for handle in handles:
            handle.remove()
        # The launcher decides where the weights go (FSDP shards them from where they were loaded).
        model.to(home)  # type: ignore[arg-type]


def _visitors(model: PreTrainedModel, room: float) -> list[nn.Module]:
    """The last decoder layers, as many as must go so that the others and one visitor fit into `room` bytes."""
    first = find_moe_layers(model)[0]
    stack = model.get_submodule(first.name.partition(f".{first.index}.")[0])
    layers = list(stack.children())
    visitors: list[nn.Module] = []
    size = _bytes(model)
    while layers and size > room:
        if not visitors:
            size += _bytes(layers[-1])
        visitors.append(layers.pop())
        size -= _bytes(visitors[-1])
    return visitors


def _visit(layer: nn.Module, device: torch.device) -> list[Any]:
    at_home: list[tuple[Tensor, Tensor]] = []

    def arrive(module: nn.Module, args: Any) -> None:
        for tensor in _tensors(module):
            at_home.append((tensor, tensor.data))
            tensor.data = tensor.data.to(device)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        for tensor, data in at_home:
            tensor.data = data
        at_home.clear()

    return [layer.register_forward_pre_hook(arrive), layer.register_forward_hook(leave, always_call=True)]


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))
