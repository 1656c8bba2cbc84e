"""What a stored profile must hold: every fault of its files is one message that names the file and the place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from safetensors.torch import load_file, save_file

from innerlingua.errors import DataError
from innerlingua.routing.profile import (
    check_folder,
    profile_routing,
    read_profile,
    read_record,
    read_sides,
    write_profile,
)


@pytest.fixture(scope="module")
def stored(model: Any, reader: Any, parallel: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    profile = profile_routing(model, reader, read_sides(parallel), label="stored", replicates=20, samples=2)
    return write_profile(profile, tmp_path_factory.mktemp("layout") / "p")


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "p"))


def _edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    changed = change(content)
    (folder / name).write_text(json.dumps(content if changed is None else changed), encoding="utf-8")


def _put(*path: str | int, value: Any) -> Callable[[Any], None]:
    """Set what is at the end of `path`."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


KEYS = (
    "command", "versions", "seed", "created", "model", "label", "anchor", "data", "languages", "measures",
    "between_languages", "suggested_layers", "settings",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(copy: Path, key: str) -> None:
    _edit(copy, "profile.json", lambda record: {name: part for name, part in record.items() if name != key})
    with pytest.raises(DataError, match=rf"p/profile\.json: {key}: field required\. Make the profile anew"):
        read_record(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: [record], "a JSON object was expected, not list"),
        (_put("schema", value=2), "schema 2, and this version reads 1"),
        (lambda record: record.pop("schema") and record, "schema None"),
        (_put("model", "experts", value="8"), r"model\.experts: input should be a valid integer"),
        (_put("model", "layers", value=[0, 2, 1, 3]), r"model\.layers are no rising decoder layers"),
        (_put("model", "layers", value=[0, 1]), r"measures\.js\.\w+\.mean has 4 values for 2 layers"),
        (_put("languages", value=["eng_Latn"]), "languages: input should be a valid dictionary"),
        (_put("anchor", value="swh_Latn"), "the first of languages is 'eng_Latn', where the anchor 'swh_Latn' belongs"),
        (_put("measures", "js", "swh_Latn", value=3), r"measures\.js\.swh_Latn: input should be"),
        (_put("measures", "js", "swh_Latn", "mean", value=["a"] * 4), r"measures\.js\.swh_Latn\.mean\.0: input should"),
        (_put("measures", "js", "swh_Latn", "mean", value=[0.1]), r"measures\.js\.swh_Latn\.mean has 1 values for 4"),
        (_put("measures", "js", "fra_Latn", value=None), r"measures\.js and languages differ in fra_Latn"),
        (lambda record: record["measures"].pop("overlap") and record, "measures lacks overlap"),
        (_put("between_languages", "js", value=[[1.0]]), r"between_languages\.js is not 3 x 3"),
        (_put("between_languages", "order", value=["eng_Latn"] * 3), r"between_languages\.order and languages"),
        (_put("suggested_layers", "layers", value=[]), r"suggested_layers\.layers: list should have at least 1 item"),
        (_put("suggested_layers", "layers", value=["x"]), r"suggested_layers\.layers\.0: input should"),
        (_put("suggested_layers", "layers", value=[9]), "suggested_layers has layers that are not in model.layers"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(copy: Path, change: Callable[[Any], Any], message: str) -> None:
    _edit(copy, "profile.json", change)
    with pytest.raises(DataError, match=rf"p/profile\.json: {message}"):
        read_record(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: [stored], "no pairs in it"),
        (lambda stored: {"pairs": [{"id": "1"}]}, r"0\.language: field required"),
        (_put("pairs", 0, "language", value="fra_Latn"), r"pair 1 \(id 's\d+'\): language 'fra_Latn' is not in the"),
        (_put("pairs", 0, "js", value=[0.1]), r"pair 1 .*: js has 1 values for 4 layers"),
        (_put("pairs", 1, "target", "experts", 2, 0, value=[1, 8]), r"pair 2 .*, target: experts must be .*below 8"),
        (_put("pairs", 1, "anchor", "tokens", value=["a"]), r"pair 2 .*, anchor: experts must be .* \(4, 1, 2\)"),
    ],
)
def test_samples_that_do_not_fit_are_refused(copy: Path, change: Callable[[Any], Any], message: str) -> None:
    _edit(copy, "samples.json", change)
    with pytest.raises(DataError, match=rf"p/samples\.json: {message}"):
        read_profile(copy)


@pytest.mark.parametrize("name", ["profile.json", "profile.safetensors", "replicates.safetensors", "samples.json"])
def test_a_cut_file_is_named(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"p/{name} is damaged"):
        read_profile(copy)


def test_a_missing_file_is_named_and_missing_samples_are_none(copy: Path) -> None:
    (copy / "samples.json").unlink()
    assert read_profile(copy).samples == []
    (copy / "replicates.safetensors").unlink()
    with pytest.raises(DataError, match=r"replicates\.safetensors is missing beside profile\.json"):
        read_profile(copy)


def test_tensors_of_another_shape_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "replicates.safetensors")
    save_file({**tensors, "js": tensors["js"][:5].clone()}, copy / "replicates.safetensors")
    with pytest.raises(DataError, match=r"replicates\.safetensors: js should be \(20, 3, 4\) and is \(5, 3, 4\)"):
        read_profile(copy)


def test_numbers_that_are_none_are_refused(copy: Path) -> None:
    text = (copy / "profile.json").read_text(encoding="utf-8")
    (copy / "profile.json").write_text(text.replace('"mean": [', '"mean": [NaN, ', 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"p/profile\.json is damaged \(NaN is no number"):
        read_record(copy)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(DataError, match=r"holds other files \(model\.safetensors\); name a new folder"):
        check_folder(tmp_path, overwrite=True)


def test_what_a_killed_writing_left_is_replaced(stored: Path, tmp_path: Path) -> None:
    left = Path(shutil.copytree(stored, tmp_path / "p"))
    (left / "profile.json").rename(left / ".profile.json.77")
    assert check_folder(left, overwrite=False) == left
    with pytest.raises(DataError, match="interrupted"):
        read_profile(left)
    write_profile(read_profile(stored), left)
    assert read_profile(left).record == read_record(stored)


def test_a_place_below_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"no profile can be written to .*file/p: .*file"):
        check_folder(tmp_path / "file" / "p", overwrite=False)
