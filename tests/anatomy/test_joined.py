"""Rows that lie end to end: families that keep them apart, and families that do not are refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from innerlingua.anatomy import check_joined_rows
from innerlingua.errors import ModelError
from tiny import tiny_model

COLLATE = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)


@pytest.mark.parametrize("family", ["qwen3_moe", "phimoe", "mixtral", "olmoe", "deepseek_v3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_kept_apart(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype).train()
    check_joined_rows(model, COLLATE)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "deepseek_v3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_are_kept_apart_under_automatic_casting(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family)
    with torch.autocast("cpu", dtype=dtype):
        check_joined_rows(model, COLLATE)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("casting", [False, True], ids=["weights", "casting"])
def test_a_trace_of_another_row_is_seen_in_16_bits(casting: bool) -> None:
    """Far below what rounding does to the values."""
    model = tiny_model()
    trace = 1e-4

    def leak(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0] + trace * args[0].roll(12, dims=1), *args[1:])

    model.model.layers[1].register_forward_pre_hook(leak)
    if not casting:
        model = model.to(torch.bfloat16)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=casting),
        pytest.raises(ModelError, match=r"has a gradient at the tokens of the row before it.*padding"),
    ):
        check_joined_rows(model, COLLATE)


def test_padding_at_the_end_changes_nothing() -> None:
    check_joined_rows(tiny_model(), DataCollatorForLanguageModeling(0, padding_free=True, pad_to_multiple_of=16))


def test_rows_that_see_each_other() -> None:
    """gpt-oss makes its mask without position ids, and has no flash attention here."""
    with pytest.raises(
        ModelError, match=r"GptOss.* does not keep rows apart .*another row before it.*flash_attention_2"
    ):
        check_joined_rows(tiny_model("gpt_oss"), COLLATE)


def test_a_position_that_goes_on_counting() -> None:
    """Rows do not see each other, but the second one's positions do not start again."""
    model = tiny_model()

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(64, 64)

        def forward(self, module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
            return output + self.table.weight[: output.shape[1], : output.shape[2]]

    model.get_input_embeddings().register_forward_hook(Counting().forward)
    with pytest.raises(ModelError, match=r"with no row before it a row gives other values"):
        check_joined_rows(model, COLLATE)


def test_a_model_that_gives_no_numbers_is_not_said_to_mix_rows() -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(ModelError, match="gives values that are not finite for 12 tokens"):
        check_joined_rows(model, COLLATE)


def test_a_model_that_cannot_take_them() -> None:
    model = tiny_model()
    original = model.forward
    model.forward = lambda input_ids, attention_mask, use_cache: original(input_ids, attention_mask)
    with pytest.raises(ModelError, match=r"cannot take rows that lie end to end .*unexpected keyword.*padding"):
        check_joined_rows(model, COLLATE)
