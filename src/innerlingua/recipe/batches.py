"""Rows against batches: counts that would train nothing, or let processes wait for each other for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innerlingua.data.wording import counted
from innerlingua.errors import RecipeError

if TYPE_CHECKING:
    from trl import SFTConfig

__all__ = ["NO_STEP", "refuse_no_step", "refuse_uneven"]

NO_STEP = (
    "no step was trained: num_train_epochs or max_steps leave none, or a batch is larger than the data and "
    "dataloader_drop_last drops it"
)


def refuse_no_step(args: SFTConfig, processes: int, rows: int, *, packed: bool = False) -> None:
    """Raise `RecipeError` for rows that all fall into an incomplete batch that is dropped.

    `rows` are counted before packing, or after (`packed`).
    """
    batch = args.per_device_train_batch_size * (1 if args.accelerator_config.split_batches else processes)
    if args.dataloader_drop_last and rows < batch:
        raise RecipeError(
            f"trainer.dataloader_drop_last: data.train {'is packed into' if packed else 'has'} "
            f"{counted(rows, 'row')}, too few to fill one batch of {batch}, so none would be trained on: lower "
            "trainer.per_device_train_batch_size, or leave dataloader_drop_last out"
        )


def refuse_uneven(args: SFTConfig, processes: int, rows: int, *, packed: bool = False) -> None:
    """Raise `RecipeError` for rows that give some processes one micro-batch more, and would let them wait for ever.

    `rows` are counted before packing, or after (`packed`).
    """
    given = args.accelerator_config
    if given.even_batches or given.split_batches or args.dataloader_drop_last:
        return
    batches = -(-rows // args.per_device_train_batch_size)
    if batches % processes:
        raise RecipeError(
            f"trainer.accelerator_config: even_batches: false with {counted(rows, 'packed row' if packed else 'row')} "
            f"leaves {batches} micro-batches of {args.per_device_train_batch_size} for {processes} processes: some "
            "would have one more and wait for the others for ever. Leave even_batches out, set "
            "trainer.dataloader_drop_last: true, or choose another trainer.per_device_train_batch_size"
        )
