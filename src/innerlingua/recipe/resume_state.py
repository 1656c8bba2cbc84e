"""The checkpoint that a resume goes on from, and what it reads there beside the weights. Imports torch.

Optimiser, schedule and random state are pickles, and the Trainer reads them with torch's restricted loader
(`weights_only=True`), which raises in the middle of the work when one asks for more than tensors and plain values. Here
their lists of wanted objects are read before anything is loaded, and nothing is executed for that. What lies outside of
the run's folder is not read.

Left out: the shards of DeepSpeed and the `.metadata` of sharded FSDP, which these libraries read with plain pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint
from transformers.trainer_pt_utils import safe_globals

from innerlingua.errors import RecipeError
from innerlingua.recipe.checkpoints import last_checkpoint
from innerlingua.routing.processes import all_processes

__all__ = ["checkpoint_to_resume", "refuse_foreign"]

_UNREAD = frozenset({"training_args.bin"})


def checkpoint_to_resume(folder: Path, say: Callable[[str], None]) -> Path:
    """The latest whole checkpoint of the run in `folder`, which holds no code; every process gets the same.

    The main process alone reads the files: that of the optimiser is twice as large as the weights. Raises what
    `last_checkpoint` and `refuse_foreign` raise, in all of them.
    """

    def chosen() -> Path:
        checkpoint = last_checkpoint(folder, say)
        refuse_foreign(folder, checkpoint)
        return checkpoint

    return all_processes().on_main(chosen)


def refuse_foreign(folder: Path, checkpoint: Path) -> None:
    """Raise `RecipeError` when `checkpoint` of the run in `folder` holds code, or leads out of that folder.

    The checkpoint is one that `last_checkpoint` took, so its files are whole.
    """
    home = folder.resolve()
    remedy = f"Restore {checkpoint.name}, or remove it, and the run goes on from the one before"
    for path in (checkpoint, *sorted(checkpoint.rglob("*"))):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise RecipeError(f"--resume: {path} is a link that leads out of the run's folder. {remedy}")
    _refuse_named_elsewhere(checkpoint, home, remedy)
    for path in sorted(checkpoint.iterdir()):
        if path.suffix not in (".pt", ".pth", ".bin") or path.name in _UNREAD:
            continue
        try:
            # The random state holds numpy's, which the Trainer allows for this file alone.
            with safe_globals() if path.suffix == ".pth" else nullcontext():  # type: ignore[no-untyped-call]
                wanted = get_unsafe_globals_in_checkpoint(path)
        except (ValueError, RuntimeError) as error:  # an archive of something else
            raise RecipeError(f"--resume: {path} is no state that torch.save wrote ({error}). {remedy}") from error
        if wanted:
            raise RecipeError(
                f"--resume: {path} would run code when it is read (it asks for {wanted[0]}), so no training of "
                f"innerlingua wrote it. {remedy}"
            )


def _refuse_named_elsewhere(checkpoint: Path, home: Path, remedy: str) -> None:
    best = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")).get("best_model_checkpoint")
    if isinstance(best, str) and Path(best).is_dir() and not Path(best).resolve().is_relative_to(home):
        raise RecipeError(
            f"--resume: trainer_state.json of {checkpoint} names the best checkpoint {best}, which is not in {home}. "
            f"{remedy}"
        )
    latest = checkpoint / "latest"
    named = latest.read_text(encoding="utf-8", errors="replace").strip() if latest.is_file() else "."
    if named != "." and Path(named).name != named:
        raise RecipeError(f"--resume: {latest} names {named!r}, which is no folder beside it. {remedy}")
