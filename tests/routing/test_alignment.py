"""The alignment term: its value against independent arithmetic, where its gradient goes, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.spatial.distance import jensenshannon
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerlingua.anatomy import RoutingCapture
from innerlingua.data import read_pairs, tokenize_pairs
from innerlingua.errors import ModelError, PriorError, RecipeError
from innerlingua.routing import RoutingAlignment, RoutingPrior
from routers import naive_per_token
from tiny import EXPERTS, FAMILIES, tiny_model

ALIGNED = [1, 2]
Rows = Sequence[dict[str, Any]]


@pytest.fixture(scope="module")
def size(tokenizer: PreTrainedTokenizerFast) -> int:
    return len(tokenizer)


@pytest.fixture(scope="module")
def tokenised(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    return tokenize_pairs(pairs, tokenizer).dataset


@pytest.fixture(scope="module")
def rows(tokenised: Dataset) -> Rows:
    return tokenised.to_list()


@pytest.fixture(scope="module")
def prior(size: int, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast) -> RoutingPrior:
    return prior_of(tiny_model(vocab_size=size), tokenised, tokenizer)


def prior_of(model: PreTrainedModel, dataset: Dataset, tokenizer: Any, **options: Any) -> RoutingPrior:
    return RoutingPrior.compute(model, dataset, tokenizer, progress=False, **options)


def padded(rows: Rows, *, extra: int = 0) -> dict[str, Tensor]:
    width = max(len(row["input_ids"]) for row in rows) + extra
    batch = {"input_ids": torch.zeros(len(rows), width, dtype=torch.long)}
    batch["attention_mask"] = torch.zeros_like(batch["input_ids"])
    for place, row in enumerate(rows):
        batch["input_ids"][place, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        batch["attention_mask"][place, : len(row["input_ids"])] = 1
    return batch


def run(
    term: RoutingAlignment, model: PreTrainedModel, rows: Rows, *, extra: int = 0
) -> tuple[Tensor, int, dict[str, Tensor], RoutingCapture]:
    """One batch through collation, capture and loss: (sum, pairs, the term's entries, what was captured)."""
    batch = padded(rows, extra=extra)
    entries = term.collate(rows, batch["input_ids"].shape[1])
    with term.capture(model, entries) as captured:
        model(**batch)
    return *term.loss(captured, entries), entries, captured


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def naive_pooled(model: PreTrainedModel, token_ids: Sequence[int], chosen: Sequence[bool]) -> Tensor:
    """(layers, experts) of one text without padding, over the chosen tokens, by the slow path of `routers.py`."""
    tokens = naive_per_token(model, {"input_ids": torch.tensor([list(token_ids)])})[0]
    return tokens[torch.tensor(chosen)].mean(dim=0)


def naive_js(model: PreTrainedModel, target: Any, anchor: Any, layers: Sequence[int]) -> float:
    """Mean over layers of SciPy's divergence; `target` and `anchor` are (token ids, chosen tokens)."""
    q, p = naive_pooled(model, *target), naive_pooled(model, *anchor)
    return sum(float(jensenshannon(p[layer], q[layer])) ** 2 for layer in layers) / len(layers)


def whole(token_ids: Sequence[int]) -> tuple[Sequence[int], list[bool]]:
    return token_ids, [True] * len(token_ids)


class TestValue:
    @pytest.mark.parametrize("anchor", ["prior", "live"])
    def test_sum_over_pairs_is_that_of_a_plain_recomputation(
        self, anchor: str, size: int, rows: Rows, prior: RoutingPrior
    ) -> None:
        model = tiny_model(vocab_size=size)
        term = RoutingAlignment(anchor=prior if anchor == "prior" else "live", layers=ALIGNED)
        total, pairs, _, _ = run(term, model, rows)
        expected = sum(
            naive_js(model, whole(row["input_ids"]), whole(row["anchor_input_ids"]), ALIGNED) for row in rows
        )
        assert pairs == len(rows) == 8
        assert total.item() == pytest.approx(expected, rel=1e-4)
        assert total.item() / pairs > 1e-3

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("anchor", ["prior", "live"])
    def test_the_same_text_on_both_sides_is_zero(
        self, family: str, anchor: str, size: int, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """Through the whole pipeline: rendering, tokenising, prior, collation with padding, capture, loss."""
        model = tiny_model(family, vocab_size=size)
        same = pairs.map(lambda row: {"prompt": row["anchor_prompt"], "completion": row["anchor_completion"]})
        dataset = tokenize_pairs(same, tokenizer).dataset
        layers = [1, 2, 3]
        given = prior_of(model, dataset, tokenizer, layers=layers, batch_size=3) if anchor == "prior" else "live"
        total, pairs_seen, _, _ = run(RoutingAlignment(anchor=given, layers=layers), model, dataset.to_list(), extra=5)
        assert pairs_seen == 8
        assert abs(total.item()) / pairs_seen < 1e-6

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_live_anchor_is_the_prior_on_untouched_weights(
        self, family: str, size: int, tokenised: Dataset, rows: Rows, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        model = tiny_model(family, vocab_size=size)
        prior = prior_of(model, tokenised, tokenizer, layers=ALIGNED)
        model.train()  # the anchor is taken in evaluation mode all the same
        _, _, entries, _ = run(RoutingAlignment(anchor="live", layers=ALIGNED), model, rows)
        assert torch.allclose(entries["prior"], prior.rows([row["id"] for row in rows]), atol=1e-6)
        assert all(module.training for module in model.modules())

    def test_micro_batches_add_up(self, size: int, rows: Rows, prior: RoutingPrior) -> None:
        model, term = tiny_model(vocab_size=size), RoutingAlignment(anchor=prior)
        together, pairs, _, _ = run(term, model, rows)
        parts = [run(term, model, [row], extra=place) for place, row in enumerate(rows)]
        assert pairs == sum(part[1] for part in parts)
        assert together.item() == pytest.approx(sum(part[0].item() for part in parts), rel=1e-5)

    def test_layers_may_be_fewer_than_the_prior_has(self, size: int, rows: Rows, prior: RoutingPrior) -> None:
        model = tiny_model(vocab_size=size)
        total, _, entries, captured = run(RoutingAlignment(anchor=prior, layers=[3, 1]), model, rows[:2])
        assert captured.layers == [1, 3]
        assert torch.equal(entries["prior"], prior.rows([row["id"] for row in rows[:2]])[:, [1, 3]])
        expected = sum(
            naive_js(model, whole(row["input_ids"]), whole(row["anchor_input_ids"]), [1, 3]) for row in rows[:2]
        )
        assert total.item() == pytest.approx(expected, rel=1e-4)

    def test_a_dense_layer_does_not_shift_the_others(
        self, size: int, tokenised: Dataset, rows: Rows, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        model = tiny_model("deepseek_v3", vocab_size=size)  # its layer 0 is dense
        term = RoutingAlignment(anchor=prior_of(model, tokenised, tokenizer), layers=[2])
        total, _, _, _ = run(term, model, rows[:3])
        # Position 1 among the sparse layers is decoder layer 2.
        expected = sum(
            naive_js(model, whole(row["input_ids"]), whole(row["anchor_input_ids"]), [1]) for row in rows[:3]
        )
        assert total.item() == pytest.approx(expected, rel=1e-4)
        term.check(model)

    def test_the_prior_s_score_is_used_for_the_target(
        self, size: int, tokenised: Dataset, rows: Rows, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        model = tiny_model("deepseek_v3", vocab_size=size)
        prior = prior_of(model, tokenised, tokenizer, score="softmax")
        same = [row | {"input_ids": row["anchor_input_ids"]} for row in rows]
        total, _, _, _ = run(RoutingAlignment(anchor=prior), model, same)
        assert abs(total.item()) < 1e-5


@pytest.fixture(scope="module")
def spans(tokenizer: PreTrainedTokenizerFast) -> Rows:
    """Three rows with two, none and one aligned span; offsets into the text."""
    content = [
        ("a", "jua ni njano na kubwa", "the sun is yellow and large", [[0, 3, 4, 7], [7, 12, 11, 17]]),
        ("b", "anga ni buluu", "the sky is blue", []),
        ("c", "theluji ni baridi", "snow is cold", [[11, 17, 8, 12]]),
    ]
    names = ("id", "text", "anchor_text", "spans")
    data = [dict(zip(names, row, strict=True)) | {"language": "swh_Latn"} for row in content]
    checked = read_pairs(Dataset.from_list(data)).dataset
    return tokenize_pairs(checked, tokenizer).dataset.to_list()


class TestPooling:
    @pytest.mark.parametrize("anchor", ["prior", "live"])
    @pytest.mark.parametrize("pooling", ["completion", "prompt"])
    def test_completion_and_prompt(
        self,
        anchor: str,
        pooling: str,
        size: int,
        tokenised: Dataset,
        rows: Rows,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        model = tiny_model(vocab_size=size)
        given = prior_of(model, tokenised, tokenizer, pooling=pooling) if anchor == "prior" else "live"
        term = RoutingAlignment(anchor=given, layers=ALIGNED, pooling=pooling)
        total, pairs, _, _ = run(term, model, rows[:3], extra=2)

        def chosen(row: dict[str, Any], side: str) -> tuple[list[int], list[bool]]:
            inside = [(label != -100) == (pooling == "completion") for label in row[f"{side}labels"]]
            return row[f"{side}input_ids"], inside

        expected = sum(naive_js(model, chosen(row, ""), chosen(row, "anchor_"), ALIGNED) for row in rows[:3])
        assert pairs == 3
        assert total.item() == pytest.approx(expected, rel=1e-4)

    def test_each_aligned_span_is_a_pair(self, size: int, spans: Rows) -> None:
        model, term = tiny_model(vocab_size=size), RoutingAlignment(anchor="live", layers=ALIGNED, pooling="spans")
        total, pairs, entries, captured = run(term, model, spans)
        assert pairs == 3
        assert captured.pooled.shape == entries["prior"].shape == (3, len(ALIGNED), EXPERTS)
        expected = 0.0
        for row, number in ((spans[0], 0), (spans[0], 1), (spans[2], 0)):
            sides = [
                (row[f"{side}input_ids"], [place == number for place in row[f"{side}span_ids"]])
                for side in ("", "anchor_")
            ]
            expected += naive_js(model, *sides, ALIGNED)
        assert total.item() == pytest.approx(expected, rel=1e-4)

    def test_rows_without_a_span_alone_count_nothing(self, size: int, spans: Rows) -> None:
        model, term = tiny_model(vocab_size=size), RoutingAlignment(anchor="live", layers=ALIGNED, pooling="spans")
        total, pairs, _, _ = run(term, model, [spans[1]])
        assert (total.item(), pairs) == (0.0, 0)

    def test_spans_are_refused_with_a_stored_prior(self, prior: RoutingPrior) -> None:
        with pytest.raises(PriorError, match="pooled by 'sequence', the term asks for 'spans'"):
            RoutingAlignment(anchor=prior, pooling="spans")


@pytest.fixture(scope="module")
def mixed(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> Rows:
    rows = pairs.to_list()
    for place in (1, 4):
        rows[place] |= {"id": f"plain-{place}", "anchor_prompt": None, "anchor_completion": None}
    checked = read_pairs(Dataset.from_list(rows), missing_anchor="keep").dataset
    return tokenize_pairs(checked, tokenizer).dataset.to_list()


class TestRowsWithoutAnchor:
    @pytest.mark.parametrize("pooling", ["sequence", "completion"])
    @pytest.mark.parametrize("anchor", ["prior", "live"])
    def test_they_do_not_count(
        self,
        anchor: str,
        pooling: str,
        size: int,
        mixed: Rows,
        tokenised: Dataset,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        model = tiny_model(vocab_size=size)
        given = prior_of(model, tokenised, tokenizer, pooling=pooling) if anchor == "prior" else "live"
        term = RoutingAlignment(anchor=given, layers=ALIGNED, pooling=pooling)
        total, pairs, _, _ = run(term, model, mixed)
        alone, pairs_alone, _, _ = run(term, model, [row for row in mixed if row["anchor_input_ids"] is not None])
        assert pairs == pairs_alone == 6
        assert total.item() == pytest.approx(alone.item(), rel=1e-5)

    @pytest.mark.parametrize("anchor", ["prior", "live"])
    def test_a_batch_of_nothing_else_is_zero_with_zero_gradient(
        self, anchor: str, size: int, mixed: Rows, prior: RoutingPrior
    ) -> None:
        model = tiny_model(vocab_size=size)
        term = RoutingAlignment(anchor=prior if anchor == "prior" else "live", layers=ALIGNED)
        total, pairs, _, _ = run(term, model, [mixed[1], mixed[4]])
        assert (total.item(), pairs) == (0.0, 0)
        # Connected all the same, so that distributed training sees the same parameters on every rank.
        assert all(float(gradient.abs().max()) == 0 for gradient in gradients(model, total).values())


class TestGradient:
    def test_it_reaches_the_aligned_routers_and_nothing_above(self, size: int, rows: Rows, prior: RoutingPrior) -> None:
        model = tiny_model(vocab_size=size)
        total, _, entries, _ = run(RoutingAlignment(anchor=prior, layers=ALIGNED), model, rows)
        found = gradients(model, total)
        for layer in (0, 1, 2):  # layer 0 through the hidden state
            assert float(found[f"model.layers.{layer}.mlp.gate.weight"].abs().max()) > 0
        for name, gradient in found.items():
            if name.startswith(("model.layers.3", "model.norm", "lm_head", "model.layers.2.mlp.experts")):
                assert float(gradient.abs().max()) == 0, name
        assert not entries["prior"].requires_grad

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("anchor", ["prior", "live"])
    def test_all_families(
        self,
        family: str,
        anchor: str,
        size: int,
        tokenised: Dataset,
        rows: Rows,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        model = tiny_model(family, vocab_size=size)
        given = prior_of(model, tokenised, tokenizer, layers=ALIGNED) if anchor == "prior" else "live"
        term = RoutingAlignment(anchor=given, layers=ALIGNED)
        term.check(model)
        total, _, entries, _ = run(term, model, rows)
        found = gradients(model, total)
        routers = [name for name in found if name.endswith(("gate.weight", "router.weight"))]
        reached = {int(name.split(".")[2]) for name in routers if float(found[name].abs().max()) > 0}
        assert reached >= set(ALIGNED)
        assert 3 not in reached
        assert not entries["prior"].requires_grad

    def test_a_step_against_the_gradient_lowers_the_divergence(
        self, size: int, rows: Rows, prior: RoutingPrior
    ) -> None:
        model, term = tiny_model(vocab_size=size), RoutingAlignment(anchor=prior, layers=ALIGNED)
        total, _, _, _ = run(term, model, rows)
        found = gradients(model, total)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in found:
                    parameter -= 0.01 * found[name]
        assert run(term, model, rows)[0].item() < total.item()

    def test_anchor_gradient_changes_the_gradient_and_not_the_value(self, size: int, rows: Rows) -> None:
        model = tiny_model(vocab_size=size)
        values, found = [], []
        for anchor_gradient in (False, True):
            term = RoutingAlignment(anchor="live", layers=ALIGNED, anchor_gradient=anchor_gradient)
            total, _, entries, _ = run(term, model, rows)
            assert entries["prior"].requires_grad == anchor_gradient
            values.append(total.item())
            found.append(gradients(model, total)["model.layers.1.mlp.gate.weight"])
        assert values[0] == values[1]
        assert not torch.allclose(found[0], found[1], rtol=1e-2)

    @pytest.mark.parametrize("anchor_gradient", [False, True])
    def test_a_live_anchor_under_checkpointing(self, anchor_gradient: bool, size: int, rows: Rows) -> None:
        found = []
        for checkpointing in (False, True):
            model = tiny_model(vocab_size=size, use_cache=False).train()
            if checkpointing:
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            term = RoutingAlignment(anchor="live", layers=ALIGNED, anchor_gradient=anchor_gradient)
            found.append(gradients(model, run(term, model, rows)[0]))
        assert found[0].keys() == found[1].keys()
        for name, gradient in found[0].items():
            assert torch.allclose(found[1][name], gradient, atol=1e-6, rtol=1e-4), name

    def test_weight_zero_is_measured_without_gradient(self, size: int, rows: Rows, prior: RoutingPrior) -> None:
        model = tiny_model(vocab_size=size)
        measured, pairs, _, _ = run(RoutingAlignment(anchor=prior, weight=0), model, rows)
        trained, _, _, _ = run(RoutingAlignment(anchor=prior), model, rows)
        assert pairs == 8
        assert measured.item() == trained.item()
        assert trained.requires_grad
        assert not measured.requires_grad

    @pytest.mark.parametrize("family", FAMILIES)
    def test_all_experts_backends_give_the_same_loss_and_gradients(
        self, family: str, size: int, tokenised: Dataset, rows: Rows, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        prior = prior_of(tiny_model(family, vocab_size=size), tokenised, tokenizer, layers=ALIGNED)
        results = []
        for backend in ("eager", "batched_mm", "grouped_mm"):
            model = tiny_model(family, vocab_size=size)
            model.set_experts_implementation(backend)
            total, _, _, _ = run(RoutingAlignment(anchor=prior), model, rows)
            results.append((total.item(), gradients(model, total)))
        value, found = results[0]
        assert any("experts" in name and float(g.abs().max()) > 0 for name, g in found.items())
        for other_value, other in results[1:]:
            assert other_value == pytest.approx(value, rel=1e-4)
            for name, gradient in found.items():
                assert torch.allclose(other[name], gradient, atol=1e-5, rtol=1e-3), name


class TestRefusals:
    @pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan"), "1.5", None, True, [1.5], 1j])
    def test_weights(self, weight: Any) -> None:
        with pytest.raises(RecipeError, match=r"weight of the alignment term must be zero or a positive number, not "):
            RoutingAlignment(anchor="live", layers=[1], weight=weight)

    @pytest.mark.parametrize("weight", [2, np.float32(2.0), Fraction(2)])
    def test_any_real_number_is_a_weight(self, weight: Any) -> None:
        assert RoutingAlignment(anchor="live", layers=[1], weight=weight).weight == 2.0

    @pytest.mark.parametrize("anchor", ["alive", None, 3, {"ids": []}])
    def test_an_anchor_that_is_neither(self, anchor: Any) -> None:
        with pytest.raises(RecipeError, match=rf"a RoutingPrior or 'live', not {re.escape(repr(anchor))}"):
            RoutingAlignment(anchor=anchor, layers=[1])

    def test_the_folder_of_a_prior(self, tmp_path: Path) -> None:
        for folder in (tmp_path, str(tmp_path)):
            with pytest.raises(RecipeError, match=r"RoutingPrior.open reads a stored one"):
                RoutingAlignment(anchor=folder, layers=[1])  # type: ignore[arg-type]

    @pytest.mark.parametrize("option", ["anchor_gradient", "verify_weights"])
    def test_words_for_truth_values(self, option: str) -> None:
        with pytest.raises(RecipeError, match=f"{option} must be True or False, not 'false'"):
            RoutingAlignment(anchor="live", layers=[1], **{option: "false"})  # type: ignore[arg-type]

    @pytest.mark.parametrize("layers", ["1-2", [True, 2], [1.5], 2])
    def test_layers_that_are_no_list_of_integers(self, layers: Any, prior: RoutingPrior) -> None:
        for anchor in (prior, "live"):
            with pytest.raises(ModelError, match="layers are a list of decoder-layer indices"):
                RoutingAlignment(anchor=anchor, layers=layers)

    def test_a_prior_of_another_numeric_type(self, size: int, prior: RoutingPrior) -> None:
        model, term = tiny_model(vocab_size=size), RoutingAlignment(anchor=prior)
        term.check(model)
        with (
            torch.autocast("cpu", torch.bfloat16),
            pytest.raises(PriorError, match=r"computed in float32, and the passes .* in bfloat16 .*\(..., args=args\)"),
        ):
            term.check(model)

    def test_a_live_anchor_without_layers(self) -> None:
        with pytest.raises(RecipeError, match="a live anchor needs `layers`"):
            RoutingAlignment(anchor="live")

    def test_an_unknown_pooling(self) -> None:
        with pytest.raises(RecipeError, match="unknown pooling 'spam'; did you mean 'span"):
            RoutingAlignment(anchor="live", layers=[1], pooling="spam")

    def test_a_gradient_through_a_stored_anchor(self, prior: RoutingPrior) -> None:
        with pytest.raises(RecipeError, match="anchor_gradient needs anchor 'live'"):
            RoutingAlignment(anchor=prior, anchor_gradient=True)

    def test_another_score_than_the_prior_s(self, prior: RoutingPrior) -> None:
        with pytest.raises(PriorError, match="holds 'softmax' distributions"):
            RoutingAlignment(anchor=prior, score="sigmoid_normalised")

    def test_layers_that_the_prior_lacks(self, prior: RoutingPrior) -> None:
        with pytest.raises(PriorError, match=r"the prior has no layers \[7\]"):
            RoutingAlignment(anchor=prior, layers=[1, 7])

    def test_layers_that_the_model_lacks(self) -> None:
        with pytest.raises(ModelError, match="no MoE layer at decoder layer 0"):
            RoutingAlignment(anchor="live", layers=[0, 1]).check(tiny_model("deepseek_v3"))

    def test_a_prior_of_a_model_with_other_experts(self, prior: RoutingPrior) -> None:
        with pytest.raises(PriorError, match=r"computed for 8 experts, the aligned layers have \[4\]"):
            RoutingAlignment(anchor=prior).check(tiny_model(num_experts=4))

    def test_a_frozen_model(self) -> None:
        model = tiny_model().requires_grad_(False)
        with pytest.raises(ModelError, match="every parameter of the model is frozen"):
            RoutingAlignment(anchor="live", layers=[1]).check(model)
        RoutingAlignment(anchor="live", layers=[1], weight=0).check(model)

    def test_an_id_that_the_prior_lacks(self, prior: RoutingPrior, rows: Rows) -> None:
        with pytest.raises(PriorError, match="no anchor 'earth'"):
            RoutingAlignment(anchor=prior).collate([rows[0] | {"id": "earth"}], 40)

    def test_reentrant_checkpointing_is_named(self, size: int, rows: Rows, prior: RoutingPrior) -> None:
        model = tiny_model(vocab_size=size, use_cache=False).train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        model.enable_input_require_grads()
        with pytest.raises(ModelError, match="Reentrant gradient checkpointing does this"):
            run(RoutingAlignment(anchor=prior), model, rows)

    def test_evaluation_without_gradient_is_no_error(self, size: int, rows: Rows, prior: RoutingPrior) -> None:
        model, term = tiny_model(vocab_size=size), RoutingAlignment(anchor=prior)
        with torch.no_grad():
            total, pairs, _, _ = run(term, model, rows)
        assert pairs == 8
        assert not total.requires_grad


def test_it_says_what_it_is(prior: RoutingPrior) -> None:
    live = RoutingAlignment(anchor="live", weight=0.5, layers=[2, 1], pooling="spans")
    assert repr(live) == "RoutingAlignment(weight=0.5, layers=[1, 2], pooling='spans', anchor='live')"
    assert repr(RoutingAlignment(anchor=prior)).endswith(f"anchor={prior!r})")


def test_the_columns_are_those_that_collation_reads(prior: RoutingPrior, rows: Rows) -> None:
    """A row of nothing but the named columns and the target itself can be collated, and each column is needed."""
    for pooling in ("sequence", "completion", "prompt", "spans"):
        term = RoutingAlignment(anchor="live", layers=ALIGNED, pooling=pooling)
        spans = {"span_ids": [0] * len(rows[0]["input_ids"]), "anchor_span_ids": [0] * len(rows[0]["anchor_input_ids"])}
        full = rows[0] | spans
        needed = {name: full[name] for name in (*term.columns, "input_ids")}
        assert term.collate([needed], 40)["pair_index"].numel() == 1
        for column in set(term.columns) - {"anchor_input_ids"}:
            with pytest.raises(KeyError, match=column):
                term.collate([{name: value for name, value in needed.items() if name != column}], 40)
