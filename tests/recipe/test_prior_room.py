"""The prior's model on a device that is too small for it."""

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from innerlingua.recipe.prior import on_device


@pytest.fixture(scope="module")
def model() -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, moe_intermediate_size=8, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_experts=4, num_experts_per_tok=2,
        mlp_only_layers=[1], decoder_sparse_step=1,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config).eval()


GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))


@pytest.mark.parametrize("place", ["cpu", GPU])
@pytest.mark.parametrize(("share", "visitors"), [(2.0, 0), (1.4, 2), (0.1, 4)])
def test_only_what_does_not_fit_visits(model: Qwen3MoeForCausalLM, share: float, visitors: int, place: str) -> None:
    tokens = torch.tensor([[1, 2, 3, 4]])
    device = torch.device(place)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    said: list[str] = []
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    with torch.no_grad():
        expected = model(tokens).logits
        with on_device(model, device, free=int(share * size), say=said.append):
            hooked = [layer for layer in model.model.layers if layer._forward_pre_hooks]
            torch.testing.assert_close(model(tokens.to(device)).logits.cpu(), expected)
    assert len(hooked) == visitors
    assert bool(said) == bool(visitors)
    assert not [layer for layer in model.model.layers if layer._forward_pre_hooks or layer._forward_hooks]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
