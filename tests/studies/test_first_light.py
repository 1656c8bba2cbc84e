"""The study on real parallel text: its rules on closed forms, and the whole pipeline on a pack made here."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

STUDY = Path(__file__).parents[2] / "studies" / "first_light"
LETTERS = {
    "eng_Latn": "abcdefghij",
    "hin_Deva": "कखगघचछजझटठ",
    "npi_Deva": "डढणतथदधनपफ",
    "ben_Beng": "কখগঘচছজঝটঠ",
    "tel_Telu": "కఖగఘచఛజఝటఠ",
    "swh_Latn": "klmnoprstu",
}
MODULES = ("base", "corpus", "figure", "measure", "report", "tune")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The study's modules, which have plain names and are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(STUDY))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


def sentence(language: str, meaning: int) -> str:
    rng = random.Random(meaning)
    return " ".join("".join(rng.choice(LETTERS[language]) for _ in range(3)) for _ in range(5))


def rows(name: str, count: int, languages: list[str], *, documents: int, first: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{name}-{index}",
            "group": f"{name}-document-{index % documents}",
            "source": name,
            "license": "CC-BY-NC" if name == "storybooks" and index % 2 else "CC-BY",
            "text": {language: sentence(language, first + index) for language in ["eng_Latn", *languages]},
        }
        for index in range(count)
    ]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    targets = [language for language in LETTERS if language != "eng_Latn"]
    sets = {
        "ntrex": rows("ntrex", 36, targets, documents=9, first=0),
        "bible": rows("bible", 12, ["swh_Latn"], documents=3, first=100),
        "flores_v1": rows("flores_v1", 12, ["npi_Deva"], documents=3, first=200),
        "tatoeba": rows("tatoeba", 12, ["hin_Deva", "ben_Beng"], documents=12, first=300),
        "storybooks": rows("storybooks", 12, ["tel_Telu", "hin_Deva"], documents=4, first=400),
        "xc_translate": rows("xc_translate", 8, [], documents=8, first=500),
        "sib200": rows("sib200", 8, targets, documents=8, first=600),
    }
    # One sentence of SIB-200 stands in a training set, too.
    sets["tatoeba"].append(sets["sib200"][0] | {"id": "again", "group": "again"})
    folder = tmp_path / "pack" / "parallel"
    folder.mkdir(parents=True)
    for name, found in sets.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    return tmp_path / "pack"


def run_study(pack: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(STUDY / "run.py"), "--output", str(output), "--tiny", "--threads", "1", *options]
    environment = {**os.environ, "INNERLINGUA_DATA": str(pack), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_no_document_and_no_sentence_is_on_both_sides(study: dict[str, ModuleType], pack: Path) -> None:
    corpus = study["corpus"].read_corpus(pack, seed=3)
    assert corpus.held_out_groups == 3
    assert corpus.train_groups == 6
    assert not {row.group for row in corpus.train} & {row.group for row in corpus.held_out}
    held = {row.text["eng_Latn"] for row in (*corpus.held_out, *corpus.unseen)}
    assert not held & {row.text["eng_Latn"] for row in corpus.train}
    assert corpus.left_out["English sentence is also held out"] == 1


def test_non_commercial_rows_are_taken_only_when_asked_for(study: dict[str, ModuleType], pack: Path) -> None:
    corpus = study["corpus"].read_corpus(pack, seed=3)
    assert corpus.left_out["non-commercial licence"] == 6
    with pytest.raises(FileNotFoundError, match="lafand"):
        study["corpus"].read_corpus(pack, seed=3, non_commercial=True)


def test_languages_are_sampled_equally(study: dict[str, ModuleType], pack: Path) -> None:
    corpus = study["corpus"].read_corpus(pack, seed=3)
    pairs = {x: study["corpus"].pairs_of(corpus.train, x) for x in study["corpus"].TARGETS}
    table = study["corpus"].count_table(study["corpus"].equal_pairs(pairs, count=10**6, seed=3))
    smallest = min(len(found) for found in pairs.values())
    assert {language: sum(found.values()) for language, found in table.items()} == dict.fromkeys(pairs, smallest)


@pytest.mark.parametrize(
    ("curve", "layers", "rule"),
    [
        ([1.0, 0.1, 0.0, 0.1, 0.2, 0.9, 1.0, 1.0], [1, 2, 3, 4], "trough"),
        ([1.0] * 5 + [0.0] + [1.0] * 4, [1, 2, 3, 4, 5, 6, 7], "no trough: 15 % to 72 % of the depth"),
    ],
)
def test_aligned_layers_follow_the_rule(
    study: dict[str, ModuleType], curve: list[float], layers: list[int], rule: str
) -> None:
    assert study["tune"].suggested_layers(curve) == (layers, rule)


def test_a_bootstrap_interval_holds_the_ratio_and_shrinks_with_the_sentences(study: dict[str, ModuleType]) -> None:
    widths = []
    for count in (20, 2000):
        values = np.random.default_rng(0).normal(3.0, 1.0, count)
        weights = study["measure"].bootstrap_weights([str(index) for index in range(count)], seed=1)
        low, high = study["measure"].interval(values, np.ones(count), weights)
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_no_row_is_mismatched_with_itself(study: dict[str, ModuleType]) -> None:
    other = study["measure"].mismatch([str(index) for index in range(50)])
    assert sorted(other) == list(range(50))
    assert all(row != found for row, found in enumerate(other))


def test_the_pipeline_measures_what_the_package_measures(
    study: dict[str, ModuleType], pack: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = run_study(pack, output, "--stage", "base", "--stage", "sft", "--stage", "sara", "--stage", "measure")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((output / "result.json").read_text())
    assert set(result["runs"]) == {"base", "sft", "sara"}
    assert (output / "js.svg").read_text().startswith("<svg")

    # The divergence of the report is that of the package's own function, on the same sentences.
    from innerlingua.routing import mean_divergence, pair_divergence

    torch.set_num_threads(1)
    corpus = study["corpus"].read_corpus(pack, seed=17)
    model, tokenizer = study["tune"].load_run(output / "sara")
    pairs = [pair for x in study["corpus"].TARGETS for pair in study["corpus"].pairs_of(corpus.held_out, x)]
    tokens, _ = study["tune"].tokenised(pairs, tokenizer, max_length=160)
    own = mean_divergence(pair_divergence(model, tokens, tokenizer), range(4))
    for language, curve in result["runs"]["sara"]["js"].items():
        assert curve == pytest.approx({str(layer): value for layer, value in own[language].items()}, abs=2e-5)

    # Nothing is done twice, and another study does not go into the same folder.
    again = run_study(pack, output, "--stage", "base", "--stage", "sft")
    assert again.stdout.count("passed over") == 2
    other = run_study(pack, output, "--stage", "base", "--seed", "18")
    assert other.returncode == 2
    assert "other settings" in other.stderr
