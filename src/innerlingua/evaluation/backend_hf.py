"""The harness's Hugging Face backend, watched. Imports torch and the harness.

The methods that are overridden are those that the harness offers to subclasses; each calls its parent and changes
nothing of what it computes.
"""

from __future__ import annotations

from typing import Any, Final

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs, resolve_max_length
from transformers import PreTrainedConfig, PreTrainedModel

from innerlingua.errors import ModelError
from innerlingua.evaluation.watch import Request, Watch

__all__ = ["BALANCE", "WatchedHF", "balanced_parts"]

BALANCE: Final = "output_router_logits"
"""The configuration's switch of the balance loss, the same in all families of transformers."""


class WatchedHF(HFLM):  # type: ignore[misc]
    """`HFLM` that reports to a `Watch`."""

    def __init__(self, *arguments: Any, quiet: bool = False, **options: Any) -> None:
        self.watch = Watch()
        self._quiet = quiet
        self._contexts: list[str] = []
        super().__init__(*arguments, **options)
        positions = resolve_max_length(self.config, default=self.max_length)
        if self.max_length > positions:
            raise ModelError(f"--max-length {self.max_length}: the model has {positions} positions; give that at most")
        if isinstance(options["pretrained"], str):  # a model in memory is its owner's to set
            for part in balanced_parts(self.model):
                setattr(part, BALANCE, False)
        if self.backend != "causal":
            raise ModelError(
                f"{self.config.name_or_path}: benchmarks here are for causal language models, not {self.backend}"
            )

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As the parent; without progress bars when quiet."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm or self._quiet)
        return found

    def _loglikelihood_tokens(self, requests: list[Request], **options: Any) -> list[tuple[float, bool]]:
        parent = super()._loglikelihood_tokens
        # The last token is scored and not read, so one more than the context has room.
        return self.watch.score(
            requests, room=self.max_length + 1, context=self.max_length, run=lambda some: parent(some, **options)
        )

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """As the parent; requests without room are left out."""
        parent = super().generate_until
        return self.watch.generate(
            requests,
            [len(self.tok_encode(request.args[0])) for request in requests],
            new_tokens=lambda request: normalize_gen_kwargs(request.args[1], self.max_gen_toks)["max_gen_toks"],
            context=self.max_length,
            run=lambda some: parent(some, disable_tqdm=disable_tqdm or self._quiet),
        )

    def tok_batch_encode(self, strings: list[str], **options: Any) -> Any:
        """As the parent; remembers whose answers come next."""
        self._contexts = list(strings)
        return super().tok_batch_encode(strings, **options)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
        out = super()._model_generate(context, max_length=max_length, stop=stop, **options)
        answers = out[:, context.shape[1] :]
        ends = {self.eot_token_id, *_ids(self.model.generation_config.eos_token_id)}
        for text, answer in zip(self._contexts, answers.tolist(), strict=True):
            if ends.isdisjoint(answer):
                said = self.tok_decode(answer)
                if not any(end and end in said for end in stop):
                    self.watch.cut.add(text)
        return out


def balanced_parts(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """The configurations of `model` in which the balance loss is on: trainers leave it so, also in checkpoints.

    That loss expects the routing of whole sequences, and raises when tokens are generated one by one from a cache.
    """
    config = model.config
    return [part for part in (config, config.get_text_config()) if part.to_dict().get(BALANCE)]


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else value
