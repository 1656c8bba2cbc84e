"""How models are evaluated: what a user may choose, checked. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, Final, Literal

from innerlingua.errors import DataError, nearest
from innerlingua.evaluation.watch import Overlong

__all__ = ["Settings", "check_settings", "model_arguments", "recorded"]

Backend = Literal["hf", "vllm"]

_DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
_BACKENDS: Final = ("hf", "vllm")
# What changes how fast results come, or whether they come, and not what they are.
_NO_MATTER: Final = ("batch_size", "device", "trust_remote_code", "overlong")
_OURS: Final = {
    "pretrained": "MODEL", "model": "MODEL", "peft": "MODEL+ADAPTER", "lora_local_path": "MODEL+ADAPTER",
    "tokenizer": "MODEL", "revision": "--revision", "dtype": "--dtype", "device": "--device",
    "batch_size": "--batch-size", "max_length": "--max-length", "max_model_len": "--max-length",
    "trust_remote_code": "--trust-remote-code", "truncation": "--overlong", "backend": "--backend",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The choices of one call, the same for all its models."""

    backend: Backend = "hf"
    num_fewshot: int = 0
    chat_template: bool = False
    max_new_tokens: int | None = None
    limit: int | None = None
    overlong: Overlong = "error"
    dtype: str = "auto"
    max_length: int | None = None
    batch_size: str = "8"
    device: str | None = None
    trust_remote_code: bool = False
    model_args: Mapping[str, Any] = field(default_factory=dict)


def check_settings(settings: Settings) -> None:
    """Raise `DataError` for a value that cannot be, or a backend that is not installed."""
    for option, value, least in (
        ("--num-fewshot", settings.num_fewshot, 0),
        ("--max-new-tokens", settings.max_new_tokens, 1),
        ("--limit", settings.limit, 1),
        ("--max-length", settings.max_length, 2),
    ):
        if value is not None and value < least:
            raise DataError(f"{option} {value}: it must be {least} at least")
    for option, word, known in (
        ("--dtype", settings.dtype, _DTYPES),
        ("--backend", settings.backend, _BACKENDS),
        ("--overlong", settings.overlong, ("error", "count")),
    ):
        if word not in known:
            raise DataError(f"{option} {word}: no such choice{nearest(word, known)}")
    if not re.fullmatch(r"[1-9]\d*|auto(:\d+(\.\d+)?)?", settings.batch_size):
        raise DataError(f"--batch-size {settings.batch_size}: a number from 1, auto, or auto:N")
    for key in settings.model_args:
        if key in _OURS:
            raise DataError(f"--model-args {key}: give it as {_OURS[key]}")
    if settings.backend == "vllm" and find_spec("vllm") is None:
        raise DataError(
            "--backend vllm: vLLM is not installed; install it beside this package (pip install vllm), or use "
            "--backend hf"
        )


def recorded(settings: Settings) -> dict[str, Any]:
    """The settings that results depend on, as `run.json` keeps them."""
    return {key: value for key, value in asdict(settings).items() if key not in (*_NO_MATTER, "backend")}


def model_arguments(text: str | None) -> dict[str, Any]:
    """`key=value,key=value` of `--model-args`; numbers and true, false, none are what they look like.

    Raises:
        DataError: a part that is no `key=value`.
    """
    found: dict[str, Any] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        key, sign, value = part.partition("=")
        if not sign or not key.strip().isidentifier():
            raise DataError(f"--model-args {part.strip()!r}: write key=value, separated by commas")
        found[key.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
