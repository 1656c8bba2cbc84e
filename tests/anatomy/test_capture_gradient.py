"""The gradient of what is captured, with and without checkpointing, and what is held for it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from innerlingua.anatomy import RoutingTap, capture_routing, find_moe_layers, lora_targets, routing_distribution
from routers import routers_of
from tiny import EXPERTS, FAMILIES, LAYERS, batch_of, tiny_model

LENGTHS = [5, 9, 7]
Gradients = dict[str, Tensor]


def training_model(family: str = "qwen3_moe", *, checkpointing: bool, **changes: object) -> PreTrainedModel:
    model = tiny_model(family, use_cache=False, **changes).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def functional(pooled: Tensor, seed: int = 0) -> Tensor:
    """A scalar that depends on every entry of `pooled` by another factor."""
    return (pooled * torch.randn(pooled.shape, generator=torch.Generator().manual_seed(seed))).sum()


def gradients(model: nn.Module, run: Callable[[], Tensor]) -> Gradients:
    model.zero_grad()
    torch.manual_seed(0)  # PhiMoE draws its experts in training mode
    run().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(actual: Gradients, expected: Gradients) -> None:
    assert actual.keys() == expected.keys()
    assert any(float(gradient.abs().max()) > 0 for gradient in expected.values())
    for name, gradient in expected.items():
        assert torch.allclose(actual[name], gradient, atol=1e-6, rtol=1e-5), name


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def captured(model: nn.Module, batch: dict[str, Tensor], **options: object) -> Tensor:
    with capture_routing(model, **options) as routing:
        model(**batch)
    return routing.pooled


@pytest.mark.parametrize("family", FAMILIES)
class TestFamilies:
    def test_gradient_is_that_of_the_logits_that_transformers_records(self, family: str) -> None:
        model, batch = tiny_model(family), batch_of(LENGTHS)
        mask = batch["attention_mask"]

        def reference() -> Tensor:
            recorded = model.model(**batch, output_router_logits=True).router_logits
            score = find_moe_layers(model)[0].score
            p = torch.stack([routing_distribution(z, score).view(*mask.shape, EXPERTS) for z in recorded], dim=2)
            return functional((p * mask[..., None, None]).sum(dim=1) / mask.sum(dim=1)[:, None, None])

        assert_same(gradients(model, lambda: functional(captured(model, batch))), gradients(model, reference))

    def test_checkpointing_gives_the_same_gradient(self, family: str) -> None:
        batch = batch_of(LENGTHS)

        def run(model: PreTrainedModel) -> Gradients:
            def loss() -> Tensor:
                with capture_routing(model) as routing:
                    output = model(**batch, labels=batch["input_ids"])
                return output.loss + functional(routing.pooled)

            return gradients(model, loss)

        plain, checkpointed = (run(training_model(family, checkpointing=on)) for on in (False, True))
        assert_same(checkpointed, plain)
        for layer in find_moe_layers(tiny_model(family)):
            assert float(plain[f"{layer.name}.weight"].abs().max()) > 0

    def test_lora_gives_the_same_gradient_with_checkpointing(self, family: str) -> None:
        batch = batch_of(LENGTHS)

        def run(checkpointing: bool) -> Gradients:
            model = training_model(family, checkpointing=checkpointing)
            modules, parameters = lora_targets(model, ["router", "attention"])
            torch.manual_seed(1)
            wrapped = get_peft_model(
                model, LoraConfig(r=2, target_modules=modules, target_parameters=parameters, lora_dropout=0.0)
            )
            if checkpointing:
                wrapped.enable_input_require_grads()
            return gradients(wrapped, lambda: functional(captured(wrapped, batch)))

        plain = run(False)
        assert_same(run(True), plain)
        assert any("lora_B" in name and float(g.abs().max()) > 0 for name, g in plain.items())

    def test_recomputation_runs_each_router_once_more_and_is_not_captured(self, family: str) -> None:
        model, batch = training_model(family, checkpointing=True), batch_of(LENGTHS)
        calls: list[int] = []
        for router in routers_of(model).values():
            router.register_forward_hook(lambda *_: calls.append(1))
        with capture_routing(model) as routing:
            model(**batch)
            first = routing.pooled
            assert len(calls) == len(routing.layers)
            functional(first).backward()
            # The same values as before: the second run neither replaces nor adds.
            assert torch.equal(routing.pooled, first)
            # The last layer is recomputed only if something asks for it, so every one, and only once.
            assert len(calls) == 2 * len(routing.layers)


class TestCheckpointing:
    """Each is a way in which a recomputed layer could be pooled too often, too rarely, or for the wrong pass."""

    @staticmethod
    def parity(run: Callable[[PreTrainedModel], Callable[[], Tensor]]) -> None:
        plain, checkpointed = (training_model(checkpointing=on) for on in (False, True))
        assert_same(gradients(checkpointed, run(checkpointed)), gradients(plain, run(plain)))

    def test_two_captured_passes_and_one_backward(self) -> None:
        def run(model: PreTrainedModel) -> Callable[[], Tensor]:
            return lambda: (
                functional(captured(model, batch_of(LENGTHS)), 1)
                + functional(captured(model, batch_of(LENGTHS, seed=20)), 2)
            )

        self.parity(run)

    @pytest.mark.parametrize("captured_first", [True, False])
    def test_a_pass_that_is_not_captured_beside_one_that_is(self, captured_first: bool) -> None:
        def run(model: PreTrainedModel) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                other = batch_of(LENGTHS, seed=20)
                if captured_first:
                    total = functional(captured(model, batch_of(LENGTHS)))
                    return total + model(**other, labels=other["input_ids"]).loss
                total = model(**other, labels=other["input_ids"]).loss
                return total + functional(captured(model, batch_of(LENGTHS)))

            return loss

        self.parity(run)

    def test_an_earlier_pass_inside_the_same_context(self) -> None:
        def run(model: PreTrainedModel) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                first = batch_of([4, 6], seed=20)
                with capture_routing(model) as routing:
                    total = model(**first, labels=first["input_ids"]).loss + functional(routing.pooled, 1)
                    model(**batch_of(LENGTHS))
                return total + functional(routing.pooled, 2)

            return loss

        self.parity(run)

    def test_a_pass_without_gradient_first(self) -> None:
        def run(model: PreTrainedModel) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                with torch.no_grad():
                    anchor = captured(model, batch_of(LENGTHS, seed=20))
                return ((captured(model, batch_of(LENGTHS)) - anchor) ** 2).sum()

            return loss

        self.parity(run)

    def test_backward_inside_the_context(self) -> None:
        plain, checkpointed = (training_model(checkpointing=on) for on in (False, True))
        for model in (plain, checkpointed):
            with capture_routing(model) as routing:
                model(**batch_of(LENGTHS))
                functional(routing.pooled).backward()
        assert_same(
            {name: p.grad for name, p in checkpointed.named_parameters() if p.grad is not None},
            {name: p.grad for name, p in plain.named_parameters() if p.grad is not None},
        )

    @pytest.mark.parametrize("inner_layers", [None, [1, 2]])
    def test_nested_captures_of_one_pass(self, inner_layers: list[int] | None) -> None:
        def run(model: PreTrainedModel) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                batch = batch_of(LENGTHS)
                with capture_routing(model) as outer, capture_routing(model, inner_layers) as inner:
                    model(**batch)
                return functional(outer.pooled, 1) + functional(inner.pooled, 2)

            return loss

        self.parity(run)

    def test_routing_that_is_read_for_a_log_and_dropped(self) -> None:
        def run(model: PreTrainedModel) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                batch = batch_of(LENGTHS)
                with capture_routing(model) as routing:
                    total = model(**batch, labels=batch["input_ids"]).loss
                del routing
                gc.collect()
                return total

            return loss

        self.parity(run)

    def test_a_detached_capture(self) -> None:
        def run(model: PreTrainedModel) -> Callable[[], Tensor]:
            tap = RoutingTap(model)

            def loss() -> Tensor:
                batch = batch_of(LENGTHS)
                with tap.capture(detach=True):
                    return model(**batch, labels=batch["input_ids"]).loss

            return loss

        self.parity(run)

    def test_some_layers_only(self) -> None:
        self.parity(lambda model: lambda: functional(captured(model, batch_of(LENGTHS), layers=[1, 2])))

    def test_segments_and_tokens(self) -> None:
        segments = torch.tensor([[0] * 3 + [1] * 2 + [-1] * 4, [2] * 9, [-1] * 2 + [3] * 5 + [-1] * 2])

        def run(model: PreTrainedModel) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                with capture_routing(model, segments=segments, per_token=True) as routing:
                    model(**batch_of(LENGTHS))
                return functional(routing.pooled, 1) + functional(routing.per_token, 2)

            return loss

        self.parity(run)

    def test_a_loss_that_is_kept_does_not_disturb_later_passes(self) -> None:
        """Its graph outlives its backward pass, and the memory of its layers' inputs is used again by others."""
        model = training_model(checkpointing=True)
        reference = training_model(checkpointing=True)
        kept = []
        for step in range(4):
            batch = batch_of(LENGTHS, seed=10 * step)
            loss = functional(captured(model, batch))
            loss.backward()
            kept.append(loss)
            expected = gradients(reference, lambda batch=batch: reference(**batch, labels=batch["input_ids"]).loss)
            actual = gradients(model, lambda batch=batch: model(**batch, labels=batch["input_ids"]).loss)
            assert_same(actual, expected)

    def test_backward_twice_over_one_graph(self) -> None:
        plain, checkpointed = (training_model(checkpointing=on) for on in (False, True))
        for model in (plain, checkpointed):
            loss = functional(captured(model, batch_of(LENGTHS)))
            loss.backward(retain_graph=True)
            loss.backward()
        assert_same(
            {name: p.grad for name, p in checkpointed.named_parameters() if p.grad is not None},
            {name: p.grad for name, p in plain.named_parameters() if p.grad is not None},
        )

    def test_hooks_stay_until_the_graph_is_freed(self) -> None:
        model = training_model(checkpointing=True)
        before = hooks(model)
        loss = functional(captured(model, batch_of(LENGTHS)))
        assert hooks(model) > before  # the recomputation needs them
        loss.backward()
        del loss
        gc.collect()
        assert hooks(model) == before

    def test_hooks_go_when_the_graph_is_dropped_without_backward(self) -> None:
        model = training_model(checkpointing=True)
        before = hooks(model)
        captured(model, batch_of(LENGTHS))
        gc.collect()
        assert hooks(model) == before

    def test_hooks_go_when_the_pass_raises(self) -> None:
        model = training_model(checkpointing=True)
        before = hooks(model)
        model.model.norm.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            captured(model, batch_of(LENGTHS))
        gc.collect()
        assert hooks(model) == before + 1

    def test_reentrant_checkpointing_gives_no_gradient(self) -> None:
        model = training_model(checkpointing=False)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        model.enable_input_require_grads()
        assert not captured(model, batch_of(LENGTHS)).requires_grad


def test_without_checkpointing_hooks_go_with_the_context_although_the_graph_lives() -> None:
    model = training_model(checkpointing=False)
    before = hooks(model)
    loss = functional(captured(model, batch_of(LENGTHS)))
    assert hooks(model) == before
    loss.backward()


class TestReach:
    def test_the_layers_above_get_exactly_nothing(self) -> None:
        model = tiny_model()
        found = gradients(model, lambda: functional(captured(model, batch_of(LENGTHS), layers=[1, 2])))
        for layer in (0, 1, 2):
            assert float(found[f"model.layers.{layer}.mlp.gate.weight"].abs().max()) > 0
        above = [name for name in found if name.startswith(("model.layers.3", "model.norm", "lm_head"))]
        assert above == []
        # The experts of the last captured layer act only on what comes after it.
        assert not any(name.startswith("model.layers.2.mlp.experts") for name in found)
        assert float(found["model.layers.1.mlp.experts.down_proj"].abs().max()) > 0


class LiveBytes(TorchDispatchMode):
    """Watches all operations and says how many bytes of what they made are still held, by Python or by autograd."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def sizes(self) -> list[int]:
        return [size for storage, size in self._made.values() if not storage.expired()]


class TestMemory:
    """Rows x tokens is far more than segments, so whatever grows with tokens shows."""

    TOKENS = 4 * 60
    MATRIX = TOKENS * EXPERTS * 4

    @staticmethod
    def held(run: Callable[[], object]) -> list[int]:
        """The sizes of the storages that live on because of what `run` returns."""
        with LiveBytes() as live:
            result = run()
            sizes = live.sizes()
        assert result is not None
        return sizes

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("layers", [[1], [1, 2, 3]])
    def test_with_gradient_at_most_one_matrix_of_tokens_and_experts_per_layer(
        self, family: str, layers: list[int]
    ) -> None:
        model, batch = tiny_model(family), batch_of([60] * 4)
        tap = RoutingTap(model, layers)

        def run() -> object:
            with tap.capture() as routing:
                output = model(**batch)
            return output.logits, routing.pooled

        extra = sum(self.held(run)) - sum(self.held(lambda: model(**batch).logits))
        # Beside the matrix: a column for the weights of the tokens, one for a normalisation, the pooled rows.
        columns = (len(layers) + 2) * self.TOKENS * 4 + 4 * 4 * EXPERTS * 4 * len(layers)
        assert 0 < extra <= len(layers) * self.MATRIX + columns, extra / self.MATRIX

    @pytest.mark.parametrize("family", FAMILIES)
    def test_under_checkpointing_no_matrix_is_held_between_forward_and_backward(self, family: str) -> None:
        model, batch = training_model(family, checkpointing=True), batch_of([60] * 4)

        def run() -> object:
            with capture_routing(model) as routing:
                output = model(**batch)
            return output.logits, routing.pooled

        with_capture, without = self.held(run), self.held(lambda: model(**batch).logits)
        assert with_capture.count(self.MATRIX) <= without.count(self.MATRIX)
        assert sum(with_capture) - sum(without) < self.MATRIX

    @pytest.mark.parametrize("family", FAMILIES)
    def test_without_gradient_what_is_held_does_not_grow_with_tokens(self, family: str) -> None:
        model = tiny_model(family)

        def held(width: int, **options: bool) -> int:
            batch = batch_of([width] * 4)

            def run() -> object:
                with torch.no_grad(), capture_routing(model, **options) as routing:
                    model.model(**batch)
                return routing

            return sum(self.held(run))

        assert held(20) == held(60)
        assert held(20, per_token=True) < held(60, per_token=True)

    def test_without_gradient_no_matrix_outlives_its_layer(self) -> None:
        model, batch = tiny_model(), batch_of([60] * 4)
        matrices: list[int] = []
        with torch.no_grad(), LiveBytes() as live, capture_routing(model):
            for layer in model.model.layers:
                layer.register_forward_hook(lambda *_: matrices.append(live.sizes().count(self.MATRIX)))
            model(**batch)
        assert matrices == [0] * LAYERS
