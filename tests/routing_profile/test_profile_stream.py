"""The pass against a naive one, what it leaves alone, and what it refuses."""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from parallel_rows import sentences
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Tokenizer

from innerlingua import capture_routing, find_moe_layers
from innerlingua.errors import DataError, ModelError
from innerlingua.routing.profile import RoutingProfile, profile_routing, read_sides
from innerlingua.routing.profile.bootstrap import poisson_weights
from innerlingua.routing.profile.stream import measure_window
from innerlingua.routing.profile.totals import Totals
from innerlingua.routing.profile.windows import Skipped, batches_of, windows_of
from tiny import tiny_model

TOP, THRESHOLD = 3, 0.4


@pytest.fixture(scope="module")
def profile(model: Any, reader: Any, parallel: Dataset) -> RoutingProfile:
    # Small batches, so that sides of other ids and lengths share them.
    return profile_routing(
        model,
        reader,
        read_sides(parallel),
        label="tiny",
        top_experts=TOP,
        threshold=THRESHOLD,
        batch_tokens=90,
        samples=4,
    )


def _entropy(p: np.ndarray) -> float:
    return -sum(float(x) * math.log(float(x)) for x in p if x > 0)


def _js(p: np.ndarray, q: np.ndarray) -> float:
    return _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2


@pytest.fixture(scope="module")
def naive(model: Any, reader: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One sentence at a time, one number at a time, in double precision."""
    tokens: dict[tuple[str, str], np.ndarray] = {}
    for row in rows:
        for code, text in row["text"].items():
            ids = reader(text + reader.eos_token, return_tensors="pt").input_ids
            with torch.no_grad(), capture_routing(model, per_token=True) as routing:
                model(input_ids=ids)
            tokens[row["id"], code] = routing.per_token[0].double().numpy()
    codes = list(rows[0]["text"])
    ids = [row["id"] for row in rows]
    layers, experts = next(iter(tokens.values())).shape[1:]
    pooled = {key: value.mean(axis=0) for key, value in tokens.items()}
    counts = {key: np.zeros((layers, experts)) for key in tokens}
    for key, value in tokens.items():
        for token in value:
            for layer in range(layers):
                for expert in np.argsort(-token[layer])[:2]:
                    counts[key][layer, expert] += 1
    result: dict[str, Any] = {"ids": ids, "codes": codes, "pooled": pooled, "counts": counts, "tokens": tokens}

    def top(key: tuple[str, str], layer: int) -> set[int]:
        order = sorted(range(experts), key=lambda e: (counts[key][layer, e], pooled[key][layer, e]), reverse=True)
        return set(order[:2])

    js, normalised, overlap = ({code: np.zeros((len(ids), layers)) for code in codes} for _ in range(3))
    for code in codes:
        for at, name in enumerate(ids):
            for layer in range(layers):
                p, q = pooled[name, code][layer], pooled[name, "eng_Latn"][layer]
                js[code][at, layer] = _js(p, q)
                room = math.log(experts) - (_entropy(p) + _entropy(q)) / 2
                normalised[code][at, layer] = _js(p, q) / room
                mine, theirs = top((name, code), layer), top((name, "eng_Latn"), layer)
                overlap[code][at, layer] = len(mine & theirs) / len(mine | theirs)
    return {**result, "js": js, "js_normalised": normalised, "overlap": overlap}


@pytest.mark.parametrize("measure", ["js", "js_normalised", "overlap"])
def test_pair_measures_agree_with_a_naive_pass(profile: RoutingProfile, naive: dict[str, Any], measure: str) -> None:
    stored = profile.record["measures"][measure]
    assert stored["eng_Latn"] is None
    for code in ("hin_Deva", "swh_Latn"):
        assert stored[code]["mean"] == pytest.approx(naive[measure][code].mean(axis=0).tolist(), abs=1e-6)


def test_entropy_is_the_mean_over_tokens(profile: RoutingProfile, naive: dict[str, Any]) -> None:
    for code in naive["codes"]:
        every = np.concatenate([naive["tokens"][name, code] for name in naive["ids"]])
        expected = [np.mean([_entropy(token) for token in every[:, layer]]) for layer in range(every.shape[1])]
        assert profile.record["measures"]["entropy"][code]["mean"] == pytest.approx(expected, abs=1e-6)


def test_load_agrees_with_counting(profile: RoutingProfile, naive: dict[str, Any]) -> None:
    for row, code in enumerate(profile.record["languages"]):
        counts = sum(naive["counts"][name, code] for name in naive["ids"])
        share = counts / counts.sum(axis=1, keepdims=True)
        assert profile.load[row].numpy() == pytest.approx(share, abs=1e-6)
        stored = profile.record["measures"]
        assert stored["load_cv"][code]["mean"] == pytest.approx(share.std(axis=1) / share.mean(axis=1), abs=1e-6)
        assert stored["dead_experts"][code]["mean"] == (counts == 0).sum(axis=1).tolist()


def test_shared_and_exclusive_experts_agree_with_counting(profile: RoutingProfile, naive: dict[str, Any]) -> None:
    codes = list(profile.record["languages"])
    layers = len(profile.record["model"]["layers"])
    for layer in range(layers):
        kept: dict[str, dict[int, float]] = {}
        for code in codes:
            counts = sum(naive["counts"][name, code] for name in naive["ids"])[layer]
            order = sorted(range(len(counts)), key=lambda e: counts[e], reverse=True)[:TOP]
            kept[code] = {expert: counts[expert] / counts.sum() for expert in order if counts[expert]}
        for code in codes:
            shared = exclusive = 0
            for expert in kept[code]:
                total = sum(kept[other].get(expert, 0) for other in codes)
                shares = [kept[other].get(expert, 0) / total for other in codes]
                shared += max(shares) < THRESHOLD
                exclusive += kept[code][expert] / total > THRESHOLD
            stored = profile.record["measures"]
            assert stored["shared_experts"][code]["mean"][layer] == pytest.approx(shared / len(kept[code]), abs=1e-6)
            assert stored["exclusive_experts"][code]["mean"][layer] == pytest.approx(
                exclusive / len(kept[code]), abs=1e-6
            )


def test_mean_routing_and_the_js_of_means(profile: RoutingProfile, naive: dict[str, Any]) -> None:
    means = {code: np.mean([naive["pooled"][name, code] for name in naive["ids"]], axis=0) for code in naive["codes"]}
    for row, code in enumerate(profile.record["languages"]):
        assert profile.mean[row].numpy() == pytest.approx(means[code], abs=1e-6)
        if code != "eng_Latn":
            expected = [_js(means[code][layer], means["eng_Latn"][layer]) for layer in range(len(means[code]))]
            assert profile.record["measures"]["js_of_means"][code]["mean"] == pytest.approx(expected, abs=1e-6)


def test_languages_among_each_other(profile: RoutingProfile, naive: dict[str, Any]) -> None:
    between = profile.record["between_languages"]
    for i, a in enumerate(between["order"]):
        for j, b in enumerate(between["order"]):
            pooled = naive["pooled"]
            for layer, table in enumerate(between["js_by_layer"]):
                values = [_js(pooled[name, a][layer], pooled[name, b][layer]) for name in naive["ids"]]
                assert table[i][j] == pytest.approx(np.mean(values), abs=1e-6)
            assert between["ids"][i][j] == len(naive["ids"])


def test_the_interval_between_languages_is_that_of_weighted_means(
    profile: RoutingProfile, naive: dict[str, Any]
) -> None:
    between, pooled = profile.record["between_languages"], naive["pooled"]
    weights = poisson_weights(naive["ids"], seed=0, replicates=200)
    layers = len(profile.record["model"]["layers"])
    for i, a in enumerate(between["order"]):
        for j, b in enumerate(between["order"]):
            if i == j:
                assert (between["js"][i][j], between["low"][i][j], between["high"][i][j]) == (0, None, None)
                continue
            of_ids = [
                np.mean([_js(pooled[name, a][layer], pooled[name, b][layer]) for layer in range(layers)])
                for name in naive["ids"]
            ]
            draws = (weights.T @ of_ids) / weights.sum(axis=0)
            low, high = np.quantile(draws, [0.025, 0.975])
            assert between["js"][i][j] == pytest.approx(np.mean(of_ids), abs=1e-6)
            assert (between["low"][i][j], between["high"][i][j]) == (
                pytest.approx(low, abs=1e-6),
                pytest.approx(high, abs=1e-6),
            )


def test_replicates_are_weighted_estimates(profile: RoutingProfile, naive: dict[str, Any]) -> None:
    weights = poisson_weights(naive["ids"], seed=0, replicates=200)
    row = list(profile.record["languages"]).index("swh_Latn")
    expected = (weights.T @ naive["js"]["swh_Latn"]) / weights.sum(axis=0)[:, None]
    assert profile.replicates["js"][:, row].numpy() == pytest.approx(expected, abs=1e-6)
    low, high = np.quantile(expected, [0.025, 0.975], axis=0)
    assert profile.record["measures"]["js"]["swh_Latn"]["low"] == pytest.approx(low, abs=1e-6)
    assert profile.record["measures"]["js"]["swh_Latn"]["high"] == pytest.approx(high, abs=1e-6)
    counts = np.stack([naive["counts"][name, "swh_Latn"] for name in naive["ids"]])
    drawn = np.einsum("nr,nle->rle", weights, counts)
    expected_cv = drawn.std(axis=2) / drawn.mean(axis=2)
    assert profile.replicates["load_cv"][:, row].numpy() == pytest.approx(expected_cv, abs=1e-5)


def test_samples_hold_the_text_and_the_choice(profile: RoutingProfile, naive: dict[str, Any], rows: Any) -> None:
    texts = {row["id"]: row["text"] for row in rows}
    assert len(profile.samples) == 4
    for pair in profile.samples:
        for side, code in (("target", pair["language"]), ("anchor", "eng_Latn")):
            assert "".join(pair[side]["tokens"]) == texts[pair["id"]][code] + "</s>"
            probabilities = naive["tokens"][pair["id"], code]
            for layer, chosen in enumerate(pair[side]["experts"]):
                for token, experts in enumerate(chosen):
                    assert set(experts) == set(np.argsort(-probabilities[token, layer])[:2])
        at = naive["ids"].index(pair["id"])
        assert pair["js"] == pytest.approx(naive["js"][pair["language"]][at].tolist(), abs=1e-5)


def test_batches_windows_and_order_change_nothing(model: Any, reader: Any, rows: Any, profile: RoutingProfile) -> None:
    other = profile_routing(
        model, reader, read_sides(Dataset.from_list(rows[::-1])), label="tiny", top_experts=TOP, threshold=THRESHOLD,
        batch_tokens=10_000, samples=4,
    )  # fmt: skip
    for name, replicates in profile.replicates.items():
        torch.testing.assert_close(other.replicates[name], replicates, atol=1e-6, rtol=1e-5, equal_nan=True)
    torch.testing.assert_close(other.mean, profile.mean, atol=1e-6, rtol=0)


def test_windows_hold_whole_ids_and_an_anchor_once(reader: Any, rows: Any) -> None:
    sides = read_sides(Dataset.from_list(rows))
    windows = list(windows_of(sides, reader, Skipped(), max_length=None, size=7))
    assert [len(window.token_ids) for window in windows] == [9, 9, 9, 9]
    for window in windows:
        assert window.language.count(0) == len(window.ids) == 3
        assert all(window.language[at] == 0 for at in window.anchor)
        for batch in batches_of(window, batch_tokens=60, pad_token_id=0):
            rows_, width = batch.input_ids.shape
            assert rows_ == 1 or rows_ * width <= 60
            lengths = batch.attention_mask.sum(dim=1).tolist()
            assert lengths == [len(window.token_ids[side]) for side in batch.sides]


def _live_bytes() -> int:
    gc.collect()
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in gc.get_objects()
        if type(t) in (torch.Tensor, torch.nn.Parameter) and t.device.type == "cpu"
    }
    return sum(storages.values())


def test_memory_does_not_grow_with_the_number_of_sentences(model: Any, reader: Any) -> None:
    sides = read_sides(Dataset.from_list(sentences(50)))
    layers = find_moe_layers(model)
    totals = Totals(languages=3, layers=4, experts=8, top_k=2, replicates=50, seed=0, device=torch.device("cpu"))
    live = []
    with torch.no_grad():
        for window in windows_of(sides, reader, Skipped(), max_length=None, size=30):
            totals.add(window, measure_window(window, layers, score=None, batch_tokens=500, pad_token_id=0))
            live.append(_live_bytes())
    assert len(live) == 5
    assert live[-1] <= live[1]


def test_the_model_keeps_its_mode_and_its_hooks(model: Any, reader: Any, parallel: Dataset) -> None:
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    model.train()
    state = torch.get_rng_state()
    profile_routing(model, reader, read_sides(parallel, limit=2), label="x")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(module.training for module in model.modules())
    model.eval()
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks


@pytest.mark.parametrize("family", ["deepseek_v3", "gpt_oss", "olmoe"])
def test_other_families_are_profiled(family: str, reader: Any, parallel: Dataset) -> None:
    other = tiny_model(family, vocab_size=len(reader), max_position_embeddings=256)
    record = profile_routing(other, reader, read_sides(parallel, limit=3), label="x").record
    layers = record["model"]["layers"]
    assert layers == ([1, 2, 3] if family == "deepseek_v3" else [0, 1, 2, 3])
    assert record["model"]["depth"] == 4
    js = record["measures"]["js"]["swh_Latn"]["mean"]
    assert all(0 < value < math.log(2) for value in js)


def test_equal_text_on_both_sides_has_no_divergence(model: Any, reader: Any, rows: Any) -> None:
    same = [{"id": row["id"], "text": dict.fromkeys(("eng_Latn", "swh_Latn"), row["text"]["eng_Latn"])} for row in rows]
    record = profile_routing(model, reader, read_sides(Dataset.from_list(same)), label="x", batch_tokens=60).record
    assert max(map(abs, record["measures"]["js"]["swh_Latn"]["mean"])) < 1e-6
    assert record["measures"]["overlap"]["swh_Latn"]["mean"] == [1.0] * 4
    assert record["data"]["same_as_anchor"] == {"swh_Latn": 12}


# -- what is left out is counted --------------------------------------------------------------------------------------


def _counts(
    model: Any, reader: Any, rows: list[dict[str, Any]], **options: Any
) -> tuple[dict[str, Any], RoutingProfile]:
    found = profile_routing(model, reader, read_sides(Dataset.from_list(rows)), label="x", **options)
    return found.record["data"], found


def test_languages_missing_in_some_rows_are_counted(model: Any, reader: Any, rows: Any) -> None:
    changed = [{**row, "text": dict(row["text"])} for row in rows]
    changed[0]["text"]["swh_Latn"] = None
    changed[1]["text"]["eng_Latn"] = None
    data, found = _counts(model, reader, changed)
    assert data["skipped"]["missing_side"] == {"eng_Latn": 1, "swh_Latn": 1}
    assert data["skipped"]["without_anchor"] == 2
    assert data["pairs_read"] == 23
    assert data["pairs"] == 21
    pairs = {code: entry["pairs"] for code, entry in found.record["languages"].items()}
    assert pairs == {"eng_Latn": 11, "hin_Deva": 11, "swh_Latn": 10}
    between = found.record["between_languages"]
    assert between["ids"][1][2] == 10
    assert between["ids"] == [list(column) for column in zip(*between["ids"], strict=True)]


def test_a_language_pair_counts_over_the_ids_that_both_have(model: Any, reader: Any, rows: Any) -> None:
    def without(row: dict[str, Any], code: str) -> dict[str, Any]:
        return {**row, "text": {key: text for key, text in row["text"].items() if key != code}}

    mixed = [without(row, "swh_Latn" if at % 3 == 0 else "hin_Deva") for at, row in enumerate(rows)]
    several = [*mixed[:9], *rows[9:]]
    _, found = _counts(model, reader, several)
    _, both = _counts(model, reader, rows[9:])
    between, alone = (one.record["between_languages"] for one in (found, both))
    assert between["ids"][1][2] == 3
    assert between["js"][1][2] == pytest.approx(alone["js"][1][2], abs=1e-6)
    assert between["low"][1][2] == pytest.approx(alone["low"][1][2], abs=1e-6)
    _, never = _counts(model, reader, mixed)
    between = never.record["between_languages"]
    assert (between["ids"][1][2], between["js"][1][2], between["low"][1][2]) == (0, None, None)


def test_empty_sentences_are_counted(model: Any, reader: Any, rows: Any) -> None:
    changed = [{**row, "text": dict(row["text"])} for row in rows]
    changed[0]["text"]["swh_Latn"] = "  "
    changed[1]["text"]["eng_Latn"] = ""
    data, _ = _counts(model, reader, changed)
    assert data["skipped"]["empty"] == 3
    assert data["skipped_by_language"]["empty"] == {"hin_Deva": 1, "swh_Latn": 2}
    assert data["pairs"] == data["pairs_read"] - 3 == 21


def test_pairs_longer_than_the_context_are_counted(model: Any, reader: Any, rows: Any) -> None:
    changed = [{**row, "text": dict(row["text"])} for row in rows]
    changed[0]["text"]["hin_Deva"] = "क " * 300
    changed[1]["text"]["eng_Latn"] = "a " * 300
    data, found = _counts(model, reader, changed)
    assert found.record["settings"]["max_length"] == 256
    assert data["skipped_by_language"]["overlong"] == {"hin_Deva": 2, "swh_Latn": 1}
    assert data["skipped"]["overlong"] == 3
    assert found.record["languages"]["eng_Latn"]["pairs"] == 11


def test_nothing_left_says_why(model: Any, reader: Any, rows: Any) -> None:
    with pytest.raises(DataError, match=r"no pair is left of 24: .* 24 with a side of more than 1 tokens"):
        _counts(model, reader, rows, max_length=1)


def test_one_sentence_has_no_interval(model: Any, reader: Any, rows: Any) -> None:
    _, found = _counts(model, reader, rows[:1])
    entry = found.record["measures"]["js"]["swh_Latn"]
    assert entry["low"] is None
    assert entry["high"] is None
    assert len(entry["mean"]) == 4


def test_a_model_without_experts_is_refused(reader: Any, parallel: Dataset) -> None:
    config = LlamaConfig(
        vocab_size=len(reader), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ModelError, match="LlamaForCausalLM has no MoE layer"):
        profile_routing(LlamaForCausalLM(config), reader, read_sides(parallel), label="x")


def test_a_tokenizer_that_is_not_the_models_is_refused(reader: Any, parallel: Dataset) -> None:
    small = tiny_model(vocab_size=len(reader) - 60, max_position_embeddings=256)
    with pytest.raises(ModelError, match=r"the tokenizer is not the model's: it gives token \d+ \(id 's\d+', \w+\)"):
        profile_routing(small, reader, read_sides(parallel), label="x")


def test_a_tokenizer_without_a_vocabulary_is_refused(model: Any, parallel: Dataset) -> None:
    # What transformers makes for a folder of this family in which no tokenizer was saved.
    with pytest.raises(ModelError, match="has no vocabulary"):
        profile_routing(model, Qwen2Tokenizer(), read_sides(parallel), label="x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_tokens": 0}, "batch-tokens is 0"),
        ({"replicates": 5}, "bootstrap is 5; it must be at least 20"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"samples": -1}, "samples is -1"),
        ({"seen_in_training": ["swa_Latn"]}, "seen_in_training: unknown language 'swa_Latn'"),
    ],
)
def test_options_out_of_range(model: Any, reader: Any, parallel: Dataset, options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        profile_routing(model, reader, read_sides(parallel), label="x", **options)


def test_messages_are_rendered_by_the_template(model: Any, reader: Any) -> None:
    def message(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}, {"role": "assistant", "content": text}]

    rows = [
        {"id": "1", "language": "swh_Latn", "messages": message("habari"), "anchor_messages": message("hello")},
        {"id": "2", "language": "swh_Latn", "messages": message("karibu"), "anchor_messages": message("welcome")},
    ]
    found = profile_routing(model, reader, read_sides(Dataset.from_list(rows)), label="x", samples=1)
    assert "".join(found.samples[0]["anchor"]["tokens"]).startswith("<|user|>")
