"""The pass that computes a prior: batches of like length, shared out among processes, taken up again after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from innerlingua.anatomy import RoutingTap, compute_type, is_sharded
from innerlingua.errors import PriorError
from innerlingua.routing.fingerprint import hash_text
from innerlingua.routing.pooling import PooledText, batches_by_length, padding_share, pool_batches
from innerlingua.routing.prior_files import write_prior
from innerlingua.routing.prior_partial import PartialRows
from innerlingua.routing.processes import Processes

__all__ = ["PARTIAL", "prior_pass", "share_of"]

PARTIAL = "partial"
Say = Callable[[str], None]


def prior_pass(
    tap: RoutingTap,
    texts: Sequence[PooledText],
    payload: str,
    *,
    batch_size: int,
    pad_token_id: int,
    processes: Processes,
    present: bool,
    folder: Path | None,
    title: str | None,
    say: Say,
) -> Tensor | None:
    """Pool the routing of `texts`, (texts, layers, experts) float32; with a `folder` it is written there instead.

    `payload` is the text of the record that the rows belong to. The batches are dealt out in turn to those of
    `processes` that have the model's weights (`present`), so that each gets long and short ones. Which texts share a
    batch depends neither on the number of processes nor on what an earlier pass has done, so the numbers do not
    either. Raises `PriorError` at the first batch whose routing is not finite.
    """
    lengths = [len(text.token_ids) for text in texts]
    batches = batches_by_length(lengths, batch_size)
    kept = None if folder is None else PartialRows(folder / PARTIAL, hash_text(payload))
    found = {} if kept is None else processes.on_main(lambda: _take_up(kept, len(texts), say))
    done = {place for places in found.values() for place in places}
    left = [rest for batch in batches if (rest := [place for place in batch if place not in done])]
    if processes.is_main and left:
        say(
            f"routing prior: {sum(lengths[place] for batch in left for place in batch):,} tokens of anchors in "
            f"{len(left):,} {'batch' if len(left) == 1 else 'batches'}, {padding_share(lengths, left):.1%} padding"
        )
    here = [rank for rank, has_weights in enumerate(processes.gather(present)) if has_weights]
    sharded = is_sharded(tap.root)
    mine = share_of(left, here.index(processes.rank), len(here), even=sharded) if present else []
    rows = torch.zeros((len(texts), len(tap.layers), tap.layers[0].num_experts)) if kept is None else None

    def work() -> None:
        for batch, pooled in pool_batches(tap, texts, mine, pad_token_id=pad_token_id, progress=title):
            _refuse_not_finite(tap, texts, batch, pooled)
            if kept is not None:
                kept.add(batch, pooled)
            elif rows is not None:
                rows[list(batch)] = pooled
        if kept is not None:
            kept.flush()

    if sharded:
        work()  # the others wait inside the pass for a process that fails, and the launcher ends them
    else:
        processes.together(work)
    if kept is None or folder is None:
        if rows is not None:
            processes.add_up(rows, next(tap.root.parameters()).device)
        return rows
    names = [*found, *(name for written in processes.gather(kept.written) for name in written)]

    def store() -> None:
        for left_by_a_kill in folder.glob(".prior.*"):
            left_by_a_kill.unlink()
        write_prior(folder, payload, kept.read(names))
        kept.remove()

    processes.on_main(store)
    return None


def _refuse_not_finite(tap: RoutingTap, texts: Sequence[PooledText], batch: Sequence[int], pooled: Tensor) -> None:
    """Raise `PriorError` when a value of `pooled` (texts of `batch`, layers, experts) is NaN or infinite."""
    broken = ~torch.isfinite(pooled).all(dim=-1)
    if not bool(broken.any()):
        return
    row, layer = broken.nonzero()[0].tolist()
    router = tap.layers[layer]
    # The widest number of float16 is 65504.
    narrow = compute_type(tap.models[0]) == "float16"
    raise PriorError(
        f"the router {router.name} ({type(router.router).__name__}) gives values that are not finite for the anchor "
        f"{texts[batch[row]].name!r}: a weight of it or below it is not finite, so the checkpoint is damaged"
        f"{', or a value went beyond the range of float16: take bfloat16 or float32' if narrow else ''}. No routing "
        "prior is made of it"
    )


def share_of(batches: Sequence[list[int]], rank: int, size: int, *, even: bool = False) -> list[list[int]]:
    """Every `size`-th of `batches`, from number `rank` on; with `even` as many as the others have, the last empty."""
    mine = list(batches[rank::size])
    return mine + [[]] * (-(-len(batches) // size) - len(mine)) if even else mine


def _take_up(kept: PartialRows, total: int, say: Say) -> dict[str, list[int]]:
    found, foreign, broken = kept.take_up()
    if foreign:
        say(
            f"routing prior: what an earlier pass left in {kept.folder} was computed from another model, other anchors "
            "or with other settings, and is discarded"
        )
    if broken:
        say(f"routing prior: {broken} of the files in {kept.folder} are not whole; their anchors are computed again")
    if found:
        done = len({place for places in found.values() for place in places})
        say(f"routing prior: an earlier pass was cut short; {done:,} of {total:,} anchors are done")
    return found
