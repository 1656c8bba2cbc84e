"""Which model families of the installed transformers record a router, and which class trains each. Derived, not typed.

A family is a folder of `transformers.models` with a class that names `router_logits` among the outputs it can record,
or, as in earlier versions, has experts and records no router. It is in the matrix when one of its classes is a
language model that takes labels and reads one text: not the two texts of an encoder-decoder, and not a classifier. A
family whose text model stands by itself and also inside a larger model (vision, audio) is in the matrix with both.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import transformers.models
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

# In the order in which a checkpoint of the type is best loaded for training on text.
_AUTO_CLASSES = {
    "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "AutoModelForImageTextToText": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
}
_SEQ2SEQ = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
_HAS_ROUTER = re.compile(r"""["']router_logits["']\s*:|class \w+Experts\(nn.Module\)""")


@dataclass(frozen=True)
class Entry:
    """One model to send through the matrix: `model_type` built by `auto_class`; `inside` what it stands in."""

    folder: str
    model_type: str
    auto_class: str
    architecture: str
    inside: bool  # the text model is a part of a larger one
    recorded: bool  # transformers records its routers; where it does not, they are found beside the experts

    def __str__(self) -> str:
        return f"{self.folder}-wrapped" if self.inside else self.folder


@dataclass(frozen=True)
class Catalogue:
    """All families that record a router: those to test, and those that are not with the reason."""

    entries: tuple[Entry, ...]
    excluded: dict[str, str]

    @property
    def folders(self) -> list[str]:
        return sorted({entry.folder for entry in self.entries} | set(self.excluded))


@dataclass(frozen=True)
class _Models:
    """What the source of a family says: its classes, whether one records a router, and which take labels."""

    classes: frozenset[str]
    recorded: bool
    take_labels: frozenset[str]


def catalogue() -> Catalogue:
    entries: list[Entry] = []
    excluded: dict[str, str] = {}
    for folder, models in _recorders():
        found = _entries(folder, models)
        if found:
            entries += found
        else:
            excluded[folder] = _reason(models)
    return Catalogue(tuple(entries), excluded)


def _recorders() -> list[tuple[str, _Models]]:
    found = []
    for source in sorted(Path(transformers.models.__path__[0]).glob("*/modeling_*.py")):
        text = source.read_text(encoding="utf-8")
        if _HAS_ROUTER.search(text):  # most files end here: to parse, let alone import, them all takes half a minute
            models = _models(ast.parse(text))
            if models.recorded or any(name.endswith("Experts") for name in models.classes):
                found.append((source.parent.name, models))
    return found


def _models(module: ast.Module) -> _Models:
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    return _Models(
        classes=frozenset(classes),
        recorded=any(_records(node) for node in classes.values()),
        take_labels=frozenset(name for name, node in classes.items() if "labels" in _forward_arguments(node)),
    )


def _records(node: ast.ClassDef) -> bool:
    tables = [
        item.value
        for item in node.body
        if isinstance(item, ast.Assign) and [ast.unparse(target) for target in item.targets] == ["_can_record_outputs"]
    ]
    keys = [key for table in tables if isinstance(table, ast.Dict) for key in table.keys]
    return any(isinstance(key, ast.Constant) and key.value == "router_logits" for key in keys)


def _forward_arguments(node: ast.ClassDef) -> set[str]:
    forwards = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "forward"]
    return {argument.arg for forward in forwards for argument in (*forward.args.args, *forward.args.kwonlyargs)}


def _entries(folder: str, models: _Models) -> list[Entry]:
    """The text model first, then the larger model around it, each when there is one."""
    candidates = [
        Entry(
            folder,
            model_type,
            auto_class,
            architecture,
            "text_config" in CONFIG_MAPPING[model_type].sub_configs,
            models.recorded,
        )
        for auto_class, mapping in _AUTO_CLASSES.items()
        for model_type, architecture in mapping.items()
        if architecture in models.take_labels and architecture not in _SEQ2SEQ.values()
    ]
    # A composite configuration may be given to the text model, too; the text model's own is preferred.
    alone = next((entry for entry in candidates if not entry.inside), None)
    around = next((e for e in candidates if e.inside and (alone is None or e.architecture != alone.architecture)), None)
    return [entry for entry in (alone, around) if entry is not None]


def _reason(models: _Models) -> str:
    if models.classes & set(_SEQ2SEQ.values()):
        return "encoder-decoder: its encoder and decoder route different texts"
    language = models.classes & {name for mapping in _AUTO_CLASSES.values() for name in mapping.values()}
    if language:
        return f"{min(language)} takes no labels: it is not trained by next-token prediction"
    heads = sorted(name.partition("For")[2] for name in models.classes if "For" in name)
    return f"no language model: its only heads are {', '.join(heads)}"
