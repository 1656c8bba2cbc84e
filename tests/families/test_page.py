from __future__ import annotations

import pytest
import transformers

from families.catalogue import catalogue
from families.page import digest, stored


def test_the_page_is_up_to_date() -> None:
    version, made_from = stored()
    if transformers.__version__ != version:
        pytest.skip(f"docs/families.md was written with transformers {version}, here is {transformers.__version__}")
    assert made_from == digest(catalogue()), "docs/families.md is stale: run `make families`"
