"""The routing prior: where the anchors are routed by the model as it was before training.

For each anchor text the prior keeps its pooled routing in the aligned layers, P (layers, experts), float32, keyed by
the `id` of the pair, so that all target languages share one entry. It is computed once, by a pass without
language-model head and gradient in evaluation mode, and stored as `prior.safetensors` (one tensor, rows in the order
of the ids) beside `prior.json` (ids, layers, fingerprint). Rows are read when they are asked for.

Source: stage 3 of SARA (Dong et al., Findings of ACL 2026). That the prior is never refreshed is the paper's separate
stage.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from innerlingua.anatomy import RoutingTap, layer_indices, mixed_precision
from innerlingua.errors import DataError, PriorError
from innerlingua.routing.fingerprint import (
    differences,
    hash_text,
    hash_tokens,
    model_fingerprint,
    tokenizer_fingerprint,
)
from innerlingua.routing.inputs import (
    check_args,
    check_base_model,
    check_batch_size,
    check_tokenizer,
    tokenised_rows,
)
from innerlingua.routing.pooling import PooledText, check_pooling, pad_token_id, pool_texts, segment_ids

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

__all__ = ["RoutingPrior"]

TENSORS, RECORD = "prior.safetensors", "prior.json"
SCHEMA = 2


class RoutingPrior:
    """Pooled routing of anchors by id. Made by `compute` or `open`, kept by `save`; see the module for what it holds.

    `ids`, `layers` (decoder-layer indices), `pooling`, `score` and `fingerprint` describe it.
    """

    def __init__(self, record: Mapping[str, Any], *, tensor: Tensor | None = None, folder: Path | None = None) -> None:
        self.ids: list[str] = list(record["ids"])
        self.layers: list[int] = list(record["layers"])
        self.pooling: str = record["pooling"]
        self.score: str = record["score"]
        self.fingerprint: dict[str, Any] = dict(record["fingerprint"])
        self._texts: dict[str, str] = dict(zip(self.ids, record["texts"], strict=True))
        self._row = {name: row for row, name in enumerate(self.ids)}
        self._tensor = tensor
        self._folder = folder

    @classmethod
    def compute(
        cls,
        model: PreTrainedModel,
        dataset: Dataset | Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        args: SFTConfig | None = None,
        layers: Sequence[int] | None = None,
        score: str | None = None,
        pooling: str = "sequence",
        batch_size: int = 8,
        progress: bool = True,
    ) -> RoutingPrior:
        """The prior of the anchors in `dataset` under `model`, computed on the device where the model is.

        Args:
            model: the model as it is before training, without adapters.
            dataset: pairs as `read_pairs` or `tokenize_pairs` give them, or a list of such rows; rows without an
                anchor are passed over.
            tokenizer: the model's tokenizer; its chat template is used for conversations.
            args: the arguments of the training to come. The anchors then go through the model in its numeric type
                (`bf16`, which `SFTConfig` turns on by itself, or `fp16`), and text is tokenised as it will be. Without
                them the type is that of the weights, or of an autocast around the call.
            layers: decoder-layer indices to keep; all MoE layers by default.
            score: routing distribution; by default the family's.
            pooling: `sequence`, `completion` or `prompt`. Spans belong to a pair of languages and not to an anchor
                alone, so they need a live anchor.
            batch_size: anchors in one forward pass.
            progress: show a progress bar.

        Raises `ModelError` for a model without the layers, `DataError` when no row has an anchor, rows of one id have
        different anchors, or rows of text repeat an id within a language.
        """
        check_base_model(model)
        check_tokenizer(tokenizer)
        check_args(args)
        check_batch_size(batch_size)
        if check_pooling(pooling) == "spans":
            raise DataError(
                "aligned spans differ between the targets of one anchor: use a live anchor with pooling 'spans'"
            )
        tap = RoutingTap(model, layers, score=score)
        texts = anchor_texts(tokenised_rows(dataset, tokenizer, args), pooling=pooling)
        pooled = torch.empty((len(texts), len(tap.layers), tap.layers[0].num_experts))
        title = "Routing prior" if progress else None
        with nullcontext() if args is None else mixed_precision(args.mixed_precision, model.device):
            for row, value in pool_texts(
                tap, texts, batch_size=batch_size, pad_token_id=pad_token_id(tokenizer), progress=title
            ):
                pooled[row] = value[0]
            fingerprint = model_fingerprint(model) | tokenizer_fingerprint(tokenizer)
        record = {
            "ids": [text.name for text in texts],
            "layers": [layer.index for layer in tap.layers],
            "pooling": pooling,
            "score": score or tap.layers[0].score,
            "texts": [_hash_anchor(text) for text in texts],
            "fingerprint": fingerprint,
        }
        return cls(record, tensor=pooled)

    def __repr__(self) -> str:
        where = f", folder={str(self._folder)!r}" if self._folder else ""
        return (
            f"RoutingPrior({len(self)} anchors, layers={self.layers}, pooling={self.pooling!r}, score={self.score!r}, "
            f"compute={self.fingerprint.get('compute')!r}{where})"
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def rows(self, ids: Sequence[str]) -> Tensor:
        """The pooled routing of `ids`, (len(ids), layers, experts), float32. Raises `PriorError` for an unknown id."""
        if isinstance(ids, str):
            raise PriorError(f"rows are asked for by a list of ids: rows([{ids!r}])")
        unknown = [name for name in ids if name not in self._row]
        if unknown:
            raise PriorError(
                f"the routing prior has no anchor {unknown[0]!r}: it was computed from other data; compute it anew"
            )
        if self._tensor is None:
            stored = self._stored()
            return torch.cat([stored[row : row + 1] for row in (self._row[name] for name in ids)])
        return self._tensor[[self._row[name] for name in ids]]

    def _stored(self) -> Any:
        if self._handle is None:
            assert self._folder is not None
            self._handle = safe_open(self._folder / TENSORS, framework="pt")
        return self._handle.get_slice("prior")

    _handle: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # A data-loading worker opens the file for itself: the handle cannot travel between processes.
        return {key: value for key, value in self.__dict__.items() if key != "_handle"}

    # -- on disk ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the prior into `folder` and return it. A killed write leaves no prior that looks whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensor = self.rows(self.ids) if self._tensor is None else self._tensor
        texts = [self._texts[name] for name in self.ids]
        record = {
            "schema": SCHEMA,
            "layers": self.layers,
            "experts": tensor.shape[-1],
            "pooling": self.pooling,
            "score": self.score,
            "fingerprint": self.fingerprint,
            "ids": self.ids,
            "texts": texts,
        }
        payload = json.dumps(record, ensure_ascii=False)
        # The tensor file carries the digest of its record, so that halves of two priors never pass for one.
        digest = hash_text(payload)
        temporary = folder / f".{TENSORS}.{os.getpid()}"
        save_file({"prior": tensor.contiguous()}, temporary, metadata={"record": digest})
        os.replace(temporary, folder / TENSORS)
        temporary = folder / f".{RECORD}.{os.getpid()}"
        temporary.write_text(payload, encoding="utf-8")
        os.replace(temporary, folder / RECORD)
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> RoutingPrior:
        """The prior in `folder`; its rows are read when asked for. Raises `PriorError` when missing or damaged."""
        folder = Path(folder)
        path = folder / RECORD
        if not path.is_file() or not (folder / TENSORS).is_file():
            raise PriorError(f"no routing prior in {folder}: `innerlingua routing prior RECIPE` computes it")
        try:
            payload = path.read_text(encoding="utf-8")
            record = json.loads(payload)
            with safe_open(folder / TENSORS, framework="pt") as tensors:
                digest = (tensors.metadata() or {}).get("record")
                shape = tensors.get_slice("prior").get_shape()
            expected = [len(record["ids"]), len(record["layers"]), record["experts"]]
        except (ValueError, SafetensorError, KeyError, TypeError) as error:
            raise PriorError(
                f"the routing prior in {folder} is damaged ({error}): delete the folder and compute it anew"
            ) from error
        if record.get("schema") != SCHEMA or digest != hash_text(payload) or shape != expected:
            raise PriorError(
                f"the routing prior in {folder} is damaged (its two files do not belong together): compute it anew"
            )
        return cls(record, folder=folder)

    def holds(self, name: str, token_ids: Sequence[int], segments: Sequence[int]) -> bool:
        """Whether the entry of `name` was computed from this anchor: its token ids, and the segment of each."""
        return self._texts.get(name) == _hash_anchor(PooledText(name, token_ids, segments))

    # -- staleness ----------------------------------------------------------------------------------------------------

    def check_fresh(
        self,
        dataset: Dataset | Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        model: PreTrainedModel | None = None,
        layers: Sequence[int] | None = None,
        score: str | None = None,
        pooling: str = "sequence",
        dtype: str | None = None,
    ) -> None:
        """Raise `PriorError` that says what differs, unless this prior belongs to what is given.

        `model` is compared when given; a resumed run, whose weights have moved, compares the rest and its own record.
        `dtype` is the numeric type of the forward passes to come (`float32`, `bfloat16`); compared when given.
        """
        check_tokenizer(tokenizer)
        current: dict[str, Any] = dict(tokenizer_fingerprint(tokenizer))
        if model is not None:
            current |= model_fingerprint(model)
            current.pop("compute")
        if dtype is not None:
            current["compute"] = dtype
        stored = {key: value for key, value in self.fingerprint.items() if key in current}
        stored |= {"pooling": self.pooling}
        current |= {"pooling": pooling}
        if score is not None:
            stored, current = stored | {"score": self.score}, current | {"score": score}
        found = differences(stored, current)
        if layers is not None and not set(layer_indices(layers)) <= set(self.layers):
            found.append(f"layers (stored {self.layers}, now {layer_indices(layers)})")
        texts = anchor_texts(tokenised_rows(dataset, tokenizer), pooling=pooling)
        absent = [text.name for text in texts if text.name not in self._row]
        changed = [
            text.name for text in texts if text.name in self._row and self._texts[text.name] != _hash_anchor(text)
        ]
        if absent:
            found.append(f"anchors ({len(absent)} of {len(texts)} are not in it, the first is {absent[0]!r})")
        if changed:
            found.append(f"anchor texts ({len(changed)} of {len(texts)} have changed, the first is {changed[0]!r})")
        if found:
            where = f" in {self._folder}" if self._folder else ""
            raise PriorError(
                f"the routing prior{where} is stale; what differs: {'; '.join(found)}. "
                "Delete it and compute it anew, or use the model and data that it was made from"
            )


def anchor_texts(dataset: Dataset, *, pooling: str = "sequence") -> list[PooledText]:
    """The distinct anchors of the tokenised rows of `dataset`, in the order of their ids.

    Raises `DataError` when no row has an anchor, a row has no id, or rows of one id have different anchors.
    """
    if "anchor_input_ids" not in dataset.column_names or "id" not in dataset.column_names:
        raise DataError("the dataset has no anchors: its rows need `id` and the anchor's side (columns with `anchor_`)")
    columns = ["id", "anchor_input_ids", *(["anchor_labels"] if "anchor_labels" in dataset.column_names else [])]
    found: dict[str, PooledText] = {}
    for place, row in enumerate(dataset.select_columns(columns)):
        if row["anchor_input_ids"] is None:
            continue
        _check_id(row["id"], place)
        earlier = found.get(row["id"])
        if earlier is None:
            segments = segment_ids(row, pooling, prefix="anchor_")
            found[row["id"]] = PooledText(row["id"], row["anchor_input_ids"], segments)
        elif list(earlier.token_ids) != list(row["anchor_input_ids"]):
            raise DataError(
                f"rows with the id {row['id']!r} have different anchors: one id is one meaning with one anchor"
            )
    if not found:
        raise DataError("no row of the dataset has an anchor, so there is nothing to align with")
    return [found[name] for name in sorted(found, key=str)]


def _check_id(name: Any, place: int) -> None:
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise DataError(f"row {place} has the id {name!r}: an id is text, and names the meaning of the row")


def _hash_anchor(text: PooledText) -> str:
    """The digest of what is pooled: the tokens, and which of them belong to the segment."""
    return hash_tokens([*text.token_ids, *text.segments])
