"""What every family must show. One function per check; each says in a word or two what was verified, or fails.

The references are computed here from the model's own weights and hooks, apart from the package's code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from families.catalogue import Entry
from families.configs import EXPERTS, LAYERS, TEXT_TOKENS, TOP_K, tiny_model
from innerlingua.anatomy import (
    MoELayer,
    capture_routing,
    check_joined_rows,
    check_trainable,
    find_moe_layers,
    lora_targets,
    parameter_parts,
)
from innerlingua.anatomy.layers import on_routing, reach
from innerlingua.errors import ModelError
from innerlingua.routing import RoutingAlignment

# Configuration attributes with which a family puts dense feed-forward blocks before its experts.
_DENSE_FIRST = ("first_k_dense_replace", "mlp_only_layers", "num_dense_layers", "moe_layer_start_index", "moe_layers")


_ADAPTED = ["router", "experts", "attention"]


def token_rows(*lengths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, TEXT_TOKENS, (length,), generator=generator) for length in lengths]


def padded(rows: list[Tensor], *, side: str = "right", extra: int = 0) -> dict[str, Tensor]:
    width = max(len(row) for row in rows) + extra
    input_ids = torch.zeros((len(rows), width), dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for position, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        input_ids[position, place] = row
        attention_mask[position, place] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def finds_layers(entry: Entry) -> str:
    """Each router runs inside the decoder layer whose index it was given; experts and top-k are the configuration's."""
    model = tiny_model(entry)
    layers = find_moe_layers(model)
    text = model.config.get_text_config().to_dict()
    assert len(layers) >= 2, f"only {len(layers)} MoE layers"
    dense_first = any(name in text for name in _DENSE_FIRST) or "dense" in (text.get("mlp_layer_types") or ())
    assert not dense_first or layers[0].index > 0, "no dense layer before the first MoE layer"
    stacks = [
        m for m in model.modules() if isinstance(m, nn.ModuleList) and any(c is layers[0].decoder_layer for c in m)
    ]
    assert len(stacks) == 1
    assert len(stacks[0]) == LAYERS
    running: list[int] = []
    seen: dict[int, int] = {}

    def leave(*_: Any) -> None:
        running.pop()

    for index, decoder_layer in enumerate(stacks[0]):
        decoder_layer.register_forward_pre_hook(lambda *_, index=index: running.append(index))
        decoder_layer.register_forward_hook(leave)
    for layer in layers:
        on_routing(layer, lambda *_, layer=layer: seen.__setitem__(layer.index, running[-1]))
    model(**padded(token_rows(5)), use_cache=False)
    assert seen == {layer.index: layer.index for layer in layers}
    extra = (text.get("zero_expert_num") or 0) + (1 if layers[0].family.last_skips else 0)
    assert {layer.num_experts for layer in layers} == {EXPERTS + extra}
    assert {layer.top_k for layer in layers} == {1 if layers[0].family.last_skips else TOP_K}
    return f"{len(layers)} of {LAYERS}"


def captures_logits(entry: Entry) -> str:
    """What is captured equals a recomputation from the router's input and its own weights."""
    model = tiny_model(entry)
    layers = find_moe_layers(model)
    batch = padded(token_rows(7, 4))
    with torch.no_grad(), _routed(layers) as seen, capture_routing(model, per_token=True) as routing:
        model(**batch, use_cache=False)
    for position, layer in enumerate(layers):
        recomputed = _recomputed_logits(layer, *seen[layer.index]["inputs"])
        torch.testing.assert_close(seen[layer.index]["logits"].reshape(-1, layer.num_experts).float(), recomputed)
        scores = _scores(recomputed, layer.score)
        expected = scores / scores.sum(dim=-1, keepdim=True)
        captured = routing.per_token[:, :, position].reshape(-1, layer.num_experts)
        torch.testing.assert_close(captured, expected, atol=1e-5, rtol=1e-4)
    return "recomputed"


def uses_its_choice(entry: Entry) -> str:
    """The experts that get a gradient are those that the captured logits choose, by the family's own bias and
    groups."""
    model = tiny_model(entry)
    layers = find_moe_layers(model)
    with _routed(layers) as seen:
        model(**padded(token_rows(3)), use_cache=False).logits.square().mean().backward()
    compared = 0
    for layer in layers:
        chosen = _reference_choice(layer, seen[layer.index]["logits"].detach().reshape(-1, layer.num_experts))
        used = set(chosen.flatten().tolist())
        matrices = _expert_matrices(layer)
        experts = min(parameter.shape[0] for parameter in matrices)  # identity experts have none
        for parameter in matrices:
            touched = set(parameter.grad.flatten(1).abs().amax(dim=1).nonzero().flatten().tolist())
            touched = {expert for expert in touched if expert < experts}
            assert touched == {expert for expert in used if expert < experts}, f"layer {layer.index}: {touched}, {used}"
            compared += 1
    assert compared
    return "by gradient"


def ignores_padding(entry: Entry) -> str:
    """Pooled routing of a row does not depend on its padding. Right is what the trainer does; left where it holds."""
    model = tiny_model(entry)
    rows = token_rows(6, 3, 9)
    with torch.no_grad():
        alone = torch.cat([_pooled(model, padded([row])) for row in rows])
        right = _pooled(model, padded(rows, extra=2))
        left = _pooled(model, padded(rows, side="left", extra=2))
    torch.testing.assert_close(right, alone, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(alone[0], alone[2], atol=1e-3), "rows route alike: the comparison says nothing"
    return "both sides" if torch.allclose(left, alone, atol=2e-5, rtol=1e-4) else "right only"


def keeps_packed_rows_apart(entry: Entry) -> str:
    """Pooled routing of rows that lie end to end is that of each alone; or such rows are refused before training."""
    model = tiny_model(entry)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    try:
        check_joined_rows(model, collate)
    except ModelError:
        return "refused"
    rows = token_rows(6, 3, 9)
    batch = collate([{"input_ids": row.tolist(), "labels": row.tolist()} for row in rows])
    del batch["labels"]
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor([6, 3, 9]))[None]
    with torch.no_grad():
        alone = torch.cat([_pooled(model, padded([row])) for row in rows])
        with capture_routing(model, segments=segments) as routing:
            model(**batch, use_cache=False)
    torch.testing.assert_close(routing.pooled, alone, atol=2e-5, rtol=1e-4)
    return "equal"


def gets_a_gradient(entry: Entry) -> str:
    """The alignment term, with its own check, moves every router matrix of the aligned layers."""
    model = tiny_model(entry)
    layers = find_moe_layers(model)
    loss = _alignment(model, [layer.index for layer in layers])
    loss.backward()
    for layer in layers:
        matrices = [p for p in layer.router.parameters() if p.dim() > 1 and p.requires_grad]
        assert matrices
        assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in matrices), (
            f"none at layer {layer.index}"
        )
    return "every router"


def agrees_under_checkpointing(entry: Entry) -> str:
    """The gradients with and without gradient checkpointing are equal."""
    model = tiny_model(entry)
    if not model.supports_gradient_checkpointing:
        return "not in transformers"
    layers = [layer.index for layer in find_moe_layers(model)]

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model.train()
        torch.manual_seed(1)
        _alignment(model, layers, with_loss=True).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(
            checkpointed[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )
    return "equal"


def survives_training(entry: Entry) -> str:
    """One step of loss plus alignment changes the routing; saved and loaded, the model gives the same logits."""
    model = tiny_model(entry)
    layers = [layer.index for layer in find_moe_layers(model)]
    batch = padded(token_rows(6, 4, seed=3))
    with torch.no_grad():
        before = _pooled(model, batch)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(1)
    _alignment(model, layers, with_loss=True).backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        after, logits = _pooled(model, batch), model(**batch, use_cache=False).logits
    assert not torch.allclose(before, after, atol=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = getattr(transformers, entry.auto_class).from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch, use_cache=False).logits, logits, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(_pooled(loaded, batch), after, atol=1e-6, rtol=1e-5)
    return "same logits"


def takes_adapters(entry: Entry) -> str:
    """LoRA on routers, experts and attention: each adapter learns; plain PEFT loads it, plain transformers the merged
    model."""
    model = tiny_model(entry)
    layers = [layer.index for layer in find_moe_layers(model)]
    family = find_moe_layers(model)[0].family
    parts = [part for part in _ADAPTED if part not in family.no_adapters]
    for part in family.no_adapters:
        with pytest.raises(ModelError, match=f"cannot be put on {part}"):
            lora_targets(model, [_ADAPTED[0] if part == "all" else part])
    if "all" in family.no_adapters:
        return "refused"
    modules, parameters = lora_targets(model, parts)
    torch.manual_seed(5)
    config = LoraConfig(
        r=2, target_modules=modules, target_parameters=parameters or None, lora_dropout=0.0, init_lora_weights=False
    )
    adapted = get_peft_model(model, config).eval()
    check_trainable(adapted, [], adapted=parts)
    _alignment(adapted, layers, with_loss=True).backward()
    part_of = parameter_parts(adapted)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and part_of[name] == "router":
            assert parameter.grad is not None, f"{name}: no gradient"
            assert bool(parameter.grad.abs().max() > 0), f"{name}: gradient is zero"
    for part in parts:
        grads = [p.grad for name, p in adapted.named_parameters() if p.requires_grad and part_of[name] == part]
        assert any(grad is not None and bool(grad.abs().max() > 0) for grad in grads), (
            f"the adapters on {part} learn nothing"
        )
    batch = padded(token_rows(6, 4, seed=3))
    with torch.no_grad():
        base = tiny_model(entry)(**batch, use_cache=False).logits
        logits = adapted(**batch, use_cache=False).logits
    assert not torch.allclose(base, logits, atol=1e-4)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        adapted.save_pretrained(f"{folder}/adapter")
        again = PeftModel.from_pretrained(tiny_model(entry), f"{folder}/adapter").eval()
        torch.testing.assert_close(again(**batch, use_cache=False).logits, logits, atol=1e-5, rtol=1e-4)
        merged = adapted.merge_and_unload()
        merged.save_pretrained(f"{folder}/merged")
        plain = getattr(transformers, entry.auto_class).from_pretrained(f"{folder}/merged", dtype=torch.float32).eval()
        torch.testing.assert_close(plain(**batch, use_cache=False).logits, logits, atol=1e-4, rtol=1e-3)
    return ", ".join(parts)


CHECKS: dict[str, Callable[[Entry], str]] = {
    "layers": finds_layers,
    "logits": captures_logits,
    "experts used": uses_its_choice,
    "padding": ignores_padding,
    "packing": keeps_packed_rows_apart,
    "gradient": gets_a_gradient,
    "checkpointing": agrees_under_checkpointing,
    "train, save, load": survives_training,
    "LoRA": takes_adapters,
}


# -- references -------------------------------------------------------------------------------------------------------


@contextmanager
def _routed(layers: list[MoELayer]) -> Iterator[dict[int, dict[str, Any]]]:
    seen: dict[int, dict[str, Any]] = {layer.index: {} for layer in layers}
    handles = []
    for layer in layers:

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], index: int = layer.index) -> None:
            seen[index]["inputs"] = [
                a.detach().clone() if isinstance(a, Tensor) else a for a in (*args, *kwargs.values())
            ]

        def after(logits: Tensor, output: Any, index: int = layer.index) -> None:
            seen[index]["logits"] = logits

        handles.append(layer.router.register_forward_pre_hook(before, with_kwargs=True))
        handles += on_routing(layer, after)
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _recomputed_logits(layer: MoELayer, x: Tensor, *others: Any) -> Tensor:
    """Linear routers: x W^T + b, with what a router does before and after it, told from its own parts."""
    router = layer.router
    parts = dict(router.named_modules())
    if "router_mlp" in parts:  # a small network that also hears the router of the layer before
        hidden = parts["down_proj"](x)
        states = others[0] if others else None
        if states is not None and hasattr(router, "router_states_scale"):
            hidden = hidden + states * router.router_states_scale
        return parts["router_mlp"](hidden).detach().float().reshape(-1, layer.num_experts)
    if hasattr(router, "scalar_root_size"):
        x = (
            x
            * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + router.eps)
            * router.scale
            * router.scalar_root_size
        )
    (weight,) = [p.detach() for p in router.parameters() if p.dim() == 2 and p.shape[0] > 1]
    (bias,) = [p.detach() for name, p in router.named_parameters() if name == "bias"] or [torch.zeros(len(weight))]
    logits = (x.float().reshape(-1, x.shape[-1]) @ weight.float().T + bias.float())[:, : layer.num_experts]
    if hasattr(router, "output_multiplier"):
        logits = logits * router.output_multiplier
    cap = reach("router_logit_softcapping", router)
    if cap:
        logits = torch.tanh(logits / cap) * cap
    return logits.detach()


def _scores(logits: Tensor, score: str) -> Tensor:
    if score == "softmax":
        return logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    return 1 / (1 + (-logits).exp()) if score.startswith("sigmoid") else functional.softplus(logits).sqrt()


def _reference_choice(layer: MoELayer, logits: Tensor) -> Tensor:
    """(tokens, k), token by token: score, correction bias, best groups, top-k."""
    router = layer.router
    tensors = {**dict(layer.block.named_buffers()), **dict(layer.block.named_parameters())}
    corrections = [tensor for name, tensor in tensors.items() if name.rpartition(".")[2] in _CORRECTIONS]
    correction = corrections[0].detach().reshape(-1) if corrections else torch.zeros(layer.num_experts)
    base = logits if layer.family.bias_on == "logits" else _scores(logits, layer.score)
    chosen = []
    for rank in base + correction:
        groups, kept = reach("num_group", router), reach("topk_group", router)
        if groups and groups > 1 and reach("topk_method", router) != "greedy":
            best = 1 if hasattr(router, "topk_method") else 2
            members = rank.view(groups, -1)
            order = members.topk(best).values.sum(-1).argsort(descending=True)[:kept]
            allowed = torch.zeros_like(members, dtype=torch.bool)
            allowed[order] = True
            rank = rank.masked_fill(~allowed.view(-1), -torch.inf)
        chosen.append(rank.argsort(descending=True)[: layer.top_k])
    return torch.stack(chosen)


_CORRECTIONS = {"e_score_correction_bias", "balancing_biases", "expert_bias"}


def _expert_matrices(layer: MoELayer) -> list[Tensor]:
    """The weights of the routed experts, the first dimension the expert."""
    matrices = [parameter for parameter in layer.experts.parameters() if parameter.dim() == 3]
    if matrices:
        return matrices
    stacked = []
    for parameter in layer.experts.parameters():  # experts one below the other in a matrix
        assert parameter.grad is not None
        per_expert = parameter.grad.view(layer.num_experts, -1)
        stacked.append(nn.Parameter(torch.zeros_like(per_expert)))
        stacked[-1].grad = per_expert
    return stacked


def _pooled(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    with capture_routing(model) as routing:
        model(**batch, use_cache=False)
    return routing.pooled


def _alignment(model: PreTrainedModel, layers: list[int], *, with_loss: bool = False) -> Tensor:
    """The alignment loss of two pairs with a live anchor, with the model's own loss when asked for."""
    term = RoutingAlignment(anchor="live", layers=layers, weight=1.5)
    term.check(model)
    targets, anchors = token_rows(6, 8, seed=1), token_rows(7, 5, seed=2)
    rows = [
        {"id": str(position), "input_ids": target.tolist(), "anchor_input_ids": anchor.tolist()}
        for position, (target, anchor) in enumerate(zip(targets, anchors, strict=True))
    ]
    inputs = padded(targets)
    batch = {**inputs, **term.collate(rows, inputs["input_ids"].shape[1])}
    with term.capture(model, batch) as captured:
        output = model(
            **inputs, labels=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100), use_cache=False
        )
    total, pairs = term.loss(captured, batch)
    loss = term.weight * total / pairs
    return loss + output.loss if with_loss else loss
