"""Closed questions and their interval."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest

from innerlingua.demo.accuracy import Question, Score, ask, wilson
from innerlingua.demo.model import BaseSettings, encode, fit_tokenizer, new_model, pad

TEXTS = ["Which colour? red", "Which colour? blue green", "कौन-सा रंग? लाल"]


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (1, 3), (52, 545), (540, 545)])
def test_wilson_interval_is_scipys(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_scores_add_up_with_their_chance() -> None:
    assert Score(10, 4, 0.1) + Score(30, 6, 0.5) == Score(40, 10, pytest.approx(0.4))


def test_the_answer_is_the_one_with_the_highest_log_probability() -> None:
    """Against a plain recomputation, one sequence at a time, whole logits; the batch pads and sorts."""
    tokenizer = fit_tokenizer(TEXTS, size=300)
    settings = BaseSettings(hidden=32, expert_width=16, layers=2, experts=4)
    words = [" red", " blue green", " लाल", " green"]
    prompts = ["Which colour?", "Which?", "कौन-सा रंग?", "colour"]
    seen = set()
    for seed in range(4):
        model = new_model(settings, tokenizer, seed=seed)
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=1.0)
        model.train(False)
        best = []
        for prompt in prompts:
            start = len(tokenizer(prompt)["input_ids"])
            sums = []
            for word in words:
                ids = torch.tensor([*tokenizer(prompt + word)["input_ids"], tokenizer.eos_token_id])
                with torch.no_grad():
                    logp = model(input_ids=ids[None]).logits[0].log_softmax(-1)
                sums.append(sum(logp[at - 1, ids[at]].item() for at in range(start, len(ids))))
            best.append(sums.index(max(sums)))
        seen.update(best)
        right = [Question(prompt, words, answer) for prompt, answer in zip(prompts, best, strict=True)]
        wrong = [Question(prompt, words, (answer + 1) % 4) for prompt, answer in zip(prompts, best, strict=True)]
        assert ask(model, tokenizer, right, batch_size=5) == Score(4, 4, 0.25)
        assert ask(model, tokenizer, wrong, batch_size=5) == Score(4, 0, 0.25)
    assert len(seen) > 1, "the models must not all prefer one word"


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_every_text_back_and_keeps_vowel_signs_in_their_word(text: str) -> None:
    tokenizer = fit_tokenizer(TEXTS * 3, size=400)
    ids = encode(tokenizer, [text])[0]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == text
    pieces = [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    assert len(pieces) == len(text.replace("?", " ?").replace("-", " - ").split())


def test_padding_is_on_the_right_and_masked() -> None:
    ids, mask = pad([[5, 6], [7]], 0)
    assert ids.tolist() == [[5, 6], [7, 0]]
    assert mask.tolist() == [[1, 1], [1, 0]]
