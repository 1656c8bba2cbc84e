"""Tiny random models of any family, built from its default configuration without downloads.

The default configuration is walked, nested ones too, and every size that is known by its name is made small; what
depends on sizes (patterns of layers, ranks of latents) the configuration's own class then works out again. What a
name cannot tell stands in one table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from families.catalogue import Entry
from innerlingua.anatomy import find_moe_layers
from innerlingua.anatomy.layers import reach

LAYERS = 4
EXPERTS = 8
TOP_K = 2
VOCAB = 96
# Ids below are plain tokens; markers of images and the like lie above.
TEXT_TOKENS = 48

# name of a size -> tiny value. Only what the default configuration has is set.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_layers", "depth", "encoder_layers"), LAYERS),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k"), TOP_K),
    **dict.fromkeys(("top_k_experts",), TOP_K),
    **dict.fromkeys(("hidden_size", "d_model", "out_hidden_size", "text_hidden_size", "output_dim"), 32),
    **dict.fromkeys(("moe_hidden_size", "projection_hidden_dim", "projector_hidden_size", "router_hidden_size"), 32),
    **dict.fromkeys(("vision_output_dim", "projector_input_dim", "projector_output_dim"), 32),
    **dict.fromkeys(("num_attention_heads", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("swa_num_attention_heads", "num_sliding_attention_heads"), 4),
    **dict.fromkeys(("head_dim", "swa_head_dim", "kv_channels", "linear_head_dim"), 8),
    **dict.fromkeys(("linear_num_heads", "linear_num_key_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "dense_intermediate_size", "intermediate_size_mlp"), 32),
    **dict.fromkeys(("mlp_dim", "encoder_ffn_dim", "projection_intermediate_size"), 32),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "share_expert_dim", "shared_intermediate_size"), 16),
    **dict.fromkeys(("shared_experts_intermediate_size",), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), VOCAB),
    **dict.fromkeys(("num_expert_group", "n_group"), 2),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_chunk_size"), 64),
    **dict.fromkeys(("max_position_embeddings", "max_seq_len", "model_max_length", "rel_extent"), 128),
    **dict.fromkeys(("image_size",), 56),
    **dict.fromkeys(("patch_size",), 14),
    **dict.fromkeys(("num_position_embeddings",), 16),
    **dict.fromkeys(("hidden_size_per_layer_input",), 8),
    **dict.fromkeys(("index_head_dim", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("index_n_heads", "mamba_num_heads"), 4),
    # More than the rows have tokens: the scores of a sparse-attention indexer are often exactly zero, and ties fall
    # by chance.
    **dict.fromkeys(("index_topk", "indexer_budget"), 16),
    **dict.fromkeys(("mamba_n_heads",), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 8),
    **dict.fromkeys(("downsample_hidden_size",), 8),
    "mlp_only_layers": [0],
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "zero_expert_num": 2,
    "q_lora_rank": 16,
    "o_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "mamba_dt_rank": 4,
    "output_channels": 16,
    "kv_n_heads": 2,
}

# What the names above cannot tell, by configuration. Each line says why.
_DENSE_FIRST = ["dense", *["sparse"] * (LAYERS - 1)]
_EXTRAS: dict[str, dict[str, Any]] = {
    # Sizes that the default leaves out.
    "deepseek_ocr2_text": {"num_experts_per_tok": TOP_K, "mlp_layer_types": _DENSE_FIRST},
    "deepseek_v2": {"num_experts_per_tok": TOP_K, "topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1},
    "dots1": {"n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": TOP_K},
    "hunyuan_v1_moe": {"head_dim": 8},
    "gemma4_text": {
        "num_experts": EXPERTS,
        "top_k_experts": TOP_K,
        "moe_intermediate_size": 16,
        "enable_moe_block": True,
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 2,
        "output_gate_type": "sigmoid",
    },
    "step3p5": {"sliding_window": 64},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": VOCAB - 1},
    # Dense models unless told otherwise.
    "doge": {"is_moe": True, "num_experts": 16},
    # Kinds of layers by period or name: attention must be among the few layers.
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * (LAYERS // 2)},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention", "moe"], "n_groups": 2},
    # Dense layers first by a list of their own.
    "llama4_text": {"moe_layers": [1, 2, 3]},
    # Parts of a head for the three axes of a position.
    "glm4v_moe_text": {
        "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}
    },
    "ernie4_5_vl_moe_text": {"rope_parameters": {"rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    # Latent attention rotates a part of the head that must match.
    "mistral4": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 64,
        }
    },
    "dots3_note_text": {"head_dim": 16},
    # The default leaves out what released checkpoints have.
    "DbrxAttentionConfig": {"rope_theta": 1e4, "clip_qkv": 8.0},
    # Divisors of other sizes.
    "glm5_next_text": {"index_kpool": 2, "qk_rope_head_dim": 0},
    "dots3_note_vision_encoder": {"adapter_in_dim": 32, "adapter_out_dim": 32, "num_experts_per_tok": TOP_K},
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32, "conv_output_size": 80},
    "muse_spark_audio": {"hidden_sizes": [8, 8, 16, 16]},
    # One expert per token is all that it takes.
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(entry: Entry, **changes: Any) -> PreTrainedConfig:
    """The family's configuration with every known size made small; `changes` go to its text part."""
    config_class = CONFIG_MAPPING[entry.model_type]
    markers = iter(range(TEXT_TOKENS, VOCAB))
    config = config_class(**_shrunk(config_class(), markers, changes))
    for nested in (config, config.get_text_config()):
        nested.pad_token_id, nested.bos_token_id, nested.eos_token_id = 0, 1, 2
    return config


def tiny_model(entry: Entry, *, seed: int = 0, spread: bool = True, **changes: Any) -> PreTrainedModel:
    """A random model of the family in evaluation mode, with `spread` routers that send tokens to different experts."""
    torch.manual_seed(seed)
    model = getattr(transformers, entry.auto_class).from_config(tiny_config(entry, **changes), dtype=torch.float32)
    if not spread:
        return model.eval()
    with torch.no_grad():
        for layer in find_moe_layers(model):
            # Routers that are drawn at their usual size send all tokens the same way, and a correction bias starts at
            # zero.
            for parameter in layer.router.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.5)
            bias = reach(layer.family.bias, layer.router, layer.block) if layer.family.bias else None
            if bias is not None:
                bias.normal_(std=0.2)
                if layer.family.last_skips:
                    bias[-1] = -1.0  # what loading a checkpoint sets, whatever it holds
            scale = reach(layer.family.expert_scale, layer.router) if layer.family.expert_scale else None
            if scale is not None:
                scale.uniform_(0.5, 2.0)
        for table in model.buffers():
            if not table.is_floating_point() and table.dim() == 2 and table.shape[0] == VOCAB:  # token id -> experts
                table.copy_(torch.stack([torch.randperm(EXPERTS)[: table.shape[1]] for _ in range(table.shape[0])]))
    return model.eval()


def _shrunk(config: PreTrainedConfig, markers: Iterator[int], changes: Mapping[str, Any]) -> dict[str, Any]:
    given = config.to_dict()
    depth = next(
        (given[name] for name in ("num_hidden_layers", "n_layers", "num_layers", "depth") if name in given), None
    )
    heads = next((given[name] for name in ("num_attention_heads", "n_heads") if name in given), None)
    tiny: dict[str, Any] = {}
    for name, value in given.items():
        if name in config.sub_configs:
            nested = getattr(config, name)
            if isinstance(nested, PreTrainedConfig):
                tiny[name] = type(nested)(**_shrunk(nested, markers, changes if name == "text_config" else {}))
        elif name == "per_layer_config":
            tiny[name] = {}
        elif name in ("num_key_value_heads", "swa_num_key_value_heads"):
            tiny[name] = 4 if value == heads else 2
        elif isinstance(value, list) and len(value) == depth:
            tiny[name] = _pattern(value)
        elif name in _SIZES and value is not None:
            per_part = isinstance(value, list) and not isinstance(_SIZES[name], list)
            tiny[name] = [_SIZES[name]] * len(value) if per_part else _SIZES[name]
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            tiny[name] = next(markers)
    tiny |= _EXTRAS.get(config.model_type or type(config).__name__, {})
    if "text_config" not in config.sub_configs:
        tiny |= changes
    return tiny


def _pattern(per_layer: list[Any]) -> list[Any]:
    """A list with a value per layer, for the tiny depth: each kind in turn; dense feed-forward blocks first."""
    kinds = sorted(set(per_layer), key=per_layer.index)
    if set(kinds) <= {"dense", "sparse"}:
        return ["dense", *["sparse"] * (LAYERS - 1)]
    return [kinds[layer % len(kinds)] for layer in range(LAYERS)]
