"""The routing profile: what a model's routing does with each language, per layer, as numbers with intervals.

`read_sides` reads parallel text, `profile_routing` sends it through a model, `write_profile` and `read_profile` are the
folder on disk, `compare_profiles` says what changed between two, and `RoutingProfileCallback` profiles a model while
it is trained. What the files hold is described in docs/profile.md.

The names are loaded when first used: to read a stored profile takes no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerlingua.routing.profile.callback import RoutingProfileCallback as RoutingProfileCallback
    from innerlingua.routing.profile.compare import compare_profiles as compare_profiles
    from innerlingua.routing.profile.sides import Sides as Sides
    from innerlingua.routing.profile.sides import read_sides as read_sides
    from innerlingua.routing.profile.store import read_profile as read_profile
    from innerlingua.routing.profile.store import write_profile as write_profile
    from innerlingua.routing.profile.stored import check_folder as check_folder
    from innerlingua.routing.profile.stored import read_record as read_record
    from innerlingua.routing.profile.stream import RoutingProfile as RoutingProfile
    from innerlingua.routing.profile.stream import profile_routing as profile_routing
    from innerlingua.routing.profile.suggestion import Suggestion as Suggestion
    from innerlingua.routing.profile.suggestion import format_layers as format_layers
    from innerlingua.routing.profile.suggestion import suggest_layers as suggest_layers

_FILES = {
    "RoutingProfile": "stream",
    "RoutingProfileCallback": "callback",
    "Sides": "sides",
    "Suggestion": "suggestion",
    "check_folder": "stored",
    "compare_profiles": "compare",
    "format_layers": "suggestion",
    "profile_routing": "stream",
    "read_profile": "store",
    "read_record": "stored",
    "read_sides": "sides",
    "suggest_layers": "suggestion",
    "write_profile": "store",
}

__all__ = list(_FILES)


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
