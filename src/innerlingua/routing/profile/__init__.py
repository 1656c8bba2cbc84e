"""The routing profile: what a model's routing does with each language, per layer, as numbers with intervals.

`read_sides` reads parallel text, `profile_routing` sends it through a model, `write_profile` and `read_profile` are the
folder on disk, `compare_profiles` says what changed between two, and `RoutingProfileCallback` profiles a model while
it is trained. What the files hold is described in docs/profile.md.
"""

from innerlingua.routing.profile.callback import RoutingProfileCallback
from innerlingua.routing.profile.compare import compare_profiles
from innerlingua.routing.profile.measures import Suggestion, format_layers, suggest_layers
from innerlingua.routing.profile.sides import Sides, read_sides
from innerlingua.routing.profile.store import check_folder, read_profile, read_record, write_profile
from innerlingua.routing.profile.stream import RoutingProfile, profile_routing

__all__ = [
    "RoutingProfile",
    "RoutingProfileCallback",
    "Sides",
    "Suggestion",
    "check_folder",
    "compare_profiles",
    "format_layers",
    "profile_routing",
    "read_profile",
    "read_record",
    "read_sides",
    "suggest_layers",
    "write_profile",
]
