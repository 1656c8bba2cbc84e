"""The harness's vLLM backend, watched. Imports vLLM, which must be installed beside this package."""

from __future__ import annotations

from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.models.vllm_causallms import VLLM

from innerlingua.evaluation.watch import Request, Watch

__all__ = ["WatchedVLLM"]


class WatchedVLLM(VLLM):  # type: ignore[misc]
    """`VLLM` that reports to a `Watch`."""

    def __init__(self, *arguments: Any, quiet: bool = False, **options: Any) -> None:
        self.watch = Watch()
        self._quiet = quiet
        self._asked: dict[tuple[int, ...], str] = {}
        super().__init__(*arguments, **options)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As the parent; without progress bars when quiet."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm or self._quiet)
        return found

    def _loglikelihood_tokens(self, requests: list[Request], **options: Any) -> list[tuple[float, bool]]:
        parent = super()._loglikelihood_tokens
        # vLLM must generate one token even where only the prompt is scored.
        return self.watch.score(
            requests, room=self.max_length - 1, context=self.max_length, run=lambda some: parent(some, **options)
        )

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """As the parent; requests without room are left out."""
        parent = super().generate_until
        contexts = [request.args[0] for request in requests]
        encoded = self.tok_encode(contexts)
        self._asked = {tuple(tokens): text for tokens, text in zip(encoded, contexts, strict=True)}
        return self.watch.generate(
            requests,
            [len(tokens) for tokens in encoded],
            new_tokens=lambda request: normalize_gen_kwargs(request.args[1], self.max_gen_toks)["max_gen_toks"],
            context=self.max_length,
            run=lambda some: parent(some, disable_tqdm=disable_tqdm or self._quiet),
        )

    def _model_generate(self, requests: list[list[int]], generate: bool = False, **options: Any) -> Any:
        out = super()._model_generate(requests, generate=generate, **options)
        if generate:
            for tokens, answer in zip(requests, out, strict=True):
                if answer.outputs[0].finish_reason == "length":
                    self.watch.cut.add(self._asked[tuple(tokens)])
        return out
