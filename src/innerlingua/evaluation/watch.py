"""What the harness does in silence, made visible: prompts cut to fit, answers cut by the limit, numbers that are none.

The harness cuts a prompt that is longer than the model's context from the left, answers the rest, and scores that as if
it had been the question. Here such a prompt is an error, or stays unanswered and is counted. Its models also do not
tell whether an answer ended by itself. One `Watch` stands beside a model, and its backend reports to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from innerlingua.errors import ModelError

__all__ = ["Overlong", "Watch"]

Overlong = Literal["error", "count"]

Request = tuple[tuple[str, str], list[int], list[int]]
"""((context, continuation), their token ids): what the harness hands to a backend."""

_UNANSWERED = (-1e30, False)  # finite: the harness takes a softmax over the choices


class Watch:
    """Takes note of requests that were not answered, or not to the end, while one benchmark runs."""

    def __init__(self) -> None:
        self.begin("", "error")

    def begin(self, name: str, policy: Overlong) -> None:
        """Forget all, and watch the benchmark `name`."""
        self._name = name
        self._policy = policy
        self.overlong: set[Any] = set()
        """Contexts, or (context, continuation), that had no room."""
        self.cut: set[str] = set()
        """Contexts whose answer ended by the limit of new tokens alone."""

    def score(
        self,
        requests: Sequence[Request],
        *,
        room: int,
        context: int,
        run: Callable[[list[Request]], list[tuple[float, bool]]],
    ) -> list[tuple[float, bool]]:
        """The loglikelihoods of `requests`, by `run`; those of more than `room` tokens are left unanswered.

        Raises:
            ModelError: there are such and they are an error, or a loglikelihood is not a number.
        """
        lengths = [len(start) + len(end) for _, start, end in requests]
        fitting = [request for request, length in zip(requests, lengths, strict=True) if length <= room]
        if len(fitting) < len(requests):
            self._refuse(len(requests) - len(fitting), len(requests), max(lengths), context, None)
        answers = iter(run(fitting) if fitting else [])
        found = []
        for (texts, _, _), length in zip(requests, lengths, strict=True):
            if length > room:
                self.overlong.add(texts)
                found.append(_UNANSWERED)
                continue
            answer = next(answers)
            if math.isnan(answer[0]):
                raise ModelError(
                    f"{self._name}: the model gives a loglikelihood that is not a number; its weights hold NaN, or "
                    "--dtype is too narrow for them (try float32 or bfloat16)"
                )
            found.append(answer)
        return found

    def generate(
        self,
        requests: Sequence[Any],
        lengths: Sequence[int],
        *,
        new_tokens: Callable[[Any], int],
        context: int,
        run: Callable[[list[Any]], list[str]],
    ) -> list[str]:
        """The answers to `requests` (the harness's instances), by `run`; those without room stay empty.

        `lengths` are the tokens of their contexts. Raises `ModelError` as `score`.
        """
        needed = [length + new_tokens(request) for request, length in zip(requests, lengths, strict=True)]
        fitting = [request for request, need in zip(requests, needed, strict=True) if need <= context]
        if len(fitting) < len(requests):
            longest = max(range(len(needed)), key=needed.__getitem__)
            self._refuse(
                len(requests) - len(fitting), len(requests), lengths[longest], context, new_tokens(requests[longest])
            )
        answers = iter(run(fitting) if fitting else [])
        found = []
        for request, need in zip(requests, needed, strict=True):
            if need > context:
                self.overlong.add(request.args[0])
            found.append(next(answers) if need <= context else "")
        return found

    def _refuse(self, count: int, total: int, longest: int, context: int, new_tokens: int | None) -> None:
        if self._policy == "count":
            return
        answer = "" if new_tokens is None else f" and {new_tokens} of the answer (--max-new-tokens)"
        raise ModelError(
            f"{self._name}: {count} of {total} requests have no room in the model's context of {context} tokens; the "
            f"longest has {longest}{answer}. Nothing is cut in silence: give fewer examples (--num-fewshot), a "
            "larger --max-length if the model bears it, or --overlong count, which leaves such questions unanswered "
            "and counts them"
        )
