from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from innerlingua.anatomy import (
    RoutingTap,
    capture_routing,
    check_routing,
    find_moe_layers,
    layer_indices,
    lora_targets,
    select_layers,
)
from innerlingua.anatomy.families import FAMILIES as FAMILY_ROWS
from innerlingua.anatomy.families import Family
from innerlingua.errors import ModelError
from tiny import EXPERTS, FAMILIES, LAYERS, batch_of, tiny_model


@pytest.fixture
def dense() -> PreTrainedModel:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **sizes, **heads))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_router_is_found_at_its_decoder_layer(family: str) -> None:
    model = tiny_model(family)
    layers = find_moe_layers(model)
    assert [layer.index for layer in layers] == list(range(1 if family == "deepseek_v3" else 0, LAYERS))
    for layer in layers:
        block = model.model.layers[layer.index]
        assert layer.decoder_layer is block
        assert layer.backbone is model.model
        assert layer.experts is block.mlp.experts
        assert layer.router is model.get_submodule(layer.name)
        assert layer.router in (
            dict(block.mlp.named_children()).get("gate"),
            dict(block.mlp.named_children()).get("router"),
        )
        assert (layer.num_experts, layer.top_k) == (EXPERTS, 2)


@pytest.mark.parametrize(("family", "score"), [("qwen3_moe", "softmax"), ("deepseek_v3", "sigmoid_normalised")])
def test_the_score_is_that_of_the_family(family: str, score: str) -> None:
    assert {layer.score for layer in find_moe_layers(tiny_model(family))} == {score}


def test_dense_layers_in_between_leave_the_index_a_decoder_index() -> None:
    model = tiny_model(mlp_only_layers=[0, 3], num_hidden_layers=6)
    assert [layer.index for layer in find_moe_layers(model)] == [1, 2, 4, 5]
    assert find_moe_layers(model)[2].name == "model.layers.4.mlp.gate"


def test_every_second_layer_sparse() -> None:
    assert [layer.index for layer in find_moe_layers(tiny_model(decoder_sparse_step=2))] == [1, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_backbone_alone_has_the_same_layers(family: str) -> None:
    model = tiny_model(family)
    inner = find_moe_layers(model.model)
    assert [(layer.index, layer.router) for layer in inner] == [
        (layer.index, layer.router) for layer in find_moe_layers(model)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_on_routers_and_experts_leaves_the_same_layers(family: str) -> None:
    model = tiny_model(family)
    before = find_moe_layers(model)
    modules, parameters = lora_targets(model, ["router", "experts", "attention"])
    config = LoraConfig(r=2, target_modules=modules, target_parameters=parameters, lora_dropout=0.0)
    wrapped = find_moe_layers(get_peft_model(model, config))
    assert [layer.index for layer in wrapped] == [layer.index for layer in before]
    assert [layer.name for layer in wrapped] == [f"base_model.model.{layer.name}" for layer in before]
    assert [(layer.num_experts, layer.top_k) for layer in wrapped] == [(EXPERTS, 2)] * len(before)
    # The router itself, not the wrapper that holds its adapter: its output is what the block uses.
    assert [type(layer.router) for layer in wrapped] == [type(layer.router) for layer in before]


def test_lora_on_attention_alone_leaves_the_same_layers() -> None:
    model = tiny_model()
    before = find_moe_layers(model)
    wrapped = find_moe_layers(get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])))
    assert [(layer.index, layer.router, layer.experts) for layer in wrapped] == [
        (layer.index, layer.router, layer.experts) for layer in before
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_routers_that_peft_trains_whole_are_found_once(family: str) -> None:
    model = tiny_model(family)
    before = find_moe_layers(model)
    config = LoraConfig(r=2, target_modules=["o_proj"], modules_to_save=[layer.name for layer in before])
    wrapped = get_peft_model(model, config)
    after = find_moe_layers(wrapped)
    assert [layer.name for layer in after] == [f"base_model.model.{layer.name}" for layer in before]
    assert [(layer.num_experts, layer.top_k) for layer in after] == [(EXPERTS, 2)] * len(before)
    check_routing(RoutingTap(wrapped), gradient=True)


def test_the_trained_copy_of_a_router_is_the_one_that_is_read() -> None:
    model, batch = tiny_model(), batch_of([5, 7])
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["o_proj"], modules_to_save=["gate"])).eval()
    with torch.no_grad(), capture_routing(wrapped) as routing:
        wrapped(**batch)
        before = routing.pooled
        wrapped.base_model.model.model.layers[1].mlp.gate.modules_to_save["default"].weight.mul_(-1)
        wrapped(**batch)
        changed = routing.pooled
        with wrapped.disable_adapter():
            wrapped(**batch)
    assert not torch.allclose(changed[:, 1], before[:, 1], atol=1e-2)
    assert torch.equal(routing.pooled, before)


def test_a_model_without_experts_is_refused_by_name(dense: PreTrainedModel) -> None:
    with pytest.raises(ModelError, match=r"Qwen3ForCausalLM has no MoE layer.*Mixture-of-Experts"):
        find_moe_layers(dense)


def test_an_encoder_decoder_is_refused_with_the_true_reason() -> None:
    sizes = {"vocab_size": 64, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 4, "num_experts": 4}
    layers = {"num_layers": 2, "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("switch_transformers", **sizes, **layers))
    with pytest.raises(ModelError, match=r"SwitchTransformersForConditionalGeneration is an encoder-decoder: its enc"):
        find_moe_layers(model)


def test_a_score_function_that_is_not_known_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILY_ROWS, "qwen3_moe", Family(score_by=("hidden_act", {"softmax": "softmax"})))
    with pytest.raises(ModelError, match=r"scores by hidden_act: 'silu', and this version .* softmax alone: .* row"):
        find_moe_layers(tiny_model())


def test_a_layer_says_what_it_is() -> None:
    assert repr(find_moe_layers(tiny_model())[2]) == (
        "MoELayer(index=2, name='model.layers.2.mlp.gate', num_experts=8, top_k=2, score='softmax')"
    )


def test_a_module_that_is_no_transformers_model_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear has no MoE layer"):
        find_moe_layers(torch.nn.Linear(2, 2))


class TestSelection:
    def test_none_is_all(self) -> None:
        layers = find_moe_layers(tiny_model())
        assert select_layers(layers, None) == layers

    def test_order_is_that_of_depth(self) -> None:
        assert [layer.index for layer in select_layers(find_moe_layers(tiny_model()), [3, 1])] == [1, 3]

    def test_absent_layers_are_named_beside_those_that_exist(self) -> None:
        layers = find_moe_layers(tiny_model("deepseek_v3"))
        with pytest.raises(ModelError, match=r"no MoE layer at decoder layer 0, 4-5: .* are 1-3 "):
            select_layers(layers, [0, 1, 4, 5])

    @pytest.mark.parametrize(
        "given", [range(1, 3), [2, 1, 2], (1, 2), {1, 2}, np.arange(1, 3), torch.tensor([2, 1]), iter([1, 2])]
    )
    def test_any_integers_will_do(self, given: Any) -> None:
        assert layer_indices(given) == [1, 2]
        assert all(type(layer) is int for layer in layer_indices([np.int64(1)]))

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ("7-34", r"not '7-34'; '7-34' is how a recipe writes range\(7, 35\)"),
            (7, "not 7"),
            ([True, 2], r"not \[True, 2\]: True is a truth value"),
            ([1.0], "1.0 is no integer"),
            (["1"], "'1' is no integer"),
            ([None], "None is no integer"),
        ],
    )
    def test_what_is_no_list_of_layers(self, given: Any, why: str) -> None:
        with pytest.raises(ModelError, match=rf"layers are a list of decoder-layer indices, .*{why}"):
            layer_indices(given)
        with pytest.raises(ModelError, match="layers are a list"), capture_routing(tiny_model(), layers=given):
            pass

    def test_nothing_is_no_selection(self) -> None:
        with pytest.raises(ModelError, match="no layer was asked for"):
            select_layers(find_moe_layers(tiny_model()), [])
