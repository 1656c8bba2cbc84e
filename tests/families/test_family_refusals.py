"""What is refused before the first step, and what happens to a family that has no row."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from families.catalogue import Entry, catalogue
from families.configs import tiny_model
from innerlingua.anatomy import RoutingTap, check_routing, count_parts, find_moe_layers, fixed_routers, set_trainable
from innerlingua.anatomy.families import FAMILIES, Family
from innerlingua.errors import ModelError

ENTRIES = {str(entry): entry for entry in catalogue().entries}
GROUPED = "deepseek_v3"
HASHED = "deepseek_v4"
PLAIN = "qwen3_moe"


def entry_of(name: str) -> Entry:
    return ENTRIES[name]


def test_a_family_that_follows_the_common_contract_needs_no_row() -> None:
    assert PLAIN not in FAMILIES
    check_routing(RoutingTap(tiny_model(entry_of(PLAIN))), gradient=True)


@pytest.mark.parametrize("name", [name for name in ("deepseek_v3", "flint", "llama4", "kolibri1") if name in ENTRIES])
def test_a_deviating_family_without_its_row_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(entry_of(name))
    monkeypatch.delitem(FAMILIES, name)
    with pytest.raises(ModelError, match=r"needs a row of its own|returns"):
        check_routing(RoutingTap(model))


@pytest.mark.parametrize(
    "wrong",
    [Family(score="softmax", bias="e_score_correction_bias", groups="two_best"), Family(score="sigmoid_normalised")],
    ids=["score", "no bias, no groups"],
)
def test_a_wrong_row_is_refused(wrong: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(entry_of(GROUPED))
    monkeypatch.setitem(FAMILIES, GROUPED, wrong)
    with pytest.raises(ModelError, match="needs a row of its own"):
        check_routing(RoutingTap(model))


def test_a_quantised_model_that_cannot_be_trained() -> None:
    model = tiny_model(entry_of(PLAIN))
    model.hf_quantizer = SimpleNamespace(is_trainable=False, quantization_config=SimpleNamespace())
    with pytest.raises(ModelError, match="quantised in a way that cannot be trained"):
        check_routing(RoutingTap(model), gradient=True)
    check_routing(RoutingTap(model))


def test_an_expert_parallel_model() -> None:
    model = tiny_model(entry_of(PLAIN))
    model.config.distributed_config = SimpleNamespace(ep_size=2)
    with pytest.raises(ModelError, match="expert parallelism"):
        check_routing(RoutingTap(model), gradient=True)


def test_a_quantised_router() -> None:
    model = tiny_model(entry_of(PLAIN))
    router = find_moe_layers(model)[0].router
    router.weight = torch.nn.Parameter(torch.zeros(8, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="is quantised"):
        check_routing(RoutingTap(model), gradient=True)


def test_routers_that_follow_a_table_are_listed_and_not_aligned() -> None:
    model = tiny_model(entry_of(HASHED))
    aligned = {layer.index for layer in find_moe_layers(model)}
    fixed = fixed_routers(model)
    assert fixed
    assert {int(path.split(".layers.")[1].split(".")[0]) for path in fixed}.isdisjoint(aligned)
    assert set(fixed.values()) == {"DeepseekV4HashRouter"}
    assert fixed_routers(tiny_model(entry_of(PLAIN))) == {}


@pytest.mark.parametrize("name", [GROUPED, HASHED, PLAIN])
def test_every_parameter_is_counted_once(name: str) -> None:
    model = tiny_model(entry_of(name))
    set_trainable(model, ["router", "experts"])
    counts = {count.part: count for count in count_parts(model)}
    assert sum(count.parameters for count in counts.values()) == sum(p.numel() for p in model.parameters())
    assert {part for part, count in counts.items() if count.trainable} == {"router", "experts"}
    assert counts["experts"].trainable == counts["experts"].parameters
    assert counts["router"].dtypes == ("float32",)
