"""What a resumed run must have in common with its start: the keys that change what is learned, the rows, the base.

A record of the start lies in the run's folder (`run.py`). Hashes tell that something has changed, and nothing to a
reader; so the record also names the files, and a difference is told in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerlingua.data.files import place_of
from innerlingua.data.hashes import file_hash
from innerlingua.errors import RecipeError
from innerlingua.recipe.reading import read_document
from innerlingua.recipe.run import RECIPE, read_record
from innerlingua.recipe.schema import Recipe
from innerlingua.routing.fingerprint import hash_text, model_fingerprint
from innerlingua.routing.processes import all_processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from innerlingua.recipe.rows import Rows

__all__ = ["base_of", "differences", "refuse_drift", "sources"]

# Keys of `trainer` that change what is written, shown or how fast, and not what is learned. All others are held equal.
_HARMLESS = re.compile(
    r"(logging_|log_|save_(?!only)|report_to|run_name|project|trackio_|hub_|push_to_hub|output_dir|disable_tqdm"
    r"|dataloader_(num_workers|pin_memory|persistent_workers|prefetch_factor|multiprocessing_context)|eval_|per_device_eval"
    r"|ddp_(timeout|backend)|enable_jit_checkpoint|skip_memory_metrics|torch_empty_cache_steps|dataset_num_proc)"
)
# Hashes say nothing to a reader: these keys of the record are told in words.
_ROWS = {"run.rows": "data.train", "run.eval_rows": "data.eval"}
# Of data, the rows themselves are compared (`rows`, `eval_rows` of the record), not where they lie.
_HARMLESS_SECTIONS = frozenset({"data.train", "data.eval", "model.attn_implementation"})


def refuse_drift(folder: Path, recipe: Recipe, record: Mapping[str, Any]) -> None:
    """Raise `RecipeError` with every difference between the run in `folder` and what it would now go on with."""
    found = differences(folder, recipe, record, pending=_pending(recipe))
    if found:
        lines = "\n  ".join(found)
        raise RecipeError(
            f"--resume: this is not the run that was started in {folder}. What differs (then -> now):\n  {lines}\n"
            "Set these back, or start a new run in another trainer.output_dir."
        )


def differences(folder: Path, recipe: Recipe, record: Mapping[str, Any], *, pending: Collection[str] = ()) -> list[str]:
    """What of `recipe` and `record` changes the training and is not what the run in `folder` was started with.

    Each difference is one line, `key: before -> now`, or a sentence about rows. Keys that only change what is written
    or shown are passed over, and so are those `pending`, which `recipe` leaves to be found out.
    """
    recorded = read_record(folder)
    compared = [key for key in record if key != "base"]
    before = {
        **_flat(read_document(folder / RECIPE).values),
        **_flat({key: recorded.get(key) for key in compared}, "run."),
    }
    now = {**_flat(recipe.values()), **_flat({key: record[key] for key in compared}, "run.")}
    found = _changed_base(recipe, recorded.get("base"), record.get("base"))
    for key in sorted(before.keys() | now.keys()):
        section, _, name = key.partition(".")
        harmless = (
            key in _HARMLESS_SECTIONS
            or section == "evaluation"
            or key in pending
            or (section == "trainer" and _HARMLESS.match(name))
        )
        if harmless or key.startswith("run.sources.") or before.get(key) == now.get(key):
            continue
        if key in _ROWS:
            before_and_now = [values.get("sources", {}).get(_ROWS[key]) for values in (recorded, record)]
            found.append(_changed_rows(_ROWS[key], *before_and_now))
        else:
            found.append(f"{key}: {_short(before.get(key))} -> {_short(now.get(key))}")
    return found


def sources(recipe: Recipe, rows: Rows) -> dict[str, Any]:
    """What the rows of `data.train` and `data.eval` come from, for the record: their number, and of each file its size
    and SHA-256. The main process alone reads the files; all get the same.
    """

    def found() -> dict[str, Any]:
        given = {"data.train": _source(recipe.data.train, len(rows.train))}
        if recipe.data.eval is not None and rows.evaluation is not None:
            given["data.eval"] = _source(recipe.data.eval, len(rows.evaluation))
        return given

    return all_processes().on_main(found)


def base_of(recipe: Recipe, model: PreTrainedModel) -> dict[str, Any] | None:
    """What the frozen base of adapters is, for the record: `{"config": {key: value}, "weights": digest}`, of the shape,
    type and an even sample of every tensor, as the prior's fingerprint has them. None without adapters, where the
    checkpoint has all weights. `model` is as it was loaded; the main process alone looks, and all get the same.
    """

    def found() -> dict[str, Any]:
        base = model_fingerprint(model)
        return {"config": base["config"], "weights": hash_text(json.dumps(base["weights"], sort_keys=True))}

    return None if recipe.peft is None else all_processes().on_main(found)


def _changed_base(recipe: Recipe, before: Any, now: Any) -> list[str]:
    """What is other of the model that the adapters are trained on; nothing for a run that did not record it."""
    if not isinstance(before, Mapping) or now is None:
        return []
    recorded = before.get("config")
    config: Mapping[str, Any] = recorded if isinstance(recorded, Mapping) else {}
    # Another version of transformers has other keys for the same model.
    shared = sorted(config.keys() & now["config"].keys())
    found = [
        f"the configuration of the base, model.path: {recipe.model.path}: {key}: {_short(config[key])} -> "
        f"{_short(now['config'][key])}"
        for key in shared
        if config[key] != now["config"][key]
    ]
    if before.get("weights") != now["weights"]:
        found.append(
            f"the weights of the base, model.path: {recipe.model.path}, have changed: the adapters of this run belong "
            "to those that it was started with"
        )
    return found


def _pending(recipe: Recipe) -> set[str]:
    """Keys that only the rows or the model will tell."""
    pending = set() if "assistant_only_loss" in recipe.trainer else {"trainer.assistant_only_loss"}
    if recipe.alignment is not None and recipe.alignment.layers == "auto":
        pending.add("alignment.layers")
    if recipe.alignment is not None and recipe.alignment.score is None:
        pending.add("alignment.score")
    return pending


def _source(paths: Iterable[str], rows: int) -> dict[str, Any]:
    # A folder of `save_to_disk` is one file here, whole, also where a split of it was chosen.
    files = {path: place_of(path)[0] for path in paths}
    return {
        "rows": rows,
        "files": [
            {"file": name, "bytes": _size(path), "sha256": file_hash(path)}
            for name, path in files.items()
            if path.exists()
        ],
    }


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _changed_rows(section: str, before: Any, now: Any) -> str:
    """Which files of `data.train` or `data.eval` are others now, by their place in the list, and what of them."""
    if not before or not now:
        return f"the rows of {section}, or the tokenizer and template that they are tokenised with, have changed"
    told = f"the rows of {section} have changed ({before['rows']:,} -> {now['rows']:,})"
    if len(before["files"]) != len(now["files"]):
        return f"{told}: {len(before['files'])} files -> {len(now['files'])}"
    changed = [
        f"{new['file']} has other content ({old['bytes']:,} bytes -> {new['bytes']:,})"
        for old, new in zip(before["files"], now["files"], strict=True)
        if old["sha256"] != new["sha256"]
    ]
    if not changed:
        return (
            f"{told}: the files are the same, and the tokenizer, the template that renders them, or a key of data that "
            "chooses among them, is another"
        )
    return f"{told}: {'; '.join(changed)}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        elif value not in (None, {}):
            flat[f"{prefix}{key}"] = value
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
