"""Translation benchmarks from parallel files: sentences in a language and in the anchor language, in either direction.

Rows are those that training reads: `text` = {language: sentence}, or pairs with `text`, `language`, `anchor_text`. A
row without one of the two sides is no question; all that is asked has both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from innerlingua.data.languages import ENGLISH, known_languages
from innerlingua.data.sources import open_sources
from innerlingua.errors import DataError
from innerlingua.evaluation.local import Question

__all__ = ["Direction", "ParallelBenchmark", "is_parallel", "read_parallel_benchmark"]

Direction = Literal["into", "from"]
"""`into`: the anchor language is translated into the language; `from`: the language into the anchor language."""


@dataclass(frozen=True)
class ParallelBenchmark:
    """Sentences to translate, by language: questions with `id`, `group`, `source` and `reference`.

    `names` are the English names of languages, which the prompt says.
    """

    name: str
    path: Path
    direction: Direction
    anchor: str
    asked: dict[str, list[Question]]
    names: Mapping[str, str]

    @property
    def languages(self) -> list[str]:
        """The languages that stand beside the anchor language in some row."""
        return list(self.asked)

    def sides(self, language: str) -> tuple[str, str]:
        """The languages of source and reference for `language`."""
        return (self.anchor, language) if self.direction == "into" else (language, self.anchor)

    def named_sides(self, language: str) -> tuple[str, str]:
        """The names of both. Raises `DataError` for a language that has none."""
        for code in self.sides(language):
            if code not in self.names:
                raise DataError(
                    f"{self.name}: {code} is no FLORES-200 code, and the model is asked by the language's name; give "
                    f"it: --language-name '{code}=NAME'"
                )
        source, target = self.sides(language)
        return self.names[source], self.names[target]


def is_parallel(path: Path) -> bool:
    """Whether the first row of a file is parallel text."""
    for source in open_sources(path):
        for _, row in source.rows():
            return isinstance(row.get("text"), Mapping) or "anchor_text" in row
    return False


def read_parallel_benchmark(
    name: str, path: Path, direction: Direction, *, anchor: str, names: Mapping[str, str] | None = None
) -> ParallelBenchmark:
    """Read a whole file. `names` are of languages outside FLORES-200.

    Raises:
        DataError: a row that is no parallel text, lacks an id, or repeats one in a language; no row has the anchor.
    """
    asked: dict[str, list[Question]] = {}
    seen: set[tuple[str, str]] = set()
    for source in open_sources(path):
        for number, row in source.rows():
            place = source.place(number)
            name_of_row = row.get("id")
            if not isinstance(name_of_row, str) or not name_of_row:
                raise DataError(f"{place}: no id; each row needs one, as text")
            for language, target, anchored in _sides(row, anchor, place):
                if (name_of_row, language) in seen:
                    raise DataError(f"{place}: the id {name_of_row!r} occurs twice in {language}")
                seen.add((name_of_row, language))
                start, end = (anchored, target) if direction == "into" else (target, anchored)
                question = {"id": name_of_row, "group": str(row.get("group") or name_of_row)}
                asked.setdefault(language, []).append({**question, "source": start, "reference": end})
    if not asked:
        raise DataError(f"{path}: no row has a sentence in {anchor} beside one in another language")
    return ParallelBenchmark(name, path, direction, anchor, asked, known_languages(names))


def _sides(row: Mapping[str, Any], anchor: str, place: str) -> Iterator[tuple[str, str, str]]:
    """(language, its sentence, the anchor's sentence) of a row."""
    text = row.get("text")
    if isinstance(text, Mapping):
        if _is_text(text.get(anchor)):
            for language, sentence in text.items():
                if language != anchor and _is_text(sentence):
                    yield language, sentence, text[anchor]
        return
    if not isinstance(row.get("language"), str) or "anchor_text" not in row:
        raise DataError(
            f"{place}: no parallel text. A row has text = {{language: sentence}}, or language, text and anchor_text"
        )
    if row.get("anchor_language", ENGLISH) == anchor and _is_text(text) and _is_text(row["anchor_text"]):
        yield row["language"], str(text), row["anchor_text"]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
