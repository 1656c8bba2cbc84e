"""The routing of each language while a model is trained: one profile at every evaluation.

The pass runs in evaluation mode, without gradient and without any draw of random numbers, so training goes on as it
would have without it. Each profile is a folder like those of `innerlingua routing profile`, for `report` and
`compare`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from innerlingua.data import ENGLISH
from innerlingua.errors import ModelError
from innerlingua.routing.profile.sides import Sides, read_sides
from innerlingua.routing.profile.store import write_profile
from innerlingua.routing.profile.stream import RoutingProfile, profile_routing

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

__all__ = ["HISTORY", "RoutingProfileCallback"]

HISTORY: Final = "history.json"


class RoutingProfileCallback(TrainerCallback):
    """Profiles the model before the first step and at every evaluation of a trainer.

    ```python
    trainer = Trainer(..., callbacks=[RoutingProfileCallback(held_out_pairs, tokenizer)])
    ```

    Profiles go to `<output_dir>/routing/step-000100` and so on, and the mean JS of each language at each step to
    `history.json` beside them, into the trainer's log history as `eval_routing_js_<language>`, and into the
    evaluation's metrics, so that `metric_for_best_model="eval_routing_js"` can name their mean.

    Args:
        pairs: what `read_sides` read, or what it reads.
        tokenizer: of the model.
        anchor: the language that the others are compared with, when `pairs` are still to be read.
        output_dir: where the profiles go, if not into the trainer's folder.
        at_start: profile the model before the first step as well.
        options: further arguments of `profile_routing`, such as `layers` or `replicates`. No samples are kept by
            default.
    """

    def __init__(
        self,
        pairs: Sides | str | Path | Dataset | Sequence[str | Path | Dataset],
        tokenizer: PreTrainedTokenizerBase,
        *,
        anchor: str = ENGLISH,
        output_dir: str | Path | None = None,
        at_start: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._sides = pairs if isinstance(pairs, Sides) else read_sides(pairs, anchor=anchor)
        self._tokenizer = tokenizer
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._at_start = at_start
        self._options = {"samples": 0, **(options or {})}
        self.history: list[dict[str, Any]] = []
        """Of each profile: `step`, `folder`, and `js`, the mean over layers by language."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the history of a resumed run, and profile the model as it is before the first step."""
        _check_whole(kwargs["model"])
        path = self._folder(args) / HISTORY
        if state.global_step and path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))["profiles"]
            self.history = [entry for entry in stored if entry["step"] <= state.global_step]
        elif self._at_start:
            self._profile(args, state, kwargs["model"])

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Profile the model as it is."""
        # A second evaluation at the same step has nothing new to say.
        if not self.history or self.history[-1]["step"] != state.global_step:
            _check_whole(kwargs["model"])
            self._profile(args, state, kwargs["model"])
        metrics = kwargs.get("metrics")
        if metrics is not None:
            metrics |= _metrics(self.history[-1]["js"])

    def _profile(self, args: TrainingArguments, state: TrainerState, model: nn.Module) -> None:
        profile = profile_routing(
            model, self._tokenizer, self._sides, label=f"step {state.global_step}", command="callback", **self._options
        )
        folder = self._folder(args) / f"step-{state.global_step:06d}"
        js = _mean_js(profile)
        self.history.append({"step": state.global_step, "folder": folder.name, "js": js})
        state.log_history.append({**_metrics(js), "step": state.global_step})
        if state.is_world_process_zero:
            write_profile(profile, folder)
            _write_history(folder.parent / HISTORY, self.history)

    def _folder(self, args: TrainingArguments) -> Path:
        return self._output_dir or Path(str(args.output_dir)) / "routing"


def _check_whole(model: nn.Module) -> None:
    """Refuse a model of which no process holds all weights: its backbone cannot be called by itself."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor) or parameter.numel() == 0:
            raise ModelError(
                f"the model's weights are spread over processes ({name}), and a profile needs them whole: leave "
                "RoutingProfileCallback out, and profile the checkpoints by `innerlingua routing profile`"
            )


def _mean_js(profile: RoutingProfile) -> dict[str, float]:
    return {
        language: float(torch.tensor(entry["mean"]).mean())
        for language, entry in profile.record["measures"]["js"].items()
        if entry is not None
    }


def _metrics(js: Mapping[str, float]) -> dict[str, float]:
    own = {f"eval_routing_js_{language}": value for language, value in js.items()}
    return {"eval_routing_js": sum(js.values()) / len(js), **own}


def _write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"schema": 1, "profiles": list(history)}, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
