"""Tiny random MoE models of six families, built from configurations, and what tests do with them."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB = 64
LAYERS = 4
EXPERTS = 8
HIDDEN = 32

_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_experts_per_tok": 2,
}

FAMILIES: dict[str, dict[str, object]] = {
    "qwen3_moe": {"num_experts": EXPERTS, "intermediate_size": 64, "moe_intermediate_size": 16, "head_dim": 8},
    "phimoe": {"num_local_experts": EXPERTS, "intermediate_size": 16},
    "mixtral": {"num_local_experts": EXPERTS, "intermediate_size": 16},
    "olmoe": {"num_experts": EXPERTS, "intermediate_size": 16, "num_key_value_heads": 4},
    "deepseek_v3": {
        "n_routed_experts": EXPERTS,
        "intermediate_size": 64,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": 1,
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "gpt_oss": {
        "num_local_experts": EXPERTS,
        "intermediate_size": 16,
        "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
    },
}


def tiny_model(family: str = "qwen3_moe", *, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random model of `family` with four decoder layers of eight experts (DeepSeek-V3: the first is dense)."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **{**_COMMON, **FAMILIES[family], **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # The default initialisation routes all tokens alike; this spreads them.
            if name.endswith(("gate.weight", "router.weight")):
                parameter.normal_(std=0.5)
    return model.eval()


def batch_of(lengths: list[int], *, side: str = "right", seed: int = 0, extra: int = 0) -> dict[str, Tensor]:
    """A padded batch of random rows with these lengths; `extra` more padding than needed. A row depends on its place
    only.
    """
    width = max(lengths) + extra
    input_ids = torch.zeros((len(lengths), width), dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        tokens = torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(seed + row))
        place = slice(0, length) if side == "right" else slice(width - length, width)
        input_ids[row, place] = tokens
        attention_mask[row, place] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}
