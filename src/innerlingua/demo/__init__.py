"""The embedded default: a small multilingual world, a tiny MoE that learns it, and what routing alignment does to it.

`run_demo` is behind `innerlingua demo`. All text is written for this project; nothing is downloaded. It is loaded when
first used, so that the world can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerlingua.demo.run import run_demo as run_demo

__all__ = ["run_demo"]


def __getattr__(name: str) -> Any:
    if name != "run_demo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from innerlingua.demo.run import run_demo

    return run_demo
