"""What `RoutingPrior.compute` is given from Python: natural forms are taken, everything else has one clear message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import SFTConfig

from innerlingua.data import tokenize_pairs
from innerlingua.errors import DataError, ModelError, PriorError, RecipeError
from innerlingua.routing import RoutingPrior, pair_divergence
from tiny import tiny_model


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_model(vocab_size=len(tokenizer))


Compute = Callable[..., RoutingPrior]


@pytest.fixture
def compute(model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> Compute:
    """`RoutingPrior.compute` on arguments that are right but for what a test changes."""

    def compute(**changes: Any) -> RoutingPrior:
        given = {"model": model, "dataset": pairs, "tokenizer": tokenizer, "progress": False} | changes
        return RoutingPrior.compute(**given)

    return compute


class TestRows:
    def test_a_list_of_dictionaries_is_a_dataset(self, compute: Compute, pairs: Dataset) -> None:
        listed, whole = compute(dataset=pairs.to_list()), compute()
        assert listed.ids == whole.ids
        assert torch.equal(listed.rows(whole.ids), whole.rows(whole.ids))

    def test_a_list_whose_first_row_has_no_anchor(self, compute: Compute, pairs: Dataset) -> None:
        """`Dataset.from_list` alone would take the columns of the first row for those of all."""
        plain = {name: pairs[0][name] for name in ("language", "prompt", "completion")} | {"id": "plain"}
        assert compute(dataset=[plain, *pairs.to_list()]).ids == ["grass", "sky", "snow", "sun"]

    def test_one_meaning_in_several_languages_is_right(self, compute: Compute, pairs: Dataset) -> None:
        assert sorted(set(zip(pairs["id"], pairs["language"], strict=True))) == sorted(
            zip(pairs["id"], pairs["language"], strict=True)
        )
        assert len(compute()) == len(set(pairs["id"])) == len(pairs) / 2

    def test_a_repeat_within_a_language_is_refused_as_in_training(self, compute: Compute, pairs: Dataset) -> None:
        with pytest.raises(DataError, match=r"row 2 \(id 'sky'\): the id occurs twice in swh_Latn"):
            compute(dataset=pairs.select([0, 1, 0]))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (lambda pairs: iter(pairs.to_list()), r"rows are a generator: .*hold them in a list|list_iterator.*list"),
            (lambda pairs: (row for row in pairs), "rows are a generator: rows are read more than once, so hold them"),
            (lambda pairs: pairs.to_iterable_dataset(), r"an IterableDataset: a stream .*from_list\(list\(stream\)\)"),
            (lambda pairs: DatasetDict({"train": pairs}), r"a DatasetDict: choose a split of it: \['train'\]"),
            (lambda pairs: "pairs.jsonl", r"a str: read it first: innerlingua.read_pairs\('pairs.jsonl'\).dataset"),
            (lambda pairs: SimpleNamespace(dataset=pairs), "a SimpleNamespace: give its .dataset"),
            (lambda pairs: None, "rows are None: give a datasets.Dataset, or a list of dictionaries"),
            (lambda pairs: [], "the list of rows is empty"),
            (lambda pairs: [pairs[0], "text"], "row 1 of the list is no dictionary, but a str"),
            (lambda pairs: [pairs[0], pairs[1] | {"prompt": 3}], "differ in the types of their values"),
        ],
    )
    def test_other_forms_have_one_message(
        self, given: Callable[[Dataset], Any], message: str, compute: Compute, pairs: Dataset
    ) -> None:
        with pytest.raises(DataError, match=message):
            compute(dataset=given(pairs))

    def test_a_row_without_an_id_is_named(
        self, compute: Compute, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        rows = pairs.to_list()
        rows[2]["id"] = None
        with pytest.raises(DataError, match=r"row 2: no column 'id' \(or it is null\)"):
            compute(dataset=rows)
        tokens = tokenize_pairs(pairs, tokenizer).dataset.to_list()
        tokens[2]["id"] = None
        with pytest.raises(DataError, match="row 2 has the id None"):
            compute(dataset=tokens)

    def test_rows_without_any_anchor(self, compute: Compute, pairs: Dataset) -> None:
        plain = pairs.remove_columns(["anchor_prompt", "anchor_completion"])
        with pytest.raises(DataError, match="no row of the dataset has an anchor"):
            compute(dataset=plain)

    def test_the_divergence_of_pairs_takes_and_refuses_the_same(
        self, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        listed = pair_divergence(model, pairs.to_list(), tokenizer)
        assert all(torch.equal(listed[name], value) for name, value in pair_divergence(model, pairs, tokenizer).items())
        with pytest.raises(DataError, match="an IterableDataset"):
            pair_divergence(model, pairs.to_iterable_dataset(), tokenizer)  # type: ignore[arg-type]
        tokens = tokenize_pairs(pairs, tokenizer).dataset
        with pytest.raises(DataError, match=r"lack the columns \['language'\]"):
            pair_divergence(model, tokens.remove_columns("language"), tokenizer)


class TestModelAndTokenizer:
    def test_the_name_of_a_model(self, compute: Compute) -> None:
        with pytest.raises(ModelError, match=r"loaded first: AutoModelForCausalLM.from_pretrained\('Qwen/Qwen3"):
            compute(model="Qwen/Qwen3-30B-A3B")

    def test_what_is_no_model(self, compute: Compute) -> None:
        with pytest.raises(ModelError, match="must be a loaded transformers model without wrappers, not a Linear"):
            compute(model=torch.nn.Linear(2, 2))

    def test_a_model_with_adapters(self, compute: Compute, tokenizer: PreTrainedTokenizerFast) -> None:
        adapted = get_peft_model(tiny_model(vocab_size=len(tokenizer)), LoraConfig(r=2, target_modules=["q_proj"]))
        with pytest.raises(ModelError, match="compute it before get_peft_model"):
            compute(model=adapted)

    def test_a_model_whose_weights_are_elsewhere(self, compute: Compute, tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(ModelError, match=r"embed_tokens.weight is on the meta device"):
            compute(model=tiny_model(vocab_size=len(tokenizer)).to("meta"))

    @pytest.mark.parametrize(
        ("given", "message"),
        [(None, "not None"), ("tokenizer", "not a str"), (SimpleNamespace(tokenizer=1), "give its .tokenizer")],
    )
    def test_what_is_no_tokenizer(self, given: Any, message: str, compute: Compute, pairs: Dataset) -> None:
        with pytest.raises(DataError, match=rf"the tokenizer must be the model's.*{message}"):
            compute(tokenizer=given)

    def test_a_check_for_staleness_needs_one_too(self, compute: Compute, pairs: Dataset) -> None:
        with pytest.raises(DataError, match=r"the tokenizer must be the model.s.*not None"):
            compute().check_fresh(pairs, None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("batch_size", [0, -1, 2.0, "8", True, None])
    def test_batch_sizes(self, batch_size: Any, compute: Compute) -> None:
        with pytest.raises(RecipeError, match="batch_size is how many texts"):
            compute(batch_size=batch_size)

    def test_an_unknown_score_is_named_before_a_pass(self, compute: Compute) -> None:
        with pytest.raises(ModelError, match="unknown score function 'softmaxx'; did you mean 'softmax'"):
            compute(score="softmaxx")

    @pytest.mark.parametrize("layers", ["1-2", [True, 2], [1.0], 3])
    def test_layers(self, layers: Any, compute: Compute) -> None:
        with pytest.raises(ModelError, match=r"layers are a list of decoder-layer indices, as range\(7, 35\)"):
            compute(layers=layers)

    def test_arguments_that_are_none(self, compute: Compute) -> None:
        with pytest.raises(RecipeError, match=r"args must be the trl.SFTConfig of the training, not a dict"):
            compute(args={"bf16": True})


class TestArguments:
    """With the arguments of the training, the prior is what that training will compare with."""

    @staticmethod
    def config(folder: Path, **changes: Any) -> SFTConfig:
        return SFTConfig(output_dir=str(folder), use_cpu=True, report_to="none", **changes)

    @pytest.mark.parametrize(("option", "name"), [("bf16", "bfloat16"), ("fp16", "float16")])
    def test_the_numeric_type_is_theirs(
        self, option: str, name: str, compute: Compute, tmp_path: Path, model: PreTrainedModel
    ) -> None:
        plain, half = compute(), compute(args=self.config(tmp_path, **{option: True}))
        assert (plain.fingerprint["compute"], half.fingerprint["compute"]) == ("float32", name)
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}[name]
        with torch.autocast("cpu", dtype):
            around = compute()
        assert around.fingerprint == half.fingerprint
        assert torch.equal(around.rows(plain.ids), half.rows(plain.ids))
        # Another numeric type is another prior, by much more than float32 rounds.
        assert float((half.rows(plain.ids) - plain.rows(plain.ids)).abs().max()) > 1e-5
        assert next(model.parameters()).dtype == torch.float32

    def test_bf16_is_what_trl_turns_on_by_itself(self, compute: Compute, tmp_path: Path) -> None:
        assert compute(args=self.config(tmp_path)).fingerprint["compute"] == "bfloat16"
        assert compute(args=self.config(tmp_path, bf16=False)).fingerprint["compute"] == "float32"

    def test_text_is_tokenised_as_in_training(
        self, compute: Compute, tmp_path: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        args = self.config(tmp_path, bf16=False, completion_only_loss=False)
        rows = tokenize_pairs(pairs, tokenizer, completion_only_loss=False).dataset
        assert compute(args=args, pooling="completion")._texts == compute(dataset=rows, pooling="completion")._texts
        assert compute(pooling="completion")._texts != compute(args=args, pooling="completion")._texts

    def test_an_anchor_that_the_training_would_refuse(self, compute: Compute, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="where max_length is 10"):
            compute(args=self.config(tmp_path, max_length=10))


def test_it_says_what_it_holds(compute: Compute, tmp_path: Path) -> None:
    prior = compute(layers=[1, 2])
    words = "RoutingPrior(4 anchors, layers=[1, 2], pooling='sequence', score='softmax', compute='float32'"
    assert repr(prior) == f"{words})"
    assert repr(RoutingPrior.open(prior.save(tmp_path / "prior"))) == f"{words}, folder='{tmp_path / 'prior'}')"


def test_one_id_in_place_of_a_list(compute: Compute) -> None:
    with pytest.raises(PriorError, match=r"by a list of ids: rows\(\['sky'\]\)"):
        compute().rows("sky")
