"""Benchmarks on small samples while a model is trained, language by language.

Before the first step and at every evaluation of the trainer, or every so many steps, the model as it is answers a few
questions of each benchmark. It is asked in evaluation mode, greedily, and draws no random number, so that training goes
on as it would have without. Each time leaves a run as `innerlingua evaluate` does, for `innerlingua compare`.

The intervals of so few questions are wide (6 points either side for 200 with four choices, at chance): this shows a
collapse early, and does not choose between two good checkpoints.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainerCallback

from innerlingua.data.files import write_text
from innerlingua.data.languages import ENGLISH
from innerlingua.errors import ModelError
from innerlingua.evaluation.backend_hf import BALANCE, WatchedHF, balanced_parts
from innerlingua.evaluation.benchmarks import choose, data_folder
from innerlingua.evaluation.planning import versions
from innerlingua.evaluation.running import run_unit, silent, summary_of
from innerlingua.evaluation.settings import Settings, check_settings, recorded
from innerlingua.evaluation.store import HISTORY, clear_history, write_results, write_run, write_samples
from innerlingua.evaluation.tasks import build_unit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

__all__ = ["BenchmarkCallback"]


class BenchmarkCallback(TrainerCallback):
    """Asks the model a few questions of each benchmark before the first step and at every evaluation of a trainer.

    ```python
    callback = BenchmarkCallback(["belebele"], tokenizer, languages=["swh_Latn"], data="pack", limit=100)
    trainer = Trainer(..., args=SFTConfig(eval_strategy="steps", eval_steps=200, ...), callbacks=[callback])
    ```

    Scores go into the trainer's log history and the evaluation's metrics as `eval_<benchmark>_<language>`, the mean
    over all languages but the anchor as `eval_<benchmark>` (so that `metric_for_best_model` can name it), and to
    `<output_dir>/evaluation/`: `history.json`, and a folder per step as `innerlingua evaluate` leaves it.

    Args:
        tasks: names of benchmarks, as `innerlingua evaluate --tasks`.
        tokenizer: of the model.
        languages: as `--languages`; the anchor language is always asked as well.
        data: the folder of local benchmarks; what `INNERLINGUA_DATA` names unless given.
        limit: questions of each benchmark and language.
        anchor: the language that stands beside all others.
        every: ask after so many steps, or after each "epoch", and after the last step; unless given, at every
            evaluation of the trainer.
        at_start: ask before the first step as well.
        output_dir: where results go, if not into the trainer's folder.
        options: of `Settings`, such as `num_fewshot`, `chat_template`, `batch_size`. Prompts without room in the
            context are counted, not an error, unless `overlong` says so.

    Raises:
        DataError: an unknown benchmark, language or value, at once and not at the first evaluation.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        languages: Sequence[str] | None = None,
        data: str | Path | None = None,
        limit: int = 100,
        anchor: str = ENGLISH,
        every: int | Literal["epoch"] | None = None,
        at_start: bool = True,
        output_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        self._settings = Settings(limit=limit, **{"overlong": "count", **options})
        check_settings(self._settings)
        folder = data_folder(None if data is None else Path(data))
        self._chosen = choose(tasks, languages, data=folder, anchor=anchor)
        if self._settings.chat_template and tokenizer.chat_template is None:
            raise ModelError("chat_template is asked for, but the tokenizer has none")
        with silent():
            self._units = [
                (
                    benchmark,
                    build_unit(
                        benchmark,
                        language,
                        num_fewshot=self._settings.num_fewshot,
                        max_new_tokens=self._settings.max_new_tokens,
                        limit=limit,
                    ),
                )
                for benchmark, asked in self._chosen.benchmarks
                for language in asked
            ]
        self._tokenizer = copy.deepcopy(tokenizer)  # the harness sets its padding
        self._every = every
        self._at_start = at_start
        self._output_dir = None if output_dir is None else Path(output_dir)
        self.history: list[dict[str, Any]] = []
        """Of each evaluation: `step`, `folder`, and `scores` by benchmark and language."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the history of a resumed run, and ask the model as it is before the first step."""
        _check_whole(kwargs["model"])
        path = self._folder(args) / HISTORY
        if state.global_step and path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))["evaluations"]
            self.history = [entry for entry in stored if entry["step"] <= state.global_step]
            return
        if state.is_world_process_zero:
            clear_history(path.parent)
        if self._at_start:
            self._evaluate(args, state, kwargs["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask the model where its turn has come."""
        if isinstance(self._every, int) and state.global_step % self._every == 0:
            self._ask(args, state, kwargs["model"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask the model where its turn has come."""
        if self._every == "epoch":
            self._ask(args, state, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask the model that came out, unless an earlier one was loaded in its place."""
        if self._every is not None and not args.load_best_model_at_end:
            self._ask(args, state, kwargs["model"])

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask the model as it is."""
        if self._every is None:
            self._ask(args, state, kwargs["model"])
        metrics = kwargs.get("metrics")
        if metrics is not None and self._asked_at(state.global_step):
            metrics |= self._metrics(self.history[-1]["scores"])

    def _ask(self, args: TrainingArguments, state: TrainerState, model: PreTrainedModel) -> None:
        # A second evaluation at the same step has nothing new to say.
        if not self._asked_at(state.global_step):
            _check_whole(model)
            self._evaluate(args, state, model)

    def _asked_at(self, step: int) -> bool:
        return bool(self.history) and self.history[-1]["step"] == step

    def _evaluate(self, args: TrainingArguments, state: TrainerState, model: PreTrainedModel) -> None:
        label = f"step-{state.global_step:06d}"
        folder = self._folder(args) / label
        first = state.is_world_process_zero
        scores: dict[str, dict[str, float]] = {}
        summaries: list[dict[str, Any]] = []
        if first:
            write_run(folder, self._run(label, args, state))
        with _as_for_answers(model):
            with silent():
                asked = WatchedHF(
                    pretrained=model,
                    tokenizer=self._tokenizer,
                    batch_size=self._settings.batch_size,
                    max_length=self._settings.max_length,
                    quiet=True,
                )
            for benchmark, unit in self._units:
                rows = run_unit(asked, unit, self._settings)
                summary = summary_of(benchmark, unit.language, rows, self._chosen.anchor, None)
                summaries.append(summary)
                corpus = summary.get("corpus", {})
                scores.setdefault(benchmark.name, {})[unit.language] = corpus.get("chrf++", summary["score"])
                if first:
                    write_samples(folder, benchmark.name, unit.language, rows)
        self.history.append({"step": state.global_step, "folder": label, "scores": scores})
        state.log_history.append({**self._metrics(scores), "step": state.global_step})
        if first:
            write_results(folder, summaries)
            record = {"schema": 1, "evaluations": self.history}
            write_text(folder.parent / HISTORY, json.dumps(record, indent=1) + "\n")

    def _run(self, label: str, args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        return {
            "label": label,
            "model": {"path": str(args.output_dir), "step": state.global_step},
            "backend": "hf",
            "seed": args.seed,
            "anchor": self._chosen.anchor,
            "settings": recorded(self._settings),
            "versions": versions(),
            "command": "callback",
        }

    def _metrics(self, scores: dict[str, dict[str, float]]) -> dict[str, float]:
        found = {}
        for benchmark, by_language in scores.items():
            targets = [score for code, score in by_language.items() if code != self._chosen.anchor]
            if targets:
                found[f"eval_{benchmark}"] = sum(targets) / len(targets)
            found |= {f"eval_{benchmark}_{language}": score for language, score in by_language.items()}
        return found

    def _folder(self, args: TrainingArguments) -> Path:
        return self._output_dir or Path(str(args.output_dir)) / "evaluation"


@contextmanager
def _as_for_answers(model: PreTrainedModel) -> Iterator[None]:
    """The model in evaluation mode and without the balance loss, and afterwards as it was."""
    training = model.training
    balanced = balanced_parts(model)
    try:
        for part in balanced:
            setattr(part, BALANCE, False)
        yield
    finally:
        for part in balanced:
            setattr(part, BALANCE, True)
        model.train(training)


def _check_whole(model: nn.Module) -> None:
    """Refuse a model of which no process holds all weights: it cannot be asked by itself."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor) or parameter.numel() == 0:
            raise ModelError(
                f"the model's weights are spread over processes ({name}), and benchmarks need them whole: leave "
                "BenchmarkCallback out, and evaluate the checkpoints by `innerlingua evaluate`"
            )
