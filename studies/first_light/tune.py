"""The tuning runs: plain, SARA, and the controls, all from the one base on the same rows, steps, order and seed.

Rows are `text` and `anchor_text`, cross-entropy over all tokens of the target; English is never trained on here, it
is the anchor alone. Every language gives the same number of rows.
"""

import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from corpus import TARGETS, Corpus, Pair, count_table, equal_pairs, pairs_of
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig

from innerlingua import RoutingAlignment, RoutingPrior, Trainer, find_moe_layers, read_pairs, tokenize_pairs
from innerlingua.routing import mean_divergence, pair_divergence


@dataclass(frozen=True)
class Run:
    """One tuning run: its folder, the weight of the alignment term (None: no term), whether anchors are shuffled."""

    name: str
    weight: float | None
    shuffled: bool = False


RUNS = (
    Run("sft", None),
    Run("sara", 1.5),
    Run("sara_shuffled", 1.5, shuffled=True),
    Run("sara_20", 20.0),
    Run("sara_20_shuffled", 20.0, shuffled=True),
)


@dataclass(frozen=True)
class TuneScale:
    """Sizes of a tuning run; the defaults are the study's."""

    rows_per_language: int = 1400
    max_length: int = 160
    batch: int = 16
    epochs: float = 1.0
    rate: float = 5e-4
    curve_rows_per_language: int = 100


def load_run(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A checkpoint of the study in float32, in evaluation mode, and its tokenizer."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model.eval()  # type: ignore[no-untyped-call]
    return model, tokenizer


def tokenised(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, *, max_length: int
) -> tuple[Dataset, dict[str, int]]:
    """The pairs through the package's own reading and tokenising; overlong pairs are dropped and counted."""
    columns = [{"id": p.id, "language": p.language, "text": p.text, "anchor_text": p.anchor_text} for p in pairs]
    read = read_pairs(Dataset.from_list(columns))
    tokens = tokenize_pairs(read.dataset, tokenizer, max_length=max_length, overlong="drop")
    return tokens.dataset, read.counts | tokens.counts


def tuning_rows(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, *, scale: TuneScale, seed: int
) -> tuple[Dataset, list[Pair], dict[str, int]]:
    """The rows of every run: those short enough, then as many of each language; also the pairs in order, and counts."""
    every = [pair for language in TARGETS for pair in pairs_of(corpus.train, language)]
    tokens, counts = tokenised(every, tokenizer, max_length=scale.max_length)
    place = {key: row for row, key in enumerate(zip(tokens["id"], tokens["language"], strict=True))}
    fitting: dict[str, list[Pair]] = {language: [] for language in TARGETS}
    for pair in every:
        if (pair.id, pair.language) in place:
            fitting[pair.language].append(pair)
    chosen = equal_pairs(fitting, count=scale.rows_per_language, seed=seed)
    return tokens.select([place[pair.id, pair.language] for pair in chosen]), chosen, counts


def shuffled_anchors(rows: Dataset, *, seed: int) -> Dataset:
    """The same rows, each id with the anchor of another id; the languages of an id share the wrong one."""
    own = {row["id"]: (row["anchor_input_ids"], row["anchor_labels"]) for row in rows}
    ids = sorted(own)
    random.Random(seed).shuffle(ids)
    other = dict(zip(ids, [*ids[1:], *ids[:1]], strict=True))
    anchors = [own[other[name]] for name in rows["id"]]
    kept = rows.remove_columns(["anchor_input_ids", "anchor_labels"])
    return kept.add_column("anchor_input_ids", [ids for ids, _ in anchors]).add_column(
        "anchor_labels", [labels for _, labels in anchors]
    )


def suggested_layers(curve: Sequence[float]) -> tuple[list[int], str]:
    """The layers to align, from the base's divergence by depth: the trough, else the middle 15 % to 72 % of the depth.

    The trough is the longest run of layers below min + 0.25 x (mean of the first and the last tenth - min), if it spans
    at least a fifth of the depth. Returns the positions in the curve and the rule that gave them.
    """
    depth = len(curve)
    tenth = max(1, depth // 10)
    ends = (*curve[:tenth], *curve[-tenth:])
    lowest = min(curve)
    limit = lowest + 0.25 * (sum(ends) / len(ends) - lowest)
    runs: list[list[int]] = [[]]
    for position, value in enumerate(curve):
        if value < limit:
            runs[-1].append(position)
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=len)
    if len(longest) >= 0.2 * depth:
        return longest, "trough"
    return list(range(int(0.15 * depth), int(0.72 * depth) + 1)), "no trough: 15 % to 72 % of the depth"


def choose_layers(
    model: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerFast, *, per_language: int
) -> dict[str, object]:
    """The base's curve on some of the tuning rows (never on held-out ones) and the layers that follow from it."""
    taken: dict[str, int] = {}
    chosen = []
    for position, language in enumerate(rows["language"]):
        if taken.get(language, 0) < per_language:
            taken[language] = taken.get(language, 0) + 1
            chosen.append(position)
    indices = [layer.index for layer in find_moe_layers(model)]
    by_language = mean_divergence(pair_divergence(model, rows.select(chosen), tokenizer, batch_size=32), indices)
    curve = [sum(found[index] for found in by_language.values()) / len(by_language) for index in indices]
    positions, rule = suggested_layers(curve)
    return {
        "layers": [indices[position] for position in positions],
        "rule": rule,
        "curve": {str(index): round(value, 5) for index, value in zip(indices, curve, strict=True)},
        "rows_per_language": taken,
    }


def tune(
    run: Run, corpus: Corpus, folder: Path, *, scale: TuneScale, seed: int, layers: Sequence[int] | None = None
) -> None:
    """Train one run from `folder/base` into `folder/<name>`, with `log.json`; it appears whole or not at all."""
    set_seed(seed)
    model, tokenizer = load_run(folder / "base")
    rows, chosen, counts = tuning_rows(corpus, tokenizer, scale=scale, seed=seed)
    choice = choose_layers(model, rows, tokenizer, per_language=scale.curve_rows_per_language)
    aligned = list(layers) if layers is not None else [int(index) for index in choice["layers"]]  # type: ignore[attr-defined]
    print(f"{run.name}: rows {count_table(chosen)}; reading {counts}; layers {aligned} ({choice['rule']})", flush=True)
    started = time.perf_counter()
    terms = []
    if run.weight is not None:
        anchors = shuffled_anchors(rows, seed=seed) if run.shuffled else rows
        prior = RoutingPrior.compute(model, anchors, tokenizer, layers=aligned, batch_size=32, progress=False)
        terms = [RoutingAlignment(anchor=prior, weight=run.weight)]
    prior_seconds = time.perf_counter() - started
    work = folder / f"{run.name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    arguments = SFTConfig(
        output_dir=str(work),
        max_length=None,
        per_device_train_batch_size=scale.batch,
        num_train_epochs=scale.epochs,
        learning_rate=scale.rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        adam_beta2=0.95,
        logging_steps=10,
        save_strategy="no",
        train_sampling_strategy="group_by_length",
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        seed=seed,
    )
    columns = ["id", "input_ids", "labels"] if terms else ["input_ids", "labels"]
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows.select_columns(columns), processing_class=tokenizer, terms=terms
    )
    outcome = trainer.train()
    model.save_pretrained(work)
    tokenizer.save_pretrained(work)
    log = {
        "run": asdict(run),
        "scale": asdict(scale),
        "seed": seed,
        "layers": aligned,
        "layer_choice": choice,
        "rows": count_table(chosen),
        "reading": counts,
        "steps": trainer.state.global_step,
        "train_seconds": round(outcome.metrics["train_runtime"], 1),
        "seconds_per_step": round(outcome.metrics["train_runtime"] / trainer.state.global_step, 4),
        "prior_seconds": round(prior_seconds, 1),
        "history": trainer.state.log_history,
    }
    (work / "log.json").write_text(json.dumps(log, indent=1) + "\n")
    work.rename(folder / run.name)
