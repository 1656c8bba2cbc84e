"""A pass for the routing alone ends with the last router asked for, and gives what a whole one gives."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from innerlingua.anatomy import RoutingTap, capture_routing, find_moe_layers, lora_targets
from innerlingua.errors import ModelError
from tiny import FAMILIES, LAYERS, batch_of, tiny_model

LENGTHS = [5, 9, 1, 7]


def ran(model: torch.nn.Module) -> tuple[list[int], list[int]]:
    """Two lists that fill with the decoder layers that a pass begins, and with those that it ends."""
    begun: list[int] = []
    ended: list[int] = []
    for layer in find_moe_layers(model):
        layer.decoder_layer.register_forward_pre_hook(lambda *_, index=layer.index: begun.append(index))
        layer.decoder_layer.register_forward_hook(lambda *_, index=layer.index: ended.append(index))
    return begun, ended


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapters", [False, True], ids=["bare", "adapters"])
def test_it_stops_there_and_the_routing_is_that_of_a_whole_pass(family: str, adapters: bool) -> None:
    model, batch, layers = tiny_model(family).eval(), batch_of(LENGTHS), [1, 2]
    if adapters:
        modules, parameters = lora_targets(model, ["attention", "experts"])
        model = get_peft_model(model, LoraConfig(target_modules=modules, target_parameters=parameters))
    with torch.no_grad(), capture_routing(model, layers) as whole:
        model(**batch)
    tap, (begun, ended) = RoutingTap(model, layers), ran(model)
    with torch.no_grad(), tap.capture() as routing:
        tap.run(batch["input_ids"], batch["attention_mask"])
    assert torch.equal(routing.pooled, whole.pooled)
    assert routing.passes == 1
    assert max(begun) == 2
    assert max(ended, default=-1) == max((index for index in begun if index < 2), default=-1)  # its experts do not run
    # Nothing stays behind: the next pass is whole.
    ended.clear()
    with torch.no_grad(), capture_routing(model) as after:
        model(**batch)
    assert max(ended) == LAYERS - 1
    assert torch.equal(after.pooled[:, [after.layers.index(layer) for layer in layers]], whole.pooled)


def test_the_order_of_the_layers_does_not_matter() -> None:
    model, batch = tiny_model().eval(), batch_of(LENGTHS)
    tap, (begun, ended) = RoutingTap(model, [2, 0]), ran(model)
    with torch.no_grad(), tap.capture() as routing:
        tap.run(batch["input_ids"], batch["attention_mask"])
    assert (begun, ended) == ([0, 1, 2], [0, 1])
    assert routing.pooled.shape[1] == 2


def test_also_in_the_last_layer() -> None:
    model, batch = tiny_model().eval(), batch_of(LENGTHS)
    tap, (begun, ended) = RoutingTap(model, [LAYERS - 1]), ran(model)
    with torch.no_grad(), tap.capture() as routing:
        tap.run(batch["input_ids"], batch["attention_mask"])
    assert (begun, ended) == (list(range(LAYERS)), list(range(LAYERS - 1)))
    assert routing.passes == 1


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_a_gradient_flows_through_it(checkpointing: bool) -> None:
    model, batch = tiny_model(), batch_of(LENGTHS)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    tap, (_, ended) = RoutingTap(model, [1]), ran(model)
    with tap.capture() as routing:
        tap.run(batch["input_ids"], batch["attention_mask"])
    assert max(ended) == 1  # whole: one that was left in its middle could not be recomputed
    routing.pooled[:, 0, 0].sum().backward()
    reached = {layer.index for layer in find_moe_layers(model) if layer.router.weight.grad is not None}
    assert reached == {0, 1}


def test_another_capture_around_it_that_wants_more_sees_no_pass() -> None:
    model, batch = tiny_model().eval(), batch_of(LENGTHS)
    tap = RoutingTap(model, [1])
    with torch.no_grad(), capture_routing(model) as outer, tap.capture() as routing:
        tap.run(batch["input_ids"], batch["attention_mask"])
    assert (outer.passes, routing.passes) == (0, 1)


def test_an_error_of_the_model_is_not_swallowed() -> None:
    model, batch = tiny_model().eval(), batch_of(LENGTHS)
    tap = RoutingTap(model, [1])

    def fail(*_: object) -> None:
        raise ValueError("broken")

    find_moe_layers(model)[0].decoder_layer.register_forward_pre_hook(fail)
    with torch.no_grad(), tap.capture() as routing, pytest.raises(ValueError, match="broken"):
        tap.run(batch["input_ids"], batch["attention_mask"])
    with pytest.raises(ModelError, match="no complete forward pass"):
        _ = routing.pooled
