"""The routing prior: where the anchors are routed by the model as it was before training.

For each anchor text the prior keeps its pooled routing in the aligned layers, P (layers, experts), float32, keyed by
the `id` of the pair, so that all target languages share one entry. It is computed once, by a pass without
language-model head and gradient in evaluation mode, and stored as `prior.safetensors` (one tensor, rows in the order
of the ids) beside `prior.json` (ids, layers, fingerprint). Rows are read when they are asked for. Given a folder, the
pass keeps its finished rows there and goes on with them after a kill; several processes share it.

Source: stage 3 of SARA (Dong et al., Findings of ACL 2026). That the prior is never refreshed is the paper's separate
stage.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from innerlingua.anatomy import RoutingTap, layer_indices, mixed_precision
from innerlingua.errors import DataError, PriorError
from innerlingua.routing.fingerprint import (
    differences,
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
from innerlingua.routing.pooling import PooledText, check_pooling, pad_token_id, segment_ids
from innerlingua.routing.prior_files import (
    RECORD,
    TENSORS,
    StoredRows,
    no_distributions,
    read_record,
    record_text,
    write_prior,
)
from innerlingua.routing.prior_pass import PARTIAL, prior_pass
from innerlingua.routing.processes import ALONE, Processes, all_processes

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

__all__ = ["RECORD", "TENSORS", "RoutingPrior", "anchor_texts"]

# Rows that are copied from an opened prior at a time.
_COPIED = 1024


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
        folder: str | Path | None = None,
        split: bool = False,
        progress: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> RoutingPrior:
        """The prior of the anchors in `dataset` under `model`, computed on the device where the model is.

        ```python
        prior = RoutingPrior.compute(model, pairs, tokenizer, args=args, folder="prior")  # goes on after a kill
        ```

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
            batch_size: how many of the longest anchors go through the model at once. Of shorter ones as many go
                together as have no more tokens than these, padding included.
            folder: store the prior here, and return it opened. Finished rows are kept in `folder/partial` until all are
                there, so that a call that was killed goes on where it was; the whole is never in memory. When the
                same prior is there it is opened, another one is replaced.
            split: every process of the group makes this call with the same model and rows, and each computes a share;
                all get the whole. A `folder` must then be one that all see. Without it a process computes all.
            progress: show a progress bar.
            say: is told in sentences what is taken up or discarded in `folder`, and how much of the batches is padding;
                by default they are printed where progress is shown.

        Raises `ModelError` for a model without the layers, `DataError` when no row has an anchor, rows of one id have
        different anchors, or rows of text repeat an id within a language, and `PriorError` when processes that share
        the pass are given different models or rows.
        """
        processes = all_processes() if split else ALONE
        folder = None if folder is None else Path(folder)
        # A launcher may load the weights in the first process alone.
        present = processes.is_main or not any(parameter.is_meta for parameter in model.parameters())

        def prepare() -> tuple[RoutingTap, list[PooledText], str | None]:
            if present:
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
            with in_its_type():
                return tap, texts, _payload(tap, texts, tokenizer, pooling=pooling, score=score) if present else None

        def in_its_type() -> AbstractContextManager[Any]:
            return nullcontext() if args is None else mixed_precision(args.mixed_precision, model.device)

        tap, texts, own = processes.together(prepare)
        payload = processes.on_main(lambda: own)
        assert payload is not None, "the main process is never without weights"
        processes.together(lambda: _refuse_another(own, payload, processes))
        pooled = None
        if folder is None or not processes.on_main(lambda: _is_there(folder, payload)):
            with in_its_type():
                pooled = prior_pass(
                    tap,
                    texts,
                    payload,
                    batch_size=batch_size,
                    pad_token_id=pad_token_id(tokenizer),
                    processes=processes,
                    present=present,
                    folder=folder,
                    title="Routing prior" if progress and processes.is_main else None,
                    say=say or (print if progress else _silent),
                )
        return cls(json.loads(payload), tensor=pooled) if folder is None else cls.open(folder)

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
        """The pooled routing of `ids`, (len(ids), layers, experts), float32.

        Raises `PriorError` for an unknown id, and for a stored row that is no distribution over the experts.
        """
        if isinstance(ids, str):
            raise PriorError(f"rows are asked for by a list of ids: rows([{ids!r}])")
        unknown = [name for name in ids if name not in self._row]
        if unknown:
            raise PriorError(
                f"the routing prior has no anchor {unknown[0]!r}: it was computed from other data; compute it anew"
            )
        if self._tensor is not None:
            return self._tensor[[self._row[name] for name in ids]]
        rows = self._stored().read([self._row[name] for name in ids])
        bad = no_distributions(rows)
        if bool(bad.any()):
            raise PriorError(
                f"the routing prior in {self._folder} is damaged: what it holds for the anchor "
                f"{ids[int(bad.long().argmax())]!r} is no distribution over experts ({TENSORS}). Put the file back "
                "that was computed, or delete the folder and compute it anew from the untrained model (`innerlingua "
                "routing prior RECIPE --overwrite` does both)"
            )
        return rows

    def check_rows(self) -> None:
        """Read every row once. Raises `PriorError` as `rows` does; opening alone looks at no number."""
        for _ in self._pieces():
            pass

    def _stored(self) -> StoredRows:
        if self._handle is None:
            assert self._folder is not None
            self._handle = StoredRows(self._folder)
        return self._handle

    _handle: StoredRows | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A data-loading worker opens the file for itself: the handle cannot travel between processes.
        return {key: value for key, value in self.__dict__.items() if key != "_handle"}

    # -- on disk ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the prior into `folder` and return it. A killed write leaves no prior that looks whole."""
        folder = Path(folder)
        payload = record_text(
            ids=self.ids,
            texts=[self._texts[name] for name in self.ids],
            layers=self.layers,
            experts=self.rows(self.ids[:1]).shape[-1],
            pooling=self.pooling,
            score=self.score,
            fingerprint=self.fingerprint,
        )
        write_prior(folder, payload, self._pieces())
        return folder

    def _pieces(self) -> Iterator[tuple[range, Tensor]]:
        for start in range(0, len(self), _COPIED):
            ids = self.ids[start : start + _COPIED]
            yield range(start, start + len(ids)), self.rows(ids)

    @classmethod
    def open(cls, folder: str | Path) -> RoutingPrior:
        """The prior in `folder`; its rows are read when asked for. Raises `PriorError` when missing or damaged."""
        folder = Path(folder)
        return cls(read_record(folder), folder=folder)

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


def _payload(
    tap: RoutingTap, texts: Sequence[PooledText], tokenizer: PreTrainedTokenizerBase, *, pooling: str, score: str | None
) -> str:
    return record_text(
        ids=[text.name for text in texts],
        texts=[_hash_anchor(text) for text in texts],
        layers=[layer.index for layer in tap.layers],
        experts=tap.layers[0].num_experts,
        pooling=pooling,
        score=score or tap.layers[0].score,
        fingerprint=model_fingerprint(tap.models[0]) | tokenizer_fingerprint(tokenizer),
    )


def _refuse_another(own: str | None, payload: str, processes: Processes) -> None:
    if own is not None and own != payload:
        raise PriorError(
            f"process {processes.rank} was given another model, other anchors or other settings than the first: with "
            "split=True every process makes the same call"
        )


def _is_there(folder: Path, payload: str) -> bool:
    """Whether `folder` holds the prior of this record; what is left of its pass is removed then."""
    try:
        read_record(folder)
    except PriorError:
        return False
    same = (folder / RECORD).read_text(encoding="utf-8") == payload
    if same and (folder / PARTIAL).exists():
        shutil.rmtree(folder / PARTIAL)
    return same


def _silent(text: str) -> None:
    """Says nothing."""


def _check_id(name: Any, place: int) -> None:
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise DataError(f"row {place} has the id {name!r}: an id is text, and names the meaning of the row")


def _hash_anchor(text: PooledText) -> str:
    """The digest of what is pooled: the tokens, and which of them belong to the segment."""
    return hash_tokens([*text.token_ids, *text.segments])
