"""What the command line prints: progress on standard output by one process of a group, errors on standard error."""

from __future__ import annotations

import os
import re
import warnings

from rich.console import Console
from rich.markup import escape

__all__ = ["fail", "hide_renames", "is_main_process", "plain", "say"]

# Control codes but for tab and line feed, overrides of the direction of writing, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def hide_renames() -> None:
    """Keep off the notice that `gradient_checkpointing` gets another name in transformers 6.

    TRL sets the field whether a recipe does or not, and the new name is unknown to older transformers that we run with.
    """
    warnings.filterwarnings(
        "ignore", message=r"`(is_)?gradient_checkpointing(_kwargs)?` is deprecated", category=FutureWarning
    )


def is_main_process() -> bool:
    """Whether this process speaks for the group. `accelerate launch` and `torchrun` number the processes in `RANK`."""
    return int(os.environ.get("RANK", "0")) == 0


def plain(text: str) -> str:
    """`text` as a terminal may have it: what is no character, and codes that move its cursor or set its title, are
    written out. Words of files, models and servers are in most messages."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def say(text: str) -> None:
    """Print `text` as it is (paths are not wrapped, brackets are no markup), once per group of processes."""
    if is_main_process():
        Console(highlight=False, soft_wrap=True, emoji=False).print(escape(plain(text)))


def fail(text: str) -> None:
    """Print one error message on standard error; a process of a group other than the first says which it is."""
    rank = "" if is_main_process() else escape(f"[rank {os.environ['RANK']}] ")
    Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(
        f"{rank}[bold red]error:[/] {escape(plain(text))}"
    )
