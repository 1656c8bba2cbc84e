"""Random parallel rows for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np

LETTERS = {"eng_Latn": "abcdefghij", "hin_Deva": "कखगघचछजझटठ", "swh_Latn": "klmnopqrst"}


def sentences(number: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of one meaning in three languages, 2 to 9 random words each."""
    generator = np.random.default_rng(seed)

    def sentence(letters: str) -> str:
        words = generator.integers(2, 10)
        return " ".join("".join(generator.choice(list(letters), generator.integers(1, 5))) for _ in range(words))

    return [
        {"id": f"s{at}", "group": f"g{at % 4}", "text": {code: sentence(letters) for code, letters in LETTERS.items()}}
        for at in range(number)
    ]
