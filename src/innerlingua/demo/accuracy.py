"""Closed questions: which of a relation's answer words does the model find most likely?

For each question, every answer word of its relation in that language is appended, with the end token, and the word with
the highest summed log-probability wins. Chance is the mean of 1 / candidates. The interval is Wilson's score interval
(https://doi.org/10.1080/01621459.1927.10502953), which stays inside [0, 1] and holds near its ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast, Qwen3MoeForCausalLM

from innerlingua.demo.model import pad

__all__ = ["Question", "Score", "ask", "wilson"]


class Question(NamedTuple):
    """A prompt, the possible answers (each begins with its space), and the index of the right one."""

    prompt: str
    candidates: list[str]
    right: int


@dataclass(frozen=True)
class Score:
    """`correct` of `n` questions; `chance` is the expected share of a blind guess."""

    n: int
    correct: int
    chance: float

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.correct / self.n

    def __add__(self, other: Score) -> Score:
        n = self.n + other.n
        return Score(n, self.correct + other.correct, (self.n * self.chance + other.n * other.chance) / n)


def wilson(correct: int, n: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a share; 95 % by default."""
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@torch.no_grad()
def ask(
    model: Qwen3MoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: list[Question],
    *,
    batch_size: int = 512,
) -> Score:
    """Ask closed questions. Needs the model in eval mode.

    Only the tokens of the candidates go through the head.
    """
    prompts: list[list[int]] = tokenizer([prompt for prompt, _, _ in questions])["input_ids"]
    sequences: list[tuple[int, int, list[int], int]] = []  # (question, candidate, ids, length of the prompt)
    for number, (prompt, words, _) in enumerate(questions):
        whole: list[list[int]] = tokenizer([prompt + word for word in words])["input_ids"]
        for choice, tokens in enumerate(whole):
            sequences.append((number, choice, [*tokens, tokenizer.eos_token_id], len(prompts[number])))
    sequences.sort(key=lambda item: len(item[2]))
    scores: list[dict[int, float]] = [{} for _ in questions]
    for first in range(0, len(sequences), batch_size):
        part = sequences[first : first + batch_size]
        ids, mask = pad([item[2] for item in part], tokenizer.pad_token_id)
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        starts = torch.tensor([item[3] for item in part])
        position = torch.arange(ids.shape[1])
        asked = (position >= starts[:, None]) & (mask == 1)
        rows, columns = asked.nonzero(as_tuple=True)
        logits = model.lm_head(hidden[rows, columns - 1]).float()
        each = logits.log_softmax(-1)[torch.arange(len(rows)), ids[rows, columns]]
        total = torch.zeros(len(part)).index_add(0, rows, each)
        for item, value in zip(part, total.tolist(), strict=True):
            scores[item[0]][item[1]] = value
    correct = sum(max(s, key=s.__getitem__) == right for s, (_, _, right) in zip(scores, questions, strict=True))
    return Score(len(questions), correct, sum(1 / len(words) for _, words, _ in questions) / len(questions))
