"""What a routing prior was computed from, in a form that can be compared and that names what differs.

A prior is right for one model, one tokenizer, one chat template and one set of anchor texts. The fingerprint holds a
digest of each, by name: every tensor of the model with its shape, type and a hash of a fixed, evenly strided sample of
its elements (reading all bytes of a 30B model would take minutes, and training moves all weights), the configuration,
the tokenizer, the template, and the token ids of each anchor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from innerlingua.anatomy import compute_type, whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["describe", "differences", "hash_text", "hash_tokens", "model_fingerprint", "tokenizer_fingerprint"]

_SAMPLE = 4096
# Set by trainers on a loaded model without any effect on its routing, or descriptive only.
_VOLATILE = frozenset(
    {
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "output_router_logits",
        "pad_token_id",
        "router_aux_loss_coef",
        "transformers_version",
        "use_cache",
    }
)


def model_fingerprint(model: PreTrainedModel) -> dict[str, Any]:
    """`{"config": {key: value}, "weights": {name: "dtype shape digest"}, "compute": type}` of an unwrapped model.

    `compute` is the numeric type that a forward pass would use now: autocast's where it is on, else the weights' own.
    """
    config = _without(model.config.to_dict(), _VOLATILE)
    return {
        "config": json.loads(json.dumps(config, sort_keys=True, default=str)),
        "weights": {name: describe(tensor) for name, tensor in sorted(model.state_dict().items())},
        "compute": compute_type(model),
    }


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """`{"tokenizer": digest, "template": digest}`; what only concerns padding and truncation is left out."""
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        description = json.dumps(_without(state, {"padding", "truncation"}), sort_keys=True)
    else:
        description = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return {
        "tokenizer": hash_text(f"{description}\0{tokenizer.bos_token}\0{tokenizer.eos_token}"),
        "template": hash_text(json.dumps(tokenizer.chat_template, sort_keys=True)),
    }


def hash_tokens(token_ids: Iterable[int]) -> str:
    """The digest of one tokenised text."""
    return xxhash.xxh3_64_hexdigest(np.asarray(list(token_ids), dtype="<i8").tobytes())


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints, in words for a user; empty when they are the same."""
    found: list[str] = []
    for key in sorted(stored.keys() | current.keys()):
        before, after = stored.get(key), current.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            what = "tensors" if key == "weights" else "keys"
            found.append(f"{key} ({len(changed)} of {len(after)} {what}, the first is {changed[0]})")
        elif key in ("compute", "layers", "pooling", "score"):
            found.append(f"{key} (stored {before}, now {after})")
        else:
            found.append(key)
    return found


def describe(tensor: Tensor) -> str:
    """`"dtype shape digest"` of a tensor, from an evenly strided sample of its elements. Of a tensor that is sharded
    over processes all of them must ask."""
    flat = whole(tensor.detach()).reshape(-1)
    stride = max(1, flat.numel() // _SAMPLE)
    sample = flat[::stride].contiguous().cpu()
    payload = sample.view(dtype=torch.uint8).numpy().tobytes() if sample.numel() else b""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} {xxhash.xxh3_64_hexdigest(payload)}"


def hash_text(text: str) -> str:
    """The digest of a text."""
    return xxhash.xxh3_128_hexdigest(text.encode())


def _without(mapping: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """`mapping` without `keys`, at every depth: composite configurations nest the text model's."""
    dropped = set(keys)
    return {
        key: _without(value, dropped) if isinstance(value, Mapping) else value
        for key, value in mapping.items()
        if key not in dropped
    }
