from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from innerlingua.anatomy import RoutingTap, check_routing, find_moe_layers, lora_targets, set_trainable
from innerlingua.errors import ModelError
from tiny import FAMILIES, tiny_model

Change = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def change_router(model: PreTrainedModel, layer: int, change: Change) -> None:
    """Make the router of `layer` one of a subclass that returns something else than its parent."""
    router = find_moe_layers(model)[layer].router
    original = type(router)

    def forward(self: nn.Module, *args: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return change(*original.forward(self, *args))

    router.__class__ = type(f"Changed{original.__name__}", (original,), {"forward": forward})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes(family: str, dtype: torch.dtype) -> None:
    check_routing(RoutingTap(tiny_model(family).to(dtype)), gradient=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_passes_with_lora(family: str) -> None:
    model = tiny_model(family)
    modules, parameters = lora_targets(model, ["router", "experts"])
    config = LoraConfig(r=2, target_modules=modules, target_parameters=parameters, lora_dropout=0.0)
    check_routing(RoutingTap(get_peft_model(model, config)), gradient=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_modes_and_gradients_are_left_as_they_were(family: str) -> None:
    model = tiny_model(family).train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    check_routing(RoutingTap(model), gradient=True)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(
        not module._forward_hooks for layer in find_moe_layers(model) for module in (layer.router, layer.experts)
    )


def test_probabilities_in_place_of_logits() -> None:
    model = tiny_model()
    change_router(model, 2, lambda logits, weights, chosen: (logits.softmax(dim=-1), weights, chosen))
    with pytest.raises(ModelError, match=r"layers\.2\.mlp\.gate .* returns probabilities where logits are expected"):
        check_routing(RoutingTap(model))
    check_routing(RoutingTap(model, [0, 1, 3]))


def test_a_weight_that_is_no_number() -> None:
    model = tiny_model()
    model.model.layers[1].mlp.gate.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.gate .* gives NaN: a weight of it or below it"):
        check_routing(RoutingTap(model))


def test_logits_that_sum_to_one_but_have_a_negative_are_logits() -> None:
    model = tiny_model()

    def shift(logits: Tensor, weights: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return logits + (1 - logits.sum(dim=-1, keepdim=True)) / logits.shape[-1], weights, chosen

    change_router(model, 0, shift)
    check_routing(RoutingTap(model))


def test_logits_that_do_not_lead_to_the_choice() -> None:
    model = tiny_model()
    change_router(model, 1, lambda logits, weights, chosen: (-logits, weights, chosen))
    with pytest.raises(
        ModelError, match=r"layers\.1\.mlp\.gate .* does not choose the experts with the largest logits"
    ):
        check_routing(RoutingTap(model))


def test_a_block_that_uses_other_experts_than_its_router_chose() -> None:
    model = tiny_model()
    experts = find_moe_layers(model)[3].experts

    def reroute(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(value if value.is_floating_point() else (value + 1) % 8 for value in args)

    experts.register_forward_pre_hook(reroute)
    with pytest.raises(ModelError, match=r"layers\.3\.mlp\.gate .* chose other experts than its block used"):
        check_routing(RoutingTap(model))


def test_weights_that_another_score_function_gives() -> None:
    model = tiny_model("deepseek_v3")
    tap = RoutingTap(model)
    tap.layers = [replace(layer, score="softmax") for layer in tap.layers]
    with pytest.raises(ModelError, match="weighs its experts by something else than softmax"):
        check_routing(tap)


def test_sigmoid_scores_where_the_router_takes_a_softmax() -> None:
    tap = RoutingTap(tiny_model())
    tap.layers = [replace(layer, score="sigmoid_normalised") for layer in tap.layers]
    with pytest.raises(ModelError, match="weighs its experts by something else than sigmoid_normalised"):
        check_routing(tap)


def test_a_router_without_indices() -> None:
    model = tiny_model()
    change_router(model, 0, lambda logits, weights, chosen: (logits, weights, chosen.float()))
    model.model.layers[0].mlp.experts.register_forward_pre_hook(
        lambda module, args: tuple(a.long() if position == 1 else a for position, a in enumerate(args))
    )
    with pytest.raises(ModelError, match="returns no indices"):
        check_routing(RoutingTap(model))


class TestAbsentWeights:
    def test_on_the_meta_device(self) -> None:
        """As in every process but the first of a machine, under FSDP's memory-saving way of loading."""
        model = tiny_model().to("meta")
        with pytest.raises(ModelError, match=r"embed_tokens.weight is on the meta device, .*cpu_ram_efficient_loading"):
            check_routing(RoutingTap(model), gradient=True)

    def test_partitioned_by_deepspeed(self) -> None:
        model = tiny_model()
        weight = model.model.layers[1].mlp.gate.weight
        weight.data = torch.empty(0)
        weight.ds_id = 7  # DeepSpeed's mark: it cannot run here
        with pytest.raises(ModelError, match=r"partitioned by DeepSpeed ZeRO-3 \(layers.1.mlp.gate.weight is empty"):
            check_routing(RoutingTap(model))


class TestGradient:
    def test_a_frozen_model(self) -> None:
        model = tiny_model().requires_grad_(False)
        with pytest.raises(ModelError, match="every parameter of the model is frozen"):
            check_routing(RoutingTap(model), gradient=True)
        check_routing(RoutingTap(model))

    def test_only_what_lies_above_is_trainable(self) -> None:
        model = tiny_model().requires_grad_(False)
        model.model.layers[3].requires_grad_(True)
        with pytest.raises(ModelError, match=r"decoder layers \[1, 2\]: nothing at or below"):
            check_routing(RoutingTap(model, [1, 2]), gradient=True)

    def test_one_aligned_layer_that_is_out_of_reach_is_named(self) -> None:
        model = tiny_model().requires_grad_(False)
        model.model.layers[2].mlp.gate.requires_grad_(True)
        with pytest.raises(ModelError, match=r"decoder layers \[1\]:"):
            check_routing(RoutingTap(model, [1, 2, 3]), gradient=True)
        check_routing(RoutingTap(model, [2, 3]), gradient=True)

    def test_the_experts_of_the_last_aligned_layer_do_not_reach_it(self) -> None:
        model = tiny_model().requires_grad_(False)
        model.model.layers[2].mlp.experts.requires_grad_(True)
        with pytest.raises(ModelError, match=r"decoder layers \[2\]:"):
            check_routing(RoutingTap(model, [2]), gradient=True)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_trainable_routers_alone_are_enough(self, family: str) -> None:
        model = tiny_model(family)
        set_trainable(model, ["router"])
        check_routing(RoutingTap(model), gradient=True)
