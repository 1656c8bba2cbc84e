"""What is captured: values, pooling, and what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from innerlingua.anatomy import RoutingTap, capture_routing, lora_targets
from innerlingua.errors import ModelError
from routers import masked_mean, naive_per_token, routers_of
from tiny import EXPERTS, FAMILIES, LAYERS, batch_of, tiny_model

LENGTHS = [5, 9, 1, 7]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model()


def pooled_of(model: torch.nn.Module, batch: dict[str, Tensor], **options: object) -> Tensor:
    with torch.no_grad(), capture_routing(model, **options) as routing:
        model(**batch)
    return routing.pooled


@pytest.mark.parametrize("family", FAMILIES)
class TestFamilies:
    def test_pooled_is_the_mean_of_a_recomputation_from_hidden_states_and_weights(self, family: str) -> None:
        model, batch = tiny_model(family), batch_of(LENGTHS)
        expected = masked_mean(naive_per_token(model, batch), batch["attention_mask"])
        # One over the number of experts everywhere would pass a loose comparison: the routing must differ between rows.
        assert float((expected[0] - expected[1]).abs().max()) > 0.02
        assert torch.allclose(pooled_of(model, batch).double(), expected, atol=1e-6)

    def test_per_token_is_the_recomputation_of_each_token(self, family: str) -> None:
        model, batch = tiny_model(family), batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model, per_token=True) as routing:
            model(**batch)
        real = batch["attention_mask"].bool()
        assert torch.allclose(routing.per_token.double()[real], naive_per_token(model, batch)[real], atol=1e-6)

    def test_the_logits_are_those_that_transformers_records_bit_for_bit(self, family: str) -> None:
        model, batch = tiny_model(family), batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model, per_token=True) as routing:
            recorded = model.model(**batch, output_router_logits=True).router_logits
        assert len(recorded) == len(routing.layers)
        for position, logits in enumerate(recorded):
            if family == "deepseek_v3":
                scores = torch.sigmoid(logits.float())
                expected = scores / scores.sum(dim=-1, keepdim=True)
            else:
                expected = torch.softmax(logits, dim=-1, dtype=torch.float32)
            assert torch.equal(routing.per_token[:, :, position].reshape(-1, EXPERTS), expected)

    def test_capture_changes_nothing_in_the_model_s_output(self, family: str) -> None:
        model, batch = tiny_model(family), batch_of(LENGTHS)
        with torch.no_grad():
            plain = model(**batch).logits
            with capture_routing(model):
                captured = model(**batch).logits
        assert torch.equal(plain, captured)

    def test_padding_side_and_amount_and_the_other_rows_change_nothing(self, family: str) -> None:
        model = tiny_model(family)
        right = pooled_of(model, batch_of(LENGTHS))
        assert torch.allclose(pooled_of(model, batch_of(LENGTHS, extra=6)), right, atol=1e-5)
        left = batch_of(LENGTHS, side="left", extra=3)
        assert torch.allclose(pooled_of(model, left), right, atol=1e-5)
        for row, length in enumerate(LENGTHS):
            assert torch.allclose(pooled_of(model, batch_of([length], seed=row))[0], right[row], atol=1e-5)

    def test_rows_sum_to_one_and_bfloat16_models_are_pooled_in_float32(self, family: str) -> None:
        model, batch = tiny_model(family).bfloat16(), batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model, per_token=True) as routing:
            model(**batch)
        assert routing.pooled.dtype == torch.float32
        assert torch.allclose(routing.pooled.sum(dim=-1), torch.ones(routing.pooled.shape[:-1]), atol=1e-6)
        # bfloat16 keeps three digits; the mean of the float32 distributions keeps six.
        expected = masked_mean(routing.per_token.double(), batch["attention_mask"])
        assert torch.allclose(routing.pooled.double(), expected, atol=1e-6)

    def test_lora_wrapping_keeps_the_layers_and_reads_the_adapted_router(self, family: str) -> None:
        model, batch = tiny_model(family), batch_of(LENGTHS)
        before = pooled_of(model, batch)
        modules, parameters = lora_targets(model, ["router", "attention"])
        config = LoraConfig(r=2, target_modules=modules, target_parameters=parameters, lora_dropout=0.0)
        wrapped = get_peft_model(model, config).eval()
        assert torch.equal(pooled_of(wrapped, batch), before)  # fresh adapters are zero
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name and ("gate" in name or "router" in name):
                    parameter.normal_(std=1.0)
        assert float((pooled_of(wrapped, batch) - before).abs().max()) > 0.01
        merged = wrapped.merge_and_unload()
        assert torch.allclose(pooled_of(wrapped, batch), pooled_of(merged, batch), atol=1e-5)


class TestPooling:
    def test_no_mask_pools_over_all_tokens(self, model: PreTrainedModel) -> None:
        batch = {"input_ids": batch_of([6, 6])["input_ids"]}
        assert torch.equal(pooled_of(model, batch), pooled_of(model, batch_of([6, 6])))

    def test_the_order_of_the_real_tokens_logits_changes_nothing(self) -> None:
        """And the exchange of a real token's logits with those of padding does."""
        model, batch = tiny_model(), batch_of(LENGTHS, extra=2)
        width = batch["input_ids"].shape[1]
        router = model.model.layers[2].mlp.gate
        within = torch.arange(width).repeat(len(LENGTHS), 1)
        for row, length in enumerate(LENGTHS):
            within[row, :length] = torch.randperm(length, generator=torch.Generator().manual_seed(row))
        across = within.flip(1)

        def reordered(order: Tensor) -> Tensor:
            flat = (order + width * torch.arange(len(LENGTHS))[:, None]).flatten()
            hook = router.register_forward_hook(lambda module, args, output: (output[0][flat], *output[1:]))
            pooled = pooled_of(model, batch, layers=[2])
            hook.remove()
            return pooled

        plain = pooled_of(model, batch, layers=[2])
        assert not torch.equal(within, torch.arange(width).expand_as(within))
        assert torch.allclose(reordered(within), plain, atol=1e-6)
        assert not torch.allclose(reordered(across), plain, atol=1e-3)

    def test_given_mask_chooses_the_tokens(self, model: PreTrainedModel) -> None:
        batch = batch_of(LENGTHS)
        mask = torch.zeros_like(batch["input_ids"])
        mask[:, 0] = 1
        mask[1, 3:6] = 1
        expected = masked_mean(naive_per_token(model, batch), mask)
        assert torch.allclose(pooled_of(model, batch, mask=mask).double(), expected, atol=1e-6)
        assert torch.equal(pooled_of(model, batch, mask=mask.bool()), pooled_of(model, batch, mask=mask))

    def test_segments_are_the_means_of_their_tokens_in_the_order_of_their_ids(self, model: PreTrainedModel) -> None:
        batch = batch_of([8, 8, 8])
        # Three in the first row (ids out of order, one of them in two pieces), none in the second, one in the third.
        segments = torch.full((3, 8), -1)
        segments[0] = torch.tensor([3, 3, 0, -1, 0, 2, 2, 0])
        segments[2, 5] = 1
        tokens = naive_per_token(model, batch)
        places = {0: (0, [2, 4, 7]), 1: (2, [5]), 2: (0, [5, 6]), 3: (0, [0, 1])}
        expected = torch.stack([tokens[row, at].mean(dim=0) for _, (row, at) in sorted(places.items())])
        assert torch.allclose(pooled_of(model, batch, segments=segments).double(), expected, atol=1e-6)
        assert torch.equal(pooled_of(model, batch, segments=segments.int()), pooled_of(model, batch, segments=segments))

    def test_one_segment_per_row_is_the_whole_sequence(self, model: PreTrainedModel) -> None:
        batch = batch_of(LENGTHS)
        segments = torch.arange(len(LENGTHS))[:, None].where(batch["attention_mask"].bool(), torch.tensor(-1))
        assert torch.allclose(pooled_of(model, batch, segments=segments), pooled_of(model, batch), atol=1e-7)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_packed_row_gives_what_its_sequences_give_alone(self, family: str) -> None:
        model = tiny_model(family)
        single = [batch_of([length], seed=row)["input_ids"] for row, length in enumerate(LENGTHS)]
        segments = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))[None]
        attends = torch.ones(22, 22).tril().bool() & (segments == segments.T)
        causal = torch.zeros(1, 1, 22, 22).masked_fill(~attends, torch.finfo(torch.float32).min)
        kinds = ("full_attention", "sliding_attention")
        packed = {
            "input_ids": torch.cat(single, dim=1),
            "position_ids": torch.cat([torch.arange(length) for length in LENGTHS])[None],
            "attention_mask": dict.fromkeys(kinds, causal) if family == "gpt_oss" else causal,
        }
        unpacked = pooled_of(model, batch_of(LENGTHS))
        assert torch.allclose(pooled_of(model, packed, segments=segments), unpacked, atol=1e-5)

    def test_decoding_with_a_cache_pools_over_the_new_tokens(self, model: PreTrainedModel) -> None:
        batch = batch_of([8])
        with torch.no_grad(), capture_routing(model, per_token=True) as whole:
            model(**batch)
        with torch.no_grad():
            cache = model(batch["input_ids"][:, :6], use_cache=True).past_key_values
            with capture_routing(model) as routing:
                model(batch["input_ids"][:, 6:], attention_mask=torch.ones(1, 8), past_key_values=cache)
        assert torch.allclose(routing.pooled, whole.per_token[:, 6:].mean(dim=1), atol=1e-5)


class TestLayers:
    def test_a_choice_of_layers_is_cut_out_of_all(self, model: PreTrainedModel) -> None:
        batch = batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model, layers=[3, 1]) as routing:
            model(**batch)
        assert routing.layers == [1, 3]
        assert torch.equal(routing.pooled, pooled_of(model, batch)[:, [1, 3]])

    def test_dense_layers_keep_their_numbers(self) -> None:
        model, batch = tiny_model(mlp_only_layers=[0, 3], num_hidden_layers=6), batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model, layers=[4]) as routing:
            model(**batch)
        expected = masked_mean(naive_per_token(model, batch), batch["attention_mask"])
        assert list(routers_of(model)) == [1, 2, 4, 5]
        assert routing.layers == [4]
        assert torch.allclose(routing.pooled[:, 0].double(), expected[:, 2], atol=1e-6)

    def test_absent_layers_are_refused(self, model: PreTrainedModel) -> None:
        with (
            pytest.raises(ModelError, match=r"no MoE layer at decoder layer 7: .* 0-3"),
            capture_routing(model, layers=[7]),
        ):
            pass


class TestCalls:
    """The many ways in which a model is called."""

    def test_positional_input_ids(self, model: PreTrainedModel) -> None:
        batch = batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model) as routing:
            model(batch["input_ids"], batch["attention_mask"])
        assert torch.equal(routing.pooled, pooled_of(model, batch))

    def test_the_backbone_alone(self, model: PreTrainedModel) -> None:
        batch = batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model) as routing:
            model.model(**batch)
        assert torch.equal(routing.pooled, pooled_of(model, batch))

    def test_embeddings_in_place_of_ids(self, model: PreTrainedModel) -> None:
        batch = batch_of(LENGTHS)
        embedded = model.get_input_embeddings()(batch["input_ids"])
        with torch.no_grad(), capture_routing(model) as routing:
            model(inputs_embeds=embedded, attention_mask=batch["attention_mask"])
        assert torch.equal(routing.pooled, pooled_of(model, batch))

    def test_the_model_inside_a_lora_wrapper_called_directly(self) -> None:
        wrapped = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"])).eval()
        batch = batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(wrapped) as routing:
            wrapped.get_base_model()(**batch)
        assert torch.equal(routing.pooled, pooled_of(wrapped, batch))

    def test_a_plain_module_around_the_model(self, model: PreTrainedModel) -> None:
        class Wrapper(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.module = model

            def forward(self, *args: object, **kwargs: object) -> object:
                return self.module(*args, **kwargs)

        batch = batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(Wrapper()) as routing:
            model(**batch)
        direct = pooled_of(Wrapper(), batch)
        assert torch.equal(routing.pooled, pooled_of(model, batch))
        assert torch.equal(direct, routing.pooled)

    def test_of_several_passes_each_can_be_read_before_the_next(self, model: PreTrainedModel) -> None:
        batches = [batch_of(LENGTHS), batch_of([4, 6], seed=9)]
        alone = [pooled_of(model, batch) for batch in batches]
        with warnings.catch_warnings(), torch.no_grad(), capture_routing(model) as routing:
            warnings.simplefilter("error")
            for number, batch in enumerate(batches):
                model(**batch)
                assert routing.passes == number + 1
                assert torch.equal(routing.pooled, alone[number])

    def test_a_pass_that_is_replaced_unread_is_told(self, model: PreTrainedModel) -> None:
        batches = [batch_of(LENGTHS), batch_of(LENGTHS), batch_of([4, 6], seed=9)]

        def run() -> Tensor:
            with torch.no_grad(), capture_routing(model) as routing:
                for batch in batches:
                    model(**batch)
            return routing.pooled

        with pytest.warns(UserWarning, match="3 forward passes ran inside one capture_routing, and 2 were replaced"):
            pooled = run()
        assert torch.equal(pooled, pooled_of(model, batches[-1]))

    def test_generation_makes_a_pass_per_token_and_says_so(self, model: PreTrainedModel) -> None:
        batch = batch_of([5, 5])
        with pytest.warns(UserWarning, match="capture one pass over the whole text"), capture_routing(model) as routing:
            whole = model.generate(**batch, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        assert routing.passes == 3
        with torch.no_grad(), capture_routing(model, per_token=True) as tokens:
            model(input_ids=whole)
        assert tokens.passes == 1
        # The last pass read the second of the three new tokens, to choose the third.
        assert torch.allclose(routing.pooled, tokens.per_token[:, 6], atol=1e-5)

    def test_a_pass_that_raises_replaces_nothing(self, model: PreTrainedModel) -> None:
        """Half of it has run when it fails: no mixture of two passes may be left."""
        first = batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model) as routing:
            model(**first)
            handle = model.model.layers[2].register_forward_pre_hook(lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model(**batch_of([4, 6], seed=9))
            handle.remove()
        assert routing.passes == 1
        assert torch.equal(routing.pooled, pooled_of(model, first))

    def test_it_says_what_it_holds(self, model: PreTrainedModel) -> None:
        with torch.no_grad(), capture_routing(model, layers=[1, 3]) as routing:
            assert repr(routing) == "RoutingCapture(layers=[1, 3], no complete forward pass yet)"
            model(**batch_of(LENGTHS))
            assert repr(routing) == "RoutingCapture(layers=[1, 3], segments=4, experts=8, passes=1)"
            _ = routing.pooled
            model(**batch_of([4, 6]))
        assert repr(routing) == "RoutingCapture(layers=[1, 3], segments=2, experts=8, passes=2, the last is held)"

    def test_nested_captures_are_independent(self, model: PreTrainedModel) -> None:
        outer_batch, inner_batch = batch_of(LENGTHS), batch_of([4, 6], seed=9)
        alone = pooled_of(model, inner_batch)
        with torch.no_grad(), capture_routing(model) as outer:
            with capture_routing(model, layers=[2]) as inner:
                model(**inner_batch)
            assert torch.equal(outer.pooled, alone)
            model(**outer_batch)
        assert torch.equal(inner.pooled, pooled_of(model, inner_batch)[:, [2]])
        assert torch.equal(outer.pooled, pooled_of(model, outer_batch))

    def test_one_tap_makes_many_captures(self, model: PreTrainedModel) -> None:
        tap = RoutingTap(model, [1, 2])
        for seed in (0, 5):
            batch = batch_of(LENGTHS, seed=seed)
            with torch.no_grad(), tap.capture() as routing:
                model(**batch)
            assert torch.equal(routing.pooled, pooled_of(model, batch, layers=[1, 2]))

    def test_autocast_does_not_reach_the_pooling(self, model: PreTrainedModel) -> None:
        batch = batch_of([40, 37])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), capture_routing(model, per_token=True) as routing:
            model(**batch)
        assert routing.pooled.dtype == torch.float32
        expected = masked_mean(routing.per_token.double(), batch["attention_mask"])
        assert torch.allclose(routing.pooled.double(), expected, atol=1e-6)

    def test_the_score_can_be_chosen(self) -> None:
        model, batch = tiny_model("deepseek_v3"), batch_of(LENGTHS)
        softmax = pooled_of(model, batch, score="softmax")
        assert not torch.allclose(softmax, pooled_of(model, batch), atol=1e-3)
        assert torch.equal(pooled_of(model, batch, score="sigmoid_normalised"), pooled_of(model, batch))

    def test_detached_routing_carries_no_gradient(self, model: PreTrainedModel) -> None:
        batch = batch_of(LENGTHS)
        with RoutingTap(model).capture(detach=True) as routing:
            model(**batch)
        assert not routing.pooled.requires_grad
        assert torch.equal(routing.pooled, pooled_of(model, batch))


class TestRefusals:
    @pytest.mark.parametrize(
        ("segments", "message"),
        [
            ([[0, 0, 2, 2], [3, 3, 3, 3]], r"skips the ids \[1\] of 0 to 3"),
            ([[0, 0, 1, 1], [1, 2, 2, 2]], r"segments \[1\] lie in more than one row"),
            ([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]], "must be integers"),
            ([[-1, -1, -1, -1], [-1, -1, -1, -1]], "names no segment"),
            ([[0, 0, 1, 1], [2, 2, 10**12, 2]], "has the id 1000000000000, but only 8 tokens"),
            ([[0, 0, 1], [2, 2, 2]], r"has shape \(2, 3\), but the batch is \(2, 4\)"),
        ],
    )
    def test_wrong_segments(self, model: PreTrainedModel, segments: list[list[float]], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            pooled_of(model, batch_of([4, 4]), segments=torch.tensor(segments))

    def test_a_mask_of_another_shape(self, model: PreTrainedModel) -> None:
        with pytest.raises(ModelError, match=r"`mask` has shape \(2, 5\)"):
            pooled_of(model, batch_of([4, 4]), mask=torch.ones(2, 5))

    @pytest.mark.parametrize("value", [0.5, -1.0, float("nan"), float("-inf")])
    def test_a_mask_that_weighs(self, model: PreTrainedModel, value: float) -> None:
        mask = torch.ones(2, 4)
        mask[0, 1] = value
        with pytest.raises(ModelError, match="`mask` has other values than 0 and 1"):
            pooled_of(model, batch_of([4, 4]), mask=mask)

    def test_a_row_without_tokens(self, model: PreTrainedModel) -> None:
        with pytest.raises(ModelError, match=r"rows \[1\] of the batch have no token"):
            pooled_of(model, batch_of([4, 4]), mask=torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]]))

    def test_mask_and_segments_together(self, model: PreTrainedModel) -> None:
        batch = batch_of([4])
        with pytest.raises(ModelError, match="not both"):
            pooled_of(model, batch, mask=torch.ones(1, 4), segments=torch.zeros(1, 4, dtype=torch.long))

    def test_packed_rows_without_segments(self, model: PreTrainedModel) -> None:
        batch = {"input_ids": batch_of([6])["input_ids"], "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]])}
        with pytest.raises(ModelError, match="position ids start again inside a row"):
            pooled_of(model, batch)

    def test_rising_position_ids_are_no_packing(self, model: PreTrainedModel) -> None:
        input_ids = batch_of([6])["input_ids"]
        pooled = pooled_of(model, {"input_ids": input_ids, "position_ids": torch.arange(6)[None]})
        assert torch.equal(pooled, pooled_of(model, {"input_ids": input_ids}))

    def test_a_mask_of_four_dimensions_needs_segments_or_a_mask(self, model: PreTrainedModel) -> None:
        causal = torch.zeros(1, 1, 4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), torch.finfo(torch.float32).min)
        batch = {"input_ids": batch_of([4])["input_ids"], "attention_mask": causal}
        with pytest.raises(ModelError, match=r"not a \(batch, tokens\) tensor"):
            pooled_of(model, batch)
        pooled = pooled_of(model, batch, mask=torch.ones(1, 4))
        assert torch.allclose(pooled, pooled_of(model, batch_of([4])), atol=1e-6)

    def test_reading_before_a_pass(self, model: PreTrainedModel) -> None:
        with (
            capture_routing(model) as routing,
            pytest.raises(ModelError, match=r"no routing was captured at decoder layers \[0, 1, 2, 3\]"),
        ):
            _ = routing.pooled

    def test_reading_tokens_that_were_not_kept(self, model: PreTrainedModel) -> None:
        with torch.no_grad(), capture_routing(model) as routing:
            model(**batch_of([4]))
        with pytest.raises(ModelError, match="per_token=True"):
            _ = routing.per_token

    def test_an_unknown_score(self, model: PreTrainedModel) -> None:
        with pytest.raises(ModelError, match="unknown score function 'sparsemax'"):
            pooled_of(model, batch_of([4]), score="sparsemax")


class TestLeavingNothing:
    @staticmethod
    def hooks(model: PreTrainedModel) -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())

    def test_hooks_go_with_the_context(self) -> None:
        model = tiny_model()
        before = self.hooks(model)
        with capture_routing(model):
            assert self.hooks(model) > before
            model(**batch_of(LENGTHS))
        assert self.hooks(model) == before

    def test_hooks_go_when_the_pass_raises(self) -> None:
        model = tiny_model()
        before = self.hooks(model)
        with pytest.raises(IndexError), capture_routing(model):
            model(input_ids=torch.tensor([[10**6]]))
        assert self.hooks(model) == before

    def test_a_pass_that_raised_inside_does_not_spoil_the_next(self) -> None:
        model, batch = tiny_model(), batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model) as routing:
            with pytest.raises(IndexError):
                model(input_ids=torch.tensor([[10**6]]))
            model(**batch)
        assert torch.equal(routing.pooled, pooled_of(model, batch))

    def test_no_pass_outside_is_captured(self) -> None:
        model, batch = tiny_model(), batch_of(LENGTHS)
        with torch.no_grad(), capture_routing(model) as routing:
            model(**batch)
        kept = routing.pooled
        with torch.no_grad():
            model(**batch_of([4]))
        assert torch.equal(routing.pooled, kept)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_each_router_is_heard_once_per_pass(self, family: str) -> None:
        model = tiny_model(family)
        calls: list[int] = []
        handles = [r.register_forward_hook(lambda *_: calls.append(1)) for r in routers_of(model).values()]
        pooled = pooled_of(model, batch_of(LENGTHS))
        for handle in handles:
            handle.remove()
        assert len(calls) == pooled.shape[1] == LAYERS - (family == "deepseek_v3")
