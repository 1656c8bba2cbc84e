from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from datasets import Dataset
from scipy.spatial.distance import jensenshannon
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerlingua.data import tokenize_pairs
from innerlingua.errors import DataError
from innerlingua.routing import mean_divergence, pair_divergence
from routers import naive_per_token
from tiny import LAYERS, tiny_model


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_model(vocab_size=len(tokenizer))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_pair_divergence_is_that_of_a_double_loop(
    batch_size: int, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    def pooled(token_ids: list[int]) -> torch.Tensor:
        return naive_per_token(model, {"input_ids": torch.tensor([token_ids])})[0].mean(dim=0)

    expected: defaultdict[str, list[list[float]]] = defaultdict(list)
    for row in tokenize_pairs(pairs, tokenizer).dataset:
        target, anchor = pooled(row["input_ids"]), pooled(row["anchor_input_ids"])
        expected[row["language"]].append(
            [float(jensenshannon(anchor[layer], target[layer])) ** 2 for layer in range(LAYERS)]
        )
    actual = pair_divergence(model, pairs, tokenizer, batch_size=batch_size)
    assert actual.keys() == expected.keys() == {"swh_Latn", "hin_Deva"}
    for language, values in expected.items():
        assert torch.allclose(actual[language].double(), torch.tensor(values, dtype=torch.float64), atol=1e-6)
        assert float(actual[language].min()) > 1e-4


def test_chosen_layers_and_means(model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    every = pair_divergence(model, pairs, tokenizer)
    some = pair_divergence(model, pairs, tokenizer, layers=[3, 1])
    means = mean_divergence(some, [1, 3])
    for language, values in every.items():
        assert torch.equal(some[language], values[:, [1, 3]])
        assert means[language] == {layer: pytest.approx(float(values[:, layer].mean()), rel=1e-6) for layer in (1, 3)}


def test_the_same_text_is_zero(model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    same = pairs.map(lambda row: {"prompt": row["anchor_prompt"], "completion": row["anchor_completion"]})
    for values in pair_divergence(model, same, tokenizer, batch_size=3).values():
        assert float(values.abs().max()) < 1e-6


def test_rows_without_an_anchor_are_passed_over(
    model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    plain = pairs[0] | {"id": "plain", "anchor_prompt": None, "anchor_completion": None}
    mixed = Dataset.from_list([plain, *pairs.to_list()], features=pairs.features)
    before, after = (pair_divergence(model, dataset, tokenizer, batch_size=4) for dataset in (pairs, mixed))
    assert all(torch.allclose(before[language], after[language], atol=1e-6) for language in before)
    with pytest.raises(DataError, match="no row of the dataset has an anchor"):
        pair_divergence(model, Dataset.from_list([plain], features=pairs.features), tokenizer)


def test_mode_and_gradients_are_left_as_they_were(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model(vocab_size=len(tokenizer)).train()
    divergence = pair_divergence(model, pairs, tokenizer)
    assert model.training
    assert not any(values.requires_grad for values in divergence.values())
