"""Every family through every check. `make test` takes one family per kind of router, `make families` all of them.

Results are kept in the folder that INNERLINGUA_FAMILIES names, where the page is made from them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import transformers

from families.catalogue import Entry, catalogue
from families.configs import tiny_model
from families.matrix import CHECKS, padded, token_rows
from families.page import kind_of, representatives, stored, unsupported
from innerlingua.anatomy import find_moe_layers
from innerlingua.errors import ModelError

CATALOGUE = catalogue()
_EVERY_KIND = representatives(CATALOGUE)


def _cases() -> list[object]:
    return [
        pytest.param(entry, id=str(entry), marks=() if entry in _EVERY_KIND else pytest.mark.families)
        for entry in CATALOGUE.entries
        if unsupported(entry) is None
    ]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.logging.set_verbosity_error()


@pytest.mark.parametrize("entry", _cases())
def test_family(entry: Entry) -> None:
    found: dict[str, str] = {}
    try:
        for name, check in CHECKS.items():
            found[name] = check(entry)
    except ModelError as refused:
        # Where transformers does not say what the router is, a refusal by name is the other good answer.
        if entry.recorded:
            raise
        found = {"refused": str(refused)}
    keep = os.environ.get("INNERLINGUA_FAMILIES")
    if keep:
        folder = Path(keep)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{entry}.json").write_text(json.dumps(found))


_UNSUPPORTED = [pytest.param(entry, id=str(entry)) for entry in CATALOGUE.entries if unsupported(entry) is not None]


@pytest.mark.parametrize("entry", _UNSUPPORTED)
def test_the_rows_of_a_batch_still_change_each_other(entry: Entry) -> None:
    # The one reason there is so far. When this fails, transformers has mended it, and the row can go.
    if transformers.__version__ != stored()[0]:
        pytest.skip(f"docs/families.md speaks of transformers {stored()[0]}")
    model = tiny_model(entry, spread=False)
    rows = token_rows(6, 6)
    with torch.no_grad():
        alone, together = (model(**padded(some), use_cache=False).logits[0] for some in (rows[:1], rows))
    assert float((alone - together).abs().max()) > 1e-4


@pytest.mark.parametrize("entry", _UNSUPPORTED)
def test_an_unsupported_family_is_refused_with_the_reason(entry: Entry) -> None:
    reason = unsupported(entry)
    assert reason is not None
    with pytest.raises(ModelError) as refused:
        find_moe_layers(tiny_model(entry, spread=False))
    assert reason in str(refused.value)


def test_there_is_a_representative_of_every_kind() -> None:
    supported = [entry for entry in CATALOGUE.entries if unsupported(entry) is None]
    assert {kind_of(entry) for entry in supported} == {kind_of(entry) for entry in _EVERY_KIND}
    assert any(entry.inside for entry in _EVERY_KIND)
