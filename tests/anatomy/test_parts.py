from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from innerlingua.anatomy import check_trainable, find_moe_layers, lora_targets, parameter_parts, set_trainable
from innerlingua.errors import ModelError
from tiny import FAMILIES, batch_of, tiny_model

COMMON_PARTS = {"router", "experts", "attention", "norms", "embeddings", "head"}


def parts_of(family: str) -> set[str]:
    return COMMON_PARTS | ({"shared_experts", "mlp"} if family == "deepseek_v3" else set())


def with_lora(model: PreTrainedModel, parts: list[str], **options: object) -> PeftModel:
    modules, parameters = lora_targets(model, parts)
    config = LoraConfig(r=2, target_modules=modules, target_parameters=parameters, lora_dropout=0.0, **options)
    return get_peft_model(model, config)


@pytest.mark.parametrize("family", FAMILIES)
class TestFamilies:
    def test_every_parameter_has_a_part(self, family: str) -> None:
        model = tiny_model(family)
        parts = parameter_parts(model)
        assert list(parts) == [name for name, _ in model.named_parameters()]
        assert set(parts.values()) == parts_of(family)

    def test_the_parts_are_what_the_names_of_the_family_say(self, family: str) -> None:
        for name, part in parameter_parts(tiny_model(family)).items():
            levels = name.split(".")
            if "shared_experts" in levels:
                assert part == "shared_experts"
            elif "experts" in levels:
                assert part == "experts"
            elif "gate" in levels or "router" in levels:
                assert part == "router"
            elif any("norm" in level for level in levels):
                assert part == "norms"
            elif "self_attn" in levels:
                assert part == "attention"
            elif "mlp" in levels:
                assert part == "mlp"
            else:
                assert (levels[-2], part) in {("embed_tokens", "embeddings"), ("lm_head", "head")}

    def test_set_trainable_trains_exactly_that(self, family: str) -> None:
        model = tiny_model(family)
        set_trainable(model, ["router", "norms"])
        parts = parameter_parts(model)
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trainable == {name for name, part in parts.items() if part in ("router", "norms")}
        check_trainable(model, ["router", "norms"])
        set_trainable(model, ["all"])
        check_trainable(model, ["all"])

    def test_lora_reaches_every_matrix_of_the_parts_that_have_one(self, family: str) -> None:
        model = tiny_model(family)
        wanted = sorted(parts_of(family) - {"norms", "embeddings"})
        matrices = {
            name
            for name, parameter in model.named_parameters()
            if parameter.dim() >= 2 and not name.endswith("bias") and parameter_parts(model)[name] in wanted
        }
        wrapped = with_lora(model, wanted)
        adapted = set()
        for module_name, module in wrapped.named_modules():
            if "lora_A" in dict(module.named_children()) and len(module.lora_A):
                logical = module_name.removeprefix("base_model.model.").replace(".base_layer", "")
                leaf = vars(module).get("parameter_name") or "weight"
                adapted.add(f"{logical}.{leaf}")
        assert adapted == matrices
        check_trainable(wrapped, [], adapted=wanted)

    def test_lora_on_everything_starts_as_the_model_itself_and_trains(self, family: str) -> None:
        model, batch = tiny_model(family), batch_of([5, 7])
        with torch.no_grad():
            before = model(**batch).logits
        wrapped = with_lora(model, ["router", "experts", "attention"])
        output = wrapped(**batch, labels=batch["input_ids"])
        assert torch.allclose(output.logits, before, atol=1e-5)
        output.loss.backward()
        grads = {n: p.grad for n, p in wrapped.named_parameters() if "lora_B" in n}
        for layer in find_moe_layers(model):
            block = f".layers.{layer.index}.mlp."
            reached = [name for name, grad in grads.items() if block in name and float(grad.abs().max()) > 0]
            # Both expert matrices, and the router; PhiMoE's has a gradient only where experts are nearly equal.
            assert len(reached) >= (2 if family == "phimoe" else 3), layer.name

    def test_adapters_survive_saving_and_loading(self, family: str, tmp_path: Path) -> None:
        wrapped = with_lora(tiny_model(family), sorted(parts_of(family) - {"norms", "embeddings", "head"}))
        batch = batch_of([6])
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.3)
        wrapped.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(tiny_model(family), tmp_path).eval()
        with torch.no_grad():
            assert torch.allclose(loaded(**batch).logits, wrapped.eval()(**batch).logits, atol=1e-5)
            assert not torch.allclose(loaded(**batch).logits, tiny_model(family)(**batch).logits, atol=1e-2)

    def test_experts_without_an_adapter_are_named(self, family: str) -> None:
        wrapped = with_lora(tiny_model(family), ["attention", "router"])
        with pytest.raises(ModelError, match=r"experts was to be trained but is frozen \(no adapter at all\)"):
            check_trainable(wrapped, [], adapted=["attention", "router", "experts"])

    def test_parts_keep_their_names_under_lora(self, family: str) -> None:
        model = tiny_model(family)
        before = parameter_parts(model)
        wrapped = with_lora(model, ["router", "experts", "attention"])
        after = parameter_parts(wrapped)
        for name, part in after.items():
            logical = name.removeprefix("base_model.model.").replace(".base_layer", "")
            if ".lora_" not in name:
                assert part == before[logical]
        assert {part for name, part in after.items() if ".lora_" in name} == {"router", "experts", "attention"}


class TestLora:
    @pytest.mark.parametrize("part", ["mlp", "shared_experts"])
    def test_feed_forward_blocks_that_share_names_with_experts_keep_them_apart(self, part: str) -> None:
        wrapped = with_lora(tiny_model("deepseek_v3"), [part])
        check_trainable(wrapped, [], adapted=[part])

    def test_all_linear_reaches_no_expert_of_phimoe_and_the_check_says_so(self) -> None:
        model = tiny_model("phimoe")
        wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
        with pytest.raises(ModelError, match="experts was to be trained"):
            check_trainable(wrapped, [], adapted=["attention", "experts"])

    def test_an_adapter_that_was_not_asked_for(self) -> None:
        wrapped = with_lora(tiny_model(), ["attention", "experts"])
        with pytest.raises(ModelError, match=r"experts was to stay frozen but is trainable \(.*lora_"):
            check_trainable(wrapped, [], adapted=["attention"])

    def test_routers_in_full_beside_lora_on_attention(self) -> None:
        wrapped = with_lora(tiny_model(), ["attention"])
        for layer in find_moe_layers(wrapped):
            layer.router.requires_grad_(True)
        check_trainable(wrapped, ["router"], adapted=["attention"])
        with pytest.raises(ModelError, match="router was to stay frozen but is trainable"):
            check_trainable(wrapped, [], adapted=["attention"])

    @pytest.mark.parametrize("family", FAMILIES)
    def test_routers_that_peft_trains_whole(self, family: str) -> None:
        model = tiny_model(family)
        wrapped = with_lora(model, ["attention"], modules_to_save=[layer.name for layer in find_moe_layers(model)])
        check_trainable(wrapped, ["router"], adapted=["attention"])
        with pytest.raises(ModelError, match="router was to stay frozen"):
            check_trainable(wrapped, [], adapted=["attention"])
        for layer in find_moe_layers(wrapped):
            layer.router.requires_grad_(False)
        with pytest.raises(ModelError, match=r"router was to be trained but is frozen \(.*modules_to_save"):
            check_trainable(wrapped, ["router"], adapted=["attention"])

    def test_norms_carry_no_lora(self) -> None:
        with pytest.raises(ModelError, match="LoRA cannot be put on norms"):
            lora_targets(tiny_model(), ["norms", "attention"])


class TestRefusals:
    def test_a_stray_trainable_parameter_is_named(self) -> None:
        model = tiny_model()
        set_trainable(model, ["router"])
        model.lm_head.weight.requires_grad_(True)
        with pytest.raises(ModelError, match=r"head was to stay frozen but is trainable \(lm_head.weight\)"):
            check_trainable(model, ["router"])

    def test_a_frozen_parameter_of_a_trained_part_is_named(self) -> None:
        model = tiny_model()
        set_trainable(model, ["router"])
        model.model.layers[2].mlp.gate.weight.requires_grad_(False)
        with pytest.raises(
            ModelError, match=r"router was to be trained but is frozen \(model.layers.2.mlp.gate.weight\)"
        ):
            check_trainable(model, ["router"])

    @pytest.mark.parametrize("call", [set_trainable, lora_targets])
    def test_an_unknown_part_names_the_nearest(self, call: object) -> None:
        with pytest.raises(ModelError, match="unknown part 'routers'; did you mean 'router'"):
            call(tiny_model(), ["routers"])  # type: ignore[operator]

    def test_a_part_that_the_model_lacks_names_those_it_has(self) -> None:
        with pytest.raises(ModelError, match=r"this model has no shared_experts; it has attention, .*router"):
            set_trainable(tiny_model(), ["shared_experts"])

    def test_a_refusal_changes_nothing(self) -> None:
        model = tiny_model()
        with pytest.raises(ModelError):
            set_trainable(model, ["router", "mlp"])
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_tied_embeddings_are_counted_once() -> None:
    model = tiny_model(tie_word_embeddings=True)
    parts = parameter_parts(model)
    assert parts["model.embed_tokens.weight"] == "embeddings"
    assert "head" not in parts.values()


def test_dense_layers_of_a_mixed_model_are_mlp() -> None:
    parts = parameter_parts(tiny_model(mlp_only_layers=[0, 3]))
    assert parts["model.layers.0.mlp.up_proj.weight"] == "mlp"
    assert parts["model.layers.1.mlp.experts.down_proj"] == "experts"
    assert "other" not in parts.values()
