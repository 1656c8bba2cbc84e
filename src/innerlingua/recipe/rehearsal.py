"""A rehearsal of the section `trainer` on a model of a few hundred parameters, before anything of the run is loaded.

transformers, TRL, accelerate and their optional companions look at most of this section late: the optimiser and its
schedule when training begins, a tracker's library in the trainer's constructor, the name of a metric after the first
evaluation. A list of what they refuse would be theirs to keep, so the section is tried instead: one layer, four tokens,
one step, one evaluation, one checkpoint into a temporary folder, with the project's own Trainer. What fails here would
have failed there, after the model and its prior.

Which key is to blame is found by leaving out one after the other. A rehearsal that fails with none of the recipe's
keys is no fault of the recipe's, and its error is left as it is.

Not rehearsed: worker processes, which are not started; a compiler on the model, for which a function of one line
stands; kernels that are patched in for good; what DeepSpeed does; FSDP, trackers and the Hub beyond being there.
"""

from __future__ import annotations

import copy
import gc
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import datasets
import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.utils._validators import validate_repo_id
from peft import LoraConfig
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerFast,
    PrinterCallback,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.utils.import_utils import is_liger_kernel_available
from trl import SFTConfig

from innerlingua.errors import InnerlinguaError, RecipeError, nearest
from innerlingua.recipe.schema import Recipe
from innerlingua.recipe.trainer import resolve_trainer, shown, trainer_values
from innerlingua.recipe.zero import refuse_parts
from innerlingua.routing import RoutingAlignment
from innerlingua.training import Trainer

__all__ = ["TERM_NAMES", "rehearse"]

TERM_NAMES = {"alignment": RoutingAlignment.name}
"""From a section of the recipe to the name under which its term is logged. A later method is one more row."""

_ROWS_OF_A_PROCESS = 2
_STEPS = 1000  # of a training whose rows are not counted yet
_LONGEST = 600


def rehearse(recipe: Recipe) -> None:
    """Try the section `trainer` of `recipe`, as the user wrote it, in order of cost.

    Raises `RecipeError` with the keys that are to blame, their place, and the words of the library that refuses them.
    Leaves nothing behind but the state of accelerate, which the next `SFTConfig` makes anew, and of the random number
    generators, which are to be seeded afterwards.
    """
    with _quiet(), _young_garbage():
        for stage in (_configure, _look_outside, _build, _train):
            try:
                stage(recipe)
            except Exception as error:  # whatever a library raises: which types they are is not for us to know
                raise _explained(recipe, stage, error) from error


# -- the stages -----------------------------------------------------------------------------------------------------


def _configure(recipe: Recipe) -> None:
    refuse_parts(_config(recipe))


def _look_outside(recipe: Recipe) -> None:
    """Libraries, compiler and Hub: what is not in this process, or must not be touched twice."""
    args = _config(recipe)
    for tracker in get_reporting_integration_callbacks(args.report_to):  # type: ignore[no-untyped-call]
        tracker()
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise ImportError("liger-kernel is not installed (pip install liger-kernel)")
    if args.torch_compile:
        compiled = torch.compile(
            _double, backend=args.torch_compile_backend or "inductor", mode=args.torch_compile_mode
        )
        compiled(torch.ones(1, device=args.device))
    if args.hub_model_id is not None:
        validate_repo_id(args.hub_model_id)
    if args.push_to_hub:
        HfApi().whoami()


def _build(recipe: Recipe) -> None:
    with _trainer(recipe) as trainer:
        if trainer is None:
            return
        if trainer.args.fsdp and not trainer.is_fsdp_enabled:
            raise ValueError("fsdp: accelerate does not shard on this kind of device, and would train without it")
        trainer.get_train_dataloader()
        if trainer.eval_dataset is not None:
            trainer.get_eval_dataloader()
        trainer.create_optimizer_and_scheduler(num_training_steps=trainer.args.max_steps)


def _train(recipe: Recipe) -> None:
    with _trainer(recipe) as trainer:
        if trainer is None or trainer.is_fsdp_enabled:
            return
        wanted = trainer.args.metric_for_best_model
        if wanted is not None:
            trainer.args.metric_for_best_model = "loss"  # looked up below, where a hint can be given
        trainer.args.dataloader_num_workers = 0
        trainer.args.dataloader_prefetch_factor = None
        trainer.args.dataloader_persistent_workers = False
        trainer.args.dataloader_multiprocessing_context = None
        trainer.args.use_liger_kernel = False
        trainer.train()
        if wanted is not None and trainer.eval_dataset is not None:
            known = {key for entry in trainer.state.log_history for key in entry if key.startswith("eval_")}
            if wanted.removeprefix("eval_") not in {key.removeprefix("eval_") for key in known}:
                raise ValueError(f"an evaluation gives no such metric{nearest(wanted, known)}")


def _double(value: Tensor) -> Tensor:
    return value * 2


# -- what is rehearsed with -----------------------------------------------------------------------------------------


def _config(recipe: Recipe, **changes: Any) -> SFTConfig:
    values = copy.deepcopy(trainer_values(resolve_trainer(recipe)))  # TRL takes keys out of the mappings that it gets
    try:
        return SFTConfig(**{**values, **changes})
    except BaseException:
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]  # set first, and half made
        raise


@contextmanager
def _trainer(recipe: Recipe) -> Iterator[Trainer | None]:
    """The project's Trainer with the recipe's section on the small model. None under DeepSpeed, whose engine is costly
    and whose settings are filled in from the true model.
    """
    asked = _config(recipe)
    if asked.deepspeed_plugin is not None:
        yield None
        return
    processes = int(asked.world_size)
    evaluates = asked.eval_strategy != "no"
    rows = _rows(_ROWS_OF_A_PROCESS * processes)
    with tempfile.TemporaryDirectory(prefix="innerlingua-rehearsal-") as folder:
        args = _config(
            recipe,
            output_dir=folder,
            max_steps=asked.max_steps if asked.max_steps > 0 else _STEPS,  # schedules divide by them
            disable_tqdm=True,
            logging_strategy="steps",
            logging_steps=1,
            dataloader_drop_last=False,
            report_to="none",
            push_to_hub=False,
            enable_jit_checkpoint=False,
            torch_compile=False,
            torch_compile_backend=None,
            torch_compile_mode=None,
            **({"eval_strategy": "steps", "eval_steps": 1, "eval_delay": 0} if evaluates else {}),
            **({"save_strategy": "steps", "save_steps": 1} if asked.save_strategy not in ("no", "best") else {}),
            # Each process has a folder of its own here, and only the first writes the weights into its own. Torch warns
            # of a search for unused parameters that finds none.
            **({"load_best_model_at_end": False, "ddp_find_unused_parameters": False} if processes > 1 else {}),
        )
        # So few rows would leave some processes without a batch, and the others waiting for them.
        args.accelerator_config.even_batches = True
        trainer = Trainer(
            model=_model(),
            args=args,
            train_dataset=rows,
            eval_dataset=rows if evaluates else None,
            processing_class=_tokenizer(),
            peft_config=None if recipe.peft is None else LoraConfig(r=1, target_modules=["q_proj"]),
            terms=[_StandIn(TERM_NAMES[section]) for section in recipe.terms],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_OneStep)
        yield trainer


def _model() -> Qwen3MoeForCausalLM:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=4,
            hidden_size=8,
            intermediate_size=8,
            moe_intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            num_experts=2,
            num_experts_per_tok=1,
            max_position_embeddings=8,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    words = models.WordLevel({"<pad>": 0, "<eos>": 1, "a": 2, "b": 3}, unk_token="<pad>")
    bare = Tokenizer(words)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>"
    )


def _rows(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": [[2, 3, 1]] * count, "labels": [[2, 3, 1]] * count})


class _OneStep(TrainerCallback):
    """Ends the training after its first step."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the Trainer after each step."""
        control.should_training_stop = True


class _StandIn:
    """A term that adds nothing, so that what the Trainer refuses beside a term is refused here."""

    weight = 0.0
    columns: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, model: nn.Module) -> None:
        """Acts on any model."""

    def collate(self, rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, Tensor]:
        return {"pair_index": torch.arange(len(rows))}

    def capture(self, model: nn.Module, batch: dict[str, Tensor]) -> AbstractContextManager[None]:
        return nullcontext()

    def loss(self, captured: None, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        return torch.zeros(()), batch["pair_index"].numel()


@contextmanager
def _quiet() -> Iterator[None]:
    """No notices and no bars: the run itself will give them."""
    disabled, verbosity = logging.root.manager.disable, transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    data_bars = datasets.are_progress_bars_disabled()
    logging.disable(logging.CRITICAL)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if not data_bars:
            datasets.enable_progress_bars()


@contextmanager
def _young_garbage() -> Iterator[None]:
    """Lets the collections that accelerate asks for pass over everything that is there already."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


# -- who is to blame ------------------------------------------------------------------------------------------------


def _explained(recipe: Recipe, stage: Callable[[Recipe], None], error: Exception) -> Exception:
    """`error` as a message that names the keys; `error` itself where they are not to blame."""
    # What one process of a group tries alone, the others would wait for.
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1 or stage in (_configure, _look_outside)
    if alone and not isinstance(error, InnerlinguaError) and not _passes(recipe, stage, ()):
        return error
    keys = _to_blame(recipe, stage) if alone else []
    words = " ".join(str(error).split())
    if not isinstance(error, InnerlinguaError | ValueError | ImportError | RuntimeError | OSError):
        words = f"{type(error).__name__}: {words}"  # a KeyError says no more than the key
    words = words if len(words) <= _LONGEST else f"{words[: _LONGEST - 3]}..."
    if not keys and isinstance(error, InnerlinguaError):
        return error  # the launcher's, or the group's
    if not keys:
        hint = "" if alone else " (without the launcher, `innerlingua train` names the key)"
        return RecipeError(f"{recipe.where('trainer')}: the section trainer cannot be run: {words}{hint}")
    where = recipe.where(f"trainer.{keys[0]}")
    named = " with ".join(f"trainer.{key}: {shown(recipe.trainer[key])}" for key in keys)
    stop = "" if words.endswith((".", "?", "!")) else "."
    remedy = f"Change {'it' if len(keys) == 1 else 'one of them'}, or leave it out for the default"
    return RecipeError(f"{where}: {named} cannot be run: {words}{stop} {remedy}")


def _to_blame(recipe: Recipe, stage: Callable[[Recipe], None]) -> list[str]:
    """The keys of which any one, left out, lets `stage` pass; or else those that fail it alone."""
    given = [key for key in recipe.trainer if key != "output_dir"]
    missed = [key for key in given if _passes(recipe, stage, (other for other in given if other != key))]
    return missed or [key for key in given if not _passes(recipe, stage, (key,))]


def _passes(recipe: Recipe, stage: Callable[[Recipe], None], keys: Iterable[str]) -> bool:
    kept = {key: recipe.trainer[key] for key in ("output_dir", *keys)}
    try:
        stage(recipe.model_copy(update={"trainer": kept}))
    except Exception:  # as above
        return False
    return True
