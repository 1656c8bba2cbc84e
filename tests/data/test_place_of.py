"""`folder:split`, which every reader of a path takes apart in the same way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from innerlingua.data.files import place_of
from innerlingua.data.hashes import file_hash
from innerlingua.data.sources import open_sources
from innerlingua.errors import DataError
from innerlingua.recipe.drift import sources


def test_a_split_is_what_stands_after_the_last_colon(tmp_path: Path) -> None:
    (tmp_path / "a:b.jsonl").write_text("{}\n")
    assert place_of(tmp_path / "a:b.jsonl") == (tmp_path / "a:b.jsonl", None)
    assert place_of(f"{tmp_path}/saved:x:train") == (tmp_path / "saved:x", "train")
    assert place_of(str(tmp_path / "absent")) == (tmp_path / "absent", None)


@pytest.mark.parametrize("name", [":train", "folder/:train", ".:train"])
def test_a_split_of_nothing_is_a_file_that_is_not_there(name: str) -> None:
    assert place_of(name) == (Path(name), None)
    with pytest.raises(DataError, match="no such file"):
        open_sources([name])


def test_the_record_of_a_run_hashes_the_folder_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "rows").write_text("12345")
    recipe = SimpleNamespace(data=SimpleNamespace(train=[f"{tmp_path}/saved:train"], eval=None))
    found = sources(recipe, SimpleNamespace(train=[1, 2], evaluation=None))
    file = {"file": f"{tmp_path}/saved:train", "bytes": 5, "sha256": file_hash(tmp_path / "saved")}
    assert found == {"data.train": {"rows": 2, "files": [file]}}
