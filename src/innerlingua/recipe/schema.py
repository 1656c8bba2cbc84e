"""What a recipe may say: one class per section, checked without importing torch.

The class defaults are the preset: a key that is left out means what stands here. `trainer` holds fields of
`trl.SFTConfig`; which ones exist is only known once TRL is imported (`trainer.py` beside this file checks them then),
but what can be judged without it is judged here: the keys that belong to another section, and contradictions.

Each later method adds one optional section to `Recipe` and one row to the table in `terms.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, LiteralString, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from innerlingua.errors import nearest
from innerlingua.recipe.origin import Origin

__all__ = [
    "PARTS",
    "TRAINER_DEFAULTS",
    "AlignmentSection",
    "DataSection",
    "EvaluationSection",
    "ModelSection",
    "PeftSection",
    "Recipe",
    "parse_layers",
]

Part = Literal["router", "experts", "shared_experts", "attention", "mlp", "norms", "embeddings", "head", "other"]
AdapterPart = Literal["experts", "shared_experts", "attention", "mlp"]
Policy = Literal["error", "drop"]
KeepPolicy = Literal["error", "drop", "keep"]
Score = Literal["softmax", "sigmoid_normalised", "sqrtsoftplus_normalised"]
"""The same as `innerlingua.anatomy.families.Score`, which comes with torch."""

PARTS: tuple[Part, ...] = get_args(Part)

TRAINER_DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 2e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "weight_decay": 0.0,
    "num_train_epochs": 2,
    "report_to": "none",
}
"""Where our preset differs from TRL's, or must not drift with it. Learning rate, cosine and two epochs are the paper's
(Dong et al., Findings of ACL 2026); betas, 3 % warm-up (a `warmup_steps` below 1 is a share of all steps) and no weight
decay are our choice."""

TRAINER_REFUSED: Mapping[str, str] = {
    "max_length": "rows are never cut here: set data.max_length, and data.overlong for what happens to longer rows",
    "truncation_mode": "rows are never cut here: data.overlong says what happens to longer rows",
    "resume_from_checkpoint": "resume with `innerlingua train RECIPE --resume`",
    "model_init_kwargs": "the section model says how the model is loaded",
    "trust_remote_code": "set model.trust_remote_code",
    "hub_token": "a token would be stored with the run: log in with `hf auth login`",
    "dataset_text_field": "the columns are fixed: text, or prompt and completion, or messages",
    "dataset_kwargs": "rows are tokenised by the section data",
    "chat_template_path": "rows are tokenised before the trainer starts: save it with the tokenizer of model.path",
    "eos_token": "rows are tokenised before the trainer starts: set it in the tokenizer of model.path",
    "pad_token": "set it in the tokenizer of model.path",
    "parallelism_config": "the launcher says it (`accelerate config`)",
    "local_rank": "the launcher says it",
    "do_train": "this command trains; leave it out",
    "do_eval": "data.eval names the rows to evaluate on, and trainer.eval_strategy says when",
    "do_predict": "this command does not predict; leave it out",
}
"""Fields of `trl.SFTConfig` that another section owns, or that would come too late, with the remedy."""


TRAINER_NEEDS: Mapping[str, str] = {"fsdp_config": "fsdp", "liger_kernel_config": "use_liger_kernel"}
"""Fields that nobody reads when another is not set."""

TEXT_WANTED = "recipe_text"
"""The type of our own errors about a value that should have been text."""


def parse_layers(value: Any) -> Any:
    """Decoder-layer indices from what a recipe says: `"7-34"` (0-based, both ends in), `"0-3, 7"`, `3`, or a list.

    Returns a sorted list of distinct integers, or `"auto"`. Raises `PydanticCustomError` with the remedy in its text.
    """
    if isinstance(value, str) and value.strip() == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int | str | list):
        raise _problem('is not a choice of layers; write "7-34", a list such as [7, 8, 9], or auto')
    items = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
    layers: list[int] = []
    for item in items:
        layers.extend(_layer_range(item))
    if not layers:
        raise _problem('names no layer; write "7-34", a list such as [7, 8, 9], or auto')
    layers.sort()
    for first, second in pairwise(layers):
        if first == second:
            raise _problem(f"names layer {first} twice")
    return layers


def _layer_range(item: Any) -> range:
    if isinstance(item, int) and not isinstance(item, bool):
        if item < 0:
            raise _problem(f"names layer {item}; layers count from 0 at the input, so write the index itself")
        return range(item, item + 1)
    match = re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", item) if isinstance(item, str) else None
    if match is None:
        raise _problem(f'has {item!r}, which is neither a layer nor a range; write "7-34" (0-based, both ends in)')
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise _problem(f"has the reversed range {first}-{last}; write {last}-{first}")
    return range(first, last + 1)


def _parts(value: Any) -> Any:
    """`all`, or a list of known parts without repeats."""
    if value == "all":
        return "all"
    if not isinstance(value, list) or not value:
        raise _problem(f"is {value!r}; write all, or a list out of {', '.join(PARTS)}")
    for part in value:
        if part not in PARTS:
            raise _problem(f"has the unknown part {part!r}{nearest(str(part), PARTS)}; parts are {', '.join(PARTS)}")
        if value.count(part) > 1:
            raise _problem(f"names {part} twice")
    return value


def _problem(text: str, *, kind: LiteralString = "recipe") -> PydanticCustomError:
    # Braces would be template fields to pydantic; none of our texts needs one.
    return PydanticCustomError(kind, text.replace("{", "(").replace("}", ")"))


def _one_or_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_one_or_list), Field(min_length=1)]
Layers = Annotated[list[int] | Literal["auto"], BeforeValidator(parse_layers)]


class _Section(BaseModel):
    # strict: a boolean is no number and a number no text. Files that mean one thing and say another are the bug reports
    # nobody can reproduce.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class ModelSection(_Section):
    """Which checkpoint, how it is loaded, and which of its parameters full fine-tuning trains."""

    path: Annotated[str, Field(min_length=1)]
    """A folder in the Hugging Face layout, or a name on the Hub."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """The type of the weights in memory; `auto` is the checkpoint's own. Left out: float32 for full fine-tuning, whose
    small steps are lost in 16 bit, and `auto` with adapters."""
    attn_implementation: str | None = None
    """`sdpa`, `eager`, `flash_attention_2`, ...; left out, transformers chooses."""
    experts_implementation: str | None = None
    """`eager`, `batched_mm`, `grouped_mm`, ...; left out, transformers chooses."""
    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint."""
    train: Annotated[list[Part] | Literal["all"], BeforeValidator(_parts)] = "all"
    """The parts that full fine-tuning trains; the rest is frozen."""


class DataSection(_Section):
    """Which rows, and what happens to those that cannot be used as they stand."""

    train: Paths
    """JSON Lines, CSV, Parquet or a folder of `save_to_disk`, one path or several. Relative paths start at the current
    folder."""
    eval: Paths | None = None
    """Rows to evaluate on, after each epoch unless `trainer.eval_strategy` says otherwise."""
    max_length: Annotated[int, Field(ge=1)] | None = 2048
    """Tokens, of the longer side of a pair; null for no limit."""
    packing: bool = False
    """Lay whole rows end to end, up to `max_length` tokens, in place of padding; a micro-batch then counts packed rows,
    and is one long row itself."""
    overlong: Policy = "error"
    """Pairs with a side longer than `max_length`: stop, or leave the pair out and count it."""
    missing_anchor: KeepPolicy | None = None
    """Rows without an anchor: stop, leave out, or keep as plain fine-tuning rows. Left out: stop where a section of the
    recipe needs anchors, else keep."""
    same_as_anchor: KeepPolicy = "error"
    """Rows whose text is their anchor's."""
    empty: Policy = "error"
    """Rows whose text is empty."""
    duplicate: Policy = "error"
    """A second row with the same id and language: stop, or keep the first."""
    languages: dict[str, str] = Field(default_factory=dict)
    """Language codes beyond FLORES-200, with their English names."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the chat template, the same on both sides, such as `enable_thinking: false`."""


class AlignmentSection(_Section):
    """Routing alignment (SARA): how strongly, where, and towards what."""

    weight: Annotated[FiniteFloat, Field(ge=0)] = 1.5
    """Weight of the term in the loss (the paper's lambda_JS). 0 measures without training on it."""
    layers: Layers = "auto"
    """Decoder layers, 0-based and inclusive, or `auto`: the middle 15 % to 72 % of the depth."""
    anchor: Literal["prior", "live"] = "prior"
    """`prior`: the anchor's routing in the untrained model, stored once. `live`: in the weights of the same step."""
    anchor_gradient: bool = False
    """Let the live anchor move too."""
    pooling: Literal["sequence", "prompt", "completion", "spans"] = "sequence"
    """The tokens whose routing is averaged."""
    score: Score | None = None
    """How router logits become probabilities; left out, what the model family does."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.anchor_gradient and self.anchor == "prior":
            raise _problem(
                "alignment.anchor_gradient: true and alignment.anchor: prior contradict each other: a stored prior "
                "cannot move. Set alignment.anchor: live, or leave anchor_gradient out"
            )
        if self.pooling == "spans" and self.anchor == "prior":
            raise _problem(
                "alignment.pooling: spans and alignment.anchor: prior contradict each other: the spans of one anchor "
                "differ from target to target. Set alignment.anchor: live, or another pooling"
            )
        return self


class PeftSection(_Section):
    """Adapters in place of full fine-tuning. The base stays frozen."""

    method: Literal["lora"] = "lora"
    r: Annotated[int, Field(ge=1)] = 16
    """Rank. A fused expert tensor gets this rank per expert."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """Scale: the adapter's product is multiplied by alpha / r."""
    dropout: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0
    """Of the adapter's input. Must be 0 where an adapter sits on a parameter (fused experts, most routers)."""
    parts: Annotated[list[AdapterPart], Field(min_length=1)] = ["attention", "experts"]
    """The parts that receive adapters."""
    router: Literal["freeze", "train", "lora"] = "freeze"
    """Routers: untouched, trained whole and stored with the adapter, or given an adapter."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        repeated = [part for part in self.parts if self.parts.count(part) > 1]
        if repeated:
            raise _problem(f"peft.parts names {repeated[0]} twice")
        if self.dropout > 0 and ("experts" in self.parts or self.router == "lora"):
            culprit = "peft.parts with experts" if "experts" in self.parts else "peft.router: lora"
            raise _problem(
                f"peft.dropout: {self.dropout} and {culprit} contradict each other: adapters on parameters "
                "(target_parameters) have no dropout. Set peft.dropout: 0"
            )
        return self


class EvaluationSection(_Section):
    """Benchmarks on small samples along the training, language by language (docs/evaluation.md)."""

    tasks: Paths
    """Names of benchmarks, as `innerlingua evaluate --tasks` takes them, one or several."""
    languages: Annotated[list[str], BeforeValidator(_one_or_list), Field(min_length=1)] | None = None
    """FLORES-200 codes; all of a local file unless given. The anchor language is always asked as well."""
    data: Annotated[str, Field(min_length=1)] | None = None
    """The folder of local benchmarks; what the environment variable INNERLINGUA_DATA names unless given."""
    limit: Annotated[int, Field(ge=1)] = 100
    """Questions of each benchmark and language."""
    strategy: Literal["steps", "epoch"] | None = None
    """When: every `steps` steps, or after each epoch. Left out: steps where `steps` is given, else epoch. Before the
    first step and after the last the model is asked in any case."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Of the optimiser, between two evaluations."""
    anchor: Annotated[str, Field(min_length=1)] = "eng_Latn"
    """The language that stands beside all others."""
    num_fewshot: Annotated[int, Field(ge=0)] = 0
    """Examples before each question."""
    chat_template: bool = False
    """Ask in the form of the tokenizer's chat template."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Of a generated answer; the task's own unless given."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Questions that are asked at once."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.strategy == "steps" and self.steps is None:
            raise _problem("evaluation.strategy: steps needs evaluation.steps, the steps between two evaluations")
        if self.strategy == "epoch" and self.steps is not None:
            raise _problem(
                f"evaluation.strategy: epoch and evaluation.steps: {self.steps} contradict each other: leave one out"
            )
        return self


class Recipe(_Section):
    """One run: model, data, methods, adapters, evaluation, trainer.

    In a file, an optional section that is present and empty means its defaults; None here means that it is off.
    """

    model: ModelSection
    data: DataSection
    alignment: AlignmentSection | None = None
    peft: PeftSection | None = None
    evaluation: EvaluationSection | None = None
    trainer: dict[str, Any]
    """Fields of `trl.SFTConfig`, as the file says them, without our defaults."""

    _origin: Origin = PrivateAttr(default_factory=Origin)

    def from_origin(self, origin: Origin) -> Self:
        """This recipe, which now knows where it was read."""
        self._origin = origin
        return self

    def where(self, key: str) -> str:
        """The file and line, or the option, that says `key` (dotted), for the opening of a message."""
        return self._origin.where(tuple(key.split(".")))

    def written(self, key: str) -> str | None:
        """The words of the option that set `key` itself, before they were read as YAML; None when no option did."""
        return self._origin.written(tuple(key.split(".")))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.peft is not None and self.model.train != "all":
            raise _problem(
                "model.train and peft contradict each other: with adapters the base is frozen. Say in peft.parts and "
                "peft.router what is trained, and leave model.train out; or leave peft out"
            )
        if self.model.train == ["head"] and self.alignment is not None and self.alignment.weight > 0:
            raise _problem(
                "model.train: [head] and the section alignment contradict each other: the head lies behind all routers "
                "and changes none. Name router or other parts in model.train, or leave alignment out"
            )
        self._check_trainer()
        return self

    def _check_trainer(self) -> None:
        for key, remedy in TRAINER_REFUSED.items():
            if self.trainer.get(key) is not None:
                raise _problem(f"trainer.{key} is not set here: {remedy}")
        output = self.trainer.get("output_dir")
        if output is None or (isinstance(output, str) and not output.strip()):
            raise _problem("trainer.output_dir is missing; name the folder that the run writes, such as runs/first")
        if not isinstance(output, str):
            raise _problem(f"trainer.output_dir is {output!r}; it must be text; put it in quotes", kind=TEXT_WANTED)
        if self.trainer.get("remove_unused_columns"):
            raise _problem("trainer.remove_unused_columns: true would drop the anchors; leave it out")
        if self.data.eval is None and self.trainer.get("eval_strategy") not in (None, "no"):
            raise _problem(
                "trainer.eval_strategy is set but data.eval is not: there is nothing to evaluate on. Set data.eval, or "
                "leave trainer.eval_strategy out"
            )
        if self.peft is None and self.trainer.get("load_best_model_at_end"):
            raise _problem(
                "trainer.load_best_model_at_end: true needs the section peft: transformers would bring back everything "
                "but the fused experts (transformers issue 48805). Leave it out and load the checkpoint that is best"
            )
        for key, needed in TRAINER_NEEDS.items():
            if self.trainer.get(key) and not self.trainer.get(needed):
                raise _problem(f"trainer.{key} does nothing without trainer.{needed}: set that, or leave {key} out")
        if self.trainer.get("padding_free"):
            raise _problem(
                "trainer.padding_free is not set here: set data.packing: true, which does without padding, fills the "
                "rows, and looks before the first step whether the model keeps them apart"
            )
        for key in ("packing", "eval_packing"):
            if self.trainer.get(key):
                raise _problem(
                    f"trainer.{key} is not set here: rows that TRL joins lose their anchors. Set data.packing: true, "
                    "which lays whole rows end to end and keeps them"
                )
        if self.data.packing and self.data.max_length is None:
            raise _problem(
                "data.packing: true and data.max_length: null contradict each other: rows are packed up to that many "
                "tokens. Set data.max_length"
            )

    def values(self) -> dict[str, Any]:
        """The recipe as plain values, as a file would say it: sections that are off are left out."""
        return {key: value for key, value in self.model_dump(mode="json").items() if value is not None}

    @property
    def terms(self) -> tuple[str, ...]:
        """The sections present that add a term to the loss."""
        return ("alignment",) if self.alignment is not None else ()
