"""Profiles on disk, and what changed between two."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from innerlingua.errors import DataError, ModelError
from innerlingua.routing.profile import (
    RoutingProfile,
    check_folder,
    compare_profiles,
    profile_routing,
    read_profile,
    read_sides,
    write_profile,
)
from tiny import tiny_model


@pytest.fixture(scope="module")
def before(model: Any, reader: Any, parallel: Dataset) -> RoutingProfile:
    return profile_routing(model, reader, read_sides(parallel), label="before")


@pytest.fixture(scope="module")
def after(model: Any, reader: Any, parallel: Dataset) -> RoutingProfile:
    other = tiny_model(vocab_size=len(reader), max_position_embeddings=256, seed=1)
    return profile_routing(other, reader, read_sides(parallel), label="after")


def test_a_profile_comes_back_as_it_was_written(before: RoutingProfile, tmp_path: Path) -> None:
    read = read_profile(write_profile(before, tmp_path / "p"))
    assert read.record == json.loads(json.dumps(before.record))
    assert read.samples == before.samples
    assert torch.equal(read.mean, before.mean)
    assert torch.equal(read.load, before.load)
    for name, values in before.replicates.items():  # nan for the anchor against itself
        torch.testing.assert_close(read.replicates[name], values, rtol=0, atol=0, equal_nan=True)
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "profile.json", "profile.safetensors", "replicates.safetensors", "samples.json"
    ]  # fmt: skip


def test_the_record_has_the_documented_keys(before: RoutingProfile) -> None:
    record = before.record
    assert list(record) == [
        "schema", "command", "versions", "seed", "created", "model", "label", "anchor", "data", "languages", "measures",
        "between_languages", "suggested_layers", "settings",
    ]  # fmt: skip
    assert list(record["measures"]) == [
        "js", "js_normalised", "overlap", "entropy", "load_cv", "dead_experts", "shared_experts", "exclusive_experts",
        "js_of_means",
    ]  # fmt: skip
    assert next(iter(record["languages"])) == record["anchor"] == "eng_Latn"


def test_intervals_surround_their_estimate(before: RoutingProfile) -> None:
    for measure in ("js", "js_normalised", "overlap", "entropy"):
        entry = before.record["measures"][measure]["swh_Latn"]
        for low, mean, high in zip(entry["low"], entry["mean"], entry["high"], strict=True):
            assert low <= mean <= high
    js = before.record["measures"]["js"]["swh_Latn"]
    assert js["low"] < js["high"]


def test_a_damaged_profile_is_named(before: RoutingProfile, tmp_path: Path) -> None:
    folder = write_profile(before, tmp_path / "p")
    with pytest.raises(DataError, match="no such folder"):
        read_profile(tmp_path / "q")
    (folder / "replicates.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="is damaged"):
        read_profile(folder)
    (folder / "profile.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"profile.json is damaged"):
        read_profile(folder)
    (folder / "profile.json").write_text('{"schema": 99}', encoding="utf-8")
    with pytest.raises(DataError, match="schema 99"):
        read_profile(folder)


def test_a_profile_is_not_replaced_unasked(before: RoutingProfile, tmp_path: Path) -> None:
    folder = write_profile(before, tmp_path / "p")
    with pytest.raises(DataError, match="--overwrite"):
        check_folder(folder, overwrite=False)
    assert check_folder(folder, overwrite=True) == folder
    with pytest.raises(DataError, match="is a file"):
        check_folder(folder / "profile.json", overwrite=True)


def test_nothing_changes_between_a_profile_and_itself(before: RoutingProfile) -> None:
    result = compare_profiles(before, before)
    assert result["same_weights"]
    for row in result["languages"].values():
        assert row["paired"]
        for measure in ("entropy", "load_cv", "dead_experts"):
            assert (row[measure]["all"]["change"], row[measure]["all"]["changed"]) == (0, False)
    assert result["languages"]["swh_Latn"]["js"]["aligned"]["low"] == 0


def test_a_change_is_the_difference_of_the_means(before: RoutingProfile, after: RoutingProfile) -> None:
    result = compare_profiles(before, after, layers=[1, 2])
    row = result["languages"]["hin_Deva"]["js"]
    a, b = (profile.record["measures"]["js"]["hin_Deva"]["mean"] for profile in (before, after))
    assert row["all"]["change"] == pytest.approx(sum(b) / 4 - sum(a) / 4, abs=1e-7)
    assert row["aligned"]["change"] == pytest.approx((b[1] + b[2] - a[1] - a[2]) / 2, abs=1e-7)
    assert row["by_layer"]["change"][3] == pytest.approx(b[3] - a[3], abs=1e-7)
    assert row["all"]["low"] < row["all"]["change"] < row["all"]["high"]
    assert "js" not in result["languages"]["eng_Latn"]
    json.dumps(result, allow_nan=False)


def test_a_paired_interval_is_that_of_the_differences(before: RoutingProfile, after: RoutingProfile) -> None:
    found = compare_profiles(before, after)["languages"]["swh_Latn"]["js"]["all"]
    row = list(before.record["languages"]).index("swh_Latn")
    draws = (after.replicates["js"] - before.replicates["js"])[:, row].double().mean(dim=1)
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert (found["low"], found["high"]) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))
    assert found["changed"] == (low > 0 or high < 0)


def test_pairing_narrows_the_interval_of_a_common_shift(before: RoutingProfile) -> None:
    shifted = replace(before, replicates={name: values + 0.01 for name, values in before.replicates.items()})
    unpaired = replace(shifted, record={**shifted.record, "seed": 1})
    width = {}
    for name, profile in (("paired", shifted), ("unpaired", unpaired)):
        result = compare_profiles(before, profile)["languages"]["swh_Latn"]
        assert result["paired"] == (name == "paired")
        width[name] = result["js"]["all"]["high"] - result["js"]["all"]["low"]
    assert width["paired"] < 1e-6 < width["unpaired"]


def test_other_ids_are_not_paired(model: Any, reader: Any, rows: Any, before: RoutingProfile) -> None:
    fewer = profile_routing(model, reader, read_sides(Dataset.from_list(rows[:9])), label="fewer")
    result = compare_profiles(before, fewer)
    assert not result["languages"]["swh_Latn"]["paired"]
    assert result["languages"]["swh_Latn"]["pairs"] == [12, 9]


def test_languages_of_one_side_only_are_named(
    model: Any, reader: Any, parallel: Dataset, before: RoutingProfile
) -> None:
    only = profile_routing(model, reader, read_sides(parallel, languages=["swh_Latn"]), label="only")
    result = compare_profiles(before, only)
    assert (result["only_in_a"], result["only_in_b"]) == (["hin_Deva"], [])
    # Which experts are shared depends on who shares them.
    assert result["left_out"] == ["shared_experts", "exclusive_experts"]
    other = profile_routing(model, reader, read_sides(parallel, languages=["hin_Deva"]), label="other")
    with pytest.raises(DataError, match="no language in both profiles"):
        compare_profiles(only, other)


def test_other_families_anchors_and_layers_are_refused(
    model: Any, reader: Any, parallel: Dataset, before: RoutingProfile
) -> None:
    olmoe = tiny_model("olmoe", vocab_size=len(reader), max_position_embeddings=256)
    other = profile_routing(olmoe, reader, read_sides(parallel, limit=2), label="olmoe")
    with pytest.raises(ModelError, match=r"before and olmoe cannot be compared.*model_type \(qwen3_moe and olmoe\)"):
        compare_profiles(before, other)
    turned = profile_routing(model, reader, read_sides(parallel, anchor="swh_Latn"), label="turned")
    with pytest.raises(DataError, match="the anchor is eng_Latn in before and swh_Latn in turned"):
        compare_profiles(before, turned)
    with pytest.raises(ModelError, match="no MoE layer 7"):
        compare_profiles(before, before, layers=[1, 7])
