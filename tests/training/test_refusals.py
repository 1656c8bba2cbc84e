"""What the trainer refuses before the first step, by name, and what it must not refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import ParallelismConfig
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from runs import ALIGNED, config, model_of
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainingArguments

from innerlingua.data import tokenize_pairs
from innerlingua.errors import DataError, InnerlinguaError, ModelError, PriorError, RecipeError
from innerlingua.routing import RoutingAlignment, RoutingPrior
from innerlingua.training import Trainer


class Build:
    """Makes trainers that are right but for what a test changes."""

    def __init__(self, folder: Path, rows: Dataset, tokenizer: Any, prior: RoutingPrior) -> None:
        self.folder, self.rows, self.tokenizer, self.prior = folder, rows, tokenizer, prior

    def __call__(self, *, options: dict[str, Any] | None = None, **changes: Any) -> Trainer:
        arguments = {
            "model": None,
            "args": config(self.folder, **({"max_steps": 1} | (options or {}))),
            "train_dataset": self.rows,
            "processing_class": self.tokenizer,
            "terms": [RoutingAlignment(anchor=self.prior, verify_weights=False)],
        } | changes
        arguments["model"] = arguments["model"] or model_of()
        return Trainer(**arguments)


@pytest.fixture
def build(tmp_path: Path, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast, prior: RoutingPrior) -> Build:
    return Build(tmp_path, tokenised, tokenizer, prior)


def test_the_plain_arguments_are_accepted(build: Build) -> None:
    build().train()


OPTIONS: dict[str, dict[str, Any]] = {
    "packing": {"packing": True, "max_length": 100},
    "eval_packing": {"eval_packing": True},
    "label_smoothing_factor": {"label_smoothing_factor": 0.1},
    "chat_template_path": {"chat_template_path": "template.jinja"},
    "eos_token": {"eos_token": "<s>"},
    "dispatch_batches": {"accelerator_config": {"dispatch_batches": True}},
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_would_make_a_term_wrong(option: str, build: Build) -> None:
    with pytest.raises(RecipeError, match=rf"^{option} cannot be combined with the term routing_alignment"):
        build(options=OPTIONS[option])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("compute_loss_func", lambda outputs, labels, num_items_in_batch: outputs.logits.sum()),
        ("formatting_func", lambda row: row["prompt"]),
        ("data_collator", lambda rows: {}),
    ],
)
def test_an_argument_that_would_make_a_term_wrong(argument: str, value: Any, build: Build) -> None:
    with pytest.raises(RecipeError, match=argument):
        build(**{argument: value})


def test_without_terms_none_of_these_is_refused(
    tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    args = config(tmp_path, max_steps=1, eos_token="<s>", max_length=100)
    Trainer(
        model=model_of(),
        args=args,
        train_dataset=pairs,
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="</s>"
        ),
    ).train()


# -- terms that are none -----------------------------------------------------------------------------------------------


def test_two_terms_of_one_name(build: Build, prior: RoutingPrior) -> None:
    stored, live = RoutingAlignment(anchor=prior, verify_weights=False), RoutingAlignment(anchor="live", layers=[0])
    with pytest.raises(RecipeError, match=r"two terms have the same name \(routing_alignment\).*term.name = "):
        build(terms=[stored, live])
    live.name = "live_alignment"
    trainer = build(terms=[stored, live])
    trainer.train()
    assert {"routing_alignment", "live_alignment"} <= trainer.state.log_history[0].keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda term: term, r"terms is a list: terms=\[RoutingAlignment\(...\)\]"),
        (lambda term: "routing_alignment", "terms is a list of terms, .* not 'routing_alignment'"),
        (lambda term: 1.5, r"terms is a list of terms, .* not 1\.5"),
        (lambda term: ["routing_alignment"], "'routing_alignment' is no term"),
        (lambda term: [term.prior], r"RoutingPrior\(.*\) is no term: a term is an object such as Rou"),
        (lambda term: [type(term)], "RoutingAlignment'> is no term"),
        (lambda term: [term, None], "None is no term"),
    ],
)
def test_what_is_no_list_of_terms(
    given: Callable[[RoutingAlignment], Any], message: str, build: Build, prior: RoutingPrior
) -> None:
    with pytest.raises(RecipeError, match=message):
        build(terms=given(RoutingAlignment(anchor=prior, verify_weights=False)))


def test_no_terms_may_be_none(build: Build, pairs: Dataset) -> None:
    assert build(terms=None, train_dataset=pairs).terms == ()


@pytest.mark.parametrize("weight", [float("nan"), -1.0, "1.5", None, True])
def test_a_weight_that_was_set_afterwards(weight: Any, build: Build, prior: RoutingPrior) -> None:
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    term.weight = weight
    with pytest.raises(RecipeError, match="weight of the term routing_alignment must be zero or a positive number"):
        build(terms=[term])


@pytest.mark.parametrize("name", ["", "a.b", "two words", None])
def test_a_name_that_is_no_key(name: Any, build: Build, prior: RoutingPrior) -> None:
    term = RoutingAlignment(anchor=prior, verify_weights=False)
    term.name = name
    with pytest.raises(RecipeError, match="a term's name is one word"):
        build(terms=[term])


# -- texts and layers that are spread over processes -------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "short"), [("tensor", "tp"), ("context", "cp"), ("sequence", "sp")])
def test_parallelism_that_the_arguments_ask_for(kind: str, short: str, build: Build) -> None:
    parallel = ParallelismConfig(**{f"{short}_size": 2})
    with pytest.raises(RecipeError, match=rf"^{kind} parallelism \(size 2\) cannot be combined with .* routing_align"):
        build(options={"parallelism_config": parallel})


@pytest.mark.parametrize(("kind", "short"), [("tensor", "tp"), ("context", "cp"), ("sequence", "sp")])
def test_parallelism_that_a_launcher_or_the_model_brings(
    kind: str, short: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, f"get_{short}_size", lambda self: 4)
    with pytest.raises(RecipeError, match=rf"^{kind} parallelism \(size 4\) cannot be combined with .* routing_align"):
        build()


# -- gradients that could not arrive -----------------------------------------------------------------------------------


def test_reentrant_checkpointing(build: Build) -> None:
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(RecipeError, match="reentrant"):
        build(options=options)
    # Without checkpointing the word means nothing.
    build(options={"gradient_checkpointing_kwargs": {"use_reentrant": True}})


def test_reentrant_checkpointing_that_the_model_brings_along(build: Build) -> None:
    model = model_of()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = build(model=model)
    with pytest.raises(ModelError, match="use_reentrant: false"):
        trainer.train()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def freeze(model: PreTrainedModel, *names: str) -> PreTrainedModel:
    """Freeze the parameters whose name holds one of `names`."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in names):
            parameter.requires_grad_(False)
    return model


@pytest.mark.filterwarnings("ignore:.*does not require.*")
def test_everything_frozen(build: Build) -> None:
    with pytest.raises(ModelError, match="every parameter of the model is frozen"):
        build(model=freeze(model_of(), ""))


def test_everything_at_and_below_the_aligned_layers_frozen(build: Build) -> None:
    below = ("embed_tokens", "lm_head", "layers.0.", "layers.1.", "layers.2.")
    with pytest.raises(ModelError, match="nothing at or below"):
        build(model=freeze(model_of(tie_word_embeddings=False), *below))


def test_a_frozen_model_may_be_measured(build: Build, prior: RoutingPrior) -> None:
    below = ("embed_tokens", "lm_head", "layers.0.", "layers.1.", "layers.2.")
    trainer = build(
        model=freeze(model_of(tie_word_embeddings=False), *below),
        terms=[RoutingAlignment(anchor=prior, verify_weights=False, weight=0.0)],
    )
    trainer.train()
    assert trainer.state.log_history[0]["routing_alignment"] > 0


def test_frozen_routers_below_trainable_attention_are_aligned(build: Build, prior: RoutingPrior) -> None:
    model = model_of()
    freeze(model, "")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("self_attn" in name)
    routers = {name: p.detach().clone() for name, p in model.named_parameters() if "gate.weight" in name}
    options = {"max_steps": 30, "learning_rate": 0.3, "per_device_train_batch_size": 8}
    trainer = build(
        model=model, options=options, terms=[RoutingAlignment(anchor=prior, verify_weights=False, weight=5.0)]
    )
    trainer.train()
    curve = [log["routing_alignment"] for log in trainer.state.log_history if "loss" in log]
    assert curve[-1] < 0.95 * curve[0]
    assert all(torch.equal(p, routers[name]) for name, p in model.named_parameters() if name in routers)


def test_a_model_without_moe_layers(build: Build) -> None:
    dense = Qwen3ForCausalLM(
        Qwen3Config(vocab_size=320, hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=8)
    )
    with pytest.raises(ModelError, match="has no MoE layer"):
        build(model=dense, options={"router_aux_loss_coef": None})


def test_aligned_layers_that_do_not_exist(build: Build) -> None:
    with pytest.raises(ModelError, match="no MoE layer at decoder layer 4-5"):
        build(terms=[RoutingAlignment(anchor="live", layers=[3, 4, 5])])


def test_a_prior_of_another_number_of_experts(build: Build) -> None:
    with pytest.raises(PriorError, match="8 experts, the aligned layers have"):
        build(model=model_of(num_experts=4))


# -- rows that could not be aligned ------------------------------------------------------------------------------------


def test_no_row_has_an_anchor(build: Build, tokenised: Dataset) -> None:
    for argument in ("train_dataset", "eval_dataset"):
        with pytest.raises(DataError, match=f"no row of {argument} has an anchor.*routing_alignment"):
            build(**{argument: tokenised.select([1, 4, 5])})


@pytest.mark.parametrize("anchor", ["prior", "live"])
def test_columns_that_a_term_reads(anchor: str, build: Build, tokenised: Dataset, prior: RoutingPrior) -> None:
    column = "id" if anchor == "prior" else "anchor_input_ids"
    term = (
        RoutingAlignment(anchor=prior, verify_weights=False)
        if anchor == "prior"
        else RoutingAlignment(anchor="live", layers=ALIGNED)
    )
    with pytest.raises(DataError, match=rf"train_dataset lacks the columns \['{column}'\].*routing_alignment"):
        build(train_dataset=tokenised.remove_columns(column), terms=[term])


def test_text_without_ids(build: Build, pairs: Dataset) -> None:
    with pytest.raises(DataError, match="id"):
        build(train_dataset=pairs.remove_columns("id"))


def test_text_with_what_is_no_tokenizer(build: Build, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="`processing_class` must be the tokenizer, not str"):
        build(train_dataset=pairs, processing_class="Qwen/Qwen3-30B-A3B")
    with pytest.raises(DataError, match=r"not SimpleNamespace, whose \.tokenizer it is"):
        build(train_dataset=pairs, processing_class=SimpleNamespace(tokenizer=tokenizer))


def test_arguments_that_are_not_trl_s(build: Build, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"args must be a trl.SFTConfig when terms are given, not TrainingArguments"):
        build(args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


def test_text_without_a_tokenizer(build: Build, pairs: Dataset) -> None:
    with pytest.raises(DataError, match="processing_class"):
        build(train_dataset=pairs, processing_class=None)


@pytest.mark.parametrize("side", ["target", "anchor"])
@pytest.mark.parametrize("form", ["text", "tokens"])
def test_overlong_rows_are_refused_and_never_cut(
    form: str, side: str, build: Build, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = pairs.select([0, 7]).to_list()
    prefix = "" if side == "target" else "anchor_"
    rows[1][f"{prefix}completion"] += " na tena" * 40
    dataset = Dataset.from_list(rows)
    tokens = tokenize_pairs(dataset, tokenizer).dataset
    lengths = [len(row[f"{prefix}input_ids"]) for row in tokens]
    given = dataset if form == "text" else tokens
    prior = RoutingPrior.compute(
        model_of(max_position_embeddings=512), dataset, tokenizer, layers=ALIGNED, progress=False
    )
    terms = [RoutingAlignment(anchor=prior, verify_weights=False)]
    with pytest.raises(DataError, match=rf"{lengths[1]} .*max_length.*overlong"):
        build(train_dataset=given, options={"max_length": lengths[1] - 1}, terms=terms)
    with pytest.raises(DataError, match="max_length"):
        build(train_dataset=tokens.select([0]), eval_dataset=given, options={"max_length": lengths[1] - 1}, terms=terms)
    for limit in (lengths[1], None):
        model = model_of(max_position_embeddings=512)
        trainer = build(model=model, train_dataset=given, options={"max_length": limit}, terms=terms)
        assert [len(row["input_ids"]) for row in trainer.train_dataset] == [len(row["input_ids"]) for row in tokens]


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (lambda rows: rows.to_iterable_dataset(), r"IterableDataset: .*Dataset.from_list\(list\(stream\)\)"),
        (lambda rows: rows.to_list(), r"list: Dataset.from_list\(rows\) makes one"),
        (lambda rows: DatasetDict({"train": rows}), r"DatasetDict: choose a split of it \('train'\)"),
        (lambda rows: SimpleNamespace(dataset=rows), r"SimpleNamespace: give its .dataset"),
        (lambda rows: None, "NoneType"),
    ],
)
def test_rows_that_are_no_dataset(
    given: Callable[[Dataset], Any], remedy: str, build: Build, tokenised: Dataset
) -> None:
    with pytest.raises(DataError, match=rf"train_dataset must be a datasets\.Dataset when terms are .*, not {remedy}"):
        build(train_dataset=given(tokenised))


@pytest.mark.parametrize("place", [0, 7])
def test_a_prior_that_lacks_an_anchor(
    place: int, build: Build, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = pairs.to_list()
    rows[place]["id"] = "unheard"
    renamed = tokenize_pairs(Dataset.from_list(rows), tokenizer).dataset
    with pytest.raises(PriorError, match="has no anchor 'unheard'"):
        build(train_dataset=renamed)
    with pytest.raises(PriorError, match="has no anchor 'unheard'"):
        build(eval_dataset=renamed)


def test_every_refusal_is_a_users_error() -> None:
    assert all(issubclass(error, InnerlinguaError) for error in (DataError, ModelError, PriorError, RecipeError))


def test_a_refused_trainer_leaves_no_hook_behind(build: Build, prior: RoutingPrior) -> None:
    model = model_of(num_experts=4)
    with pytest.raises(PriorError):
        build(model=model)
    assert [name for name, module in model.named_modules() if hooks_of(module)] == []


def hooks_of(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def test_adapters_that_the_routing_does_not_reach(build: Build, prior: RoutingPrior) -> None:
    """PEFT lets embedded tokens require a gradient under checkpointing; that is no parameter that could be trained."""
    above = LoraConfig(r=2, target_parameters=["layers.3.mlp.experts.down_proj"], task_type="CAUSAL_LM")
    with pytest.raises(ModelError, match=r"no gradient flows from the captured routing of the decoder layers \[1, 2\]"):
        build(
            options={"gradient_checkpointing": True},
            peft_config=above,
            terms=[RoutingAlignment(anchor=prior, verify_weights=False)],
        )
