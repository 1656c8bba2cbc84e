"""The text of a report: columns, characters that could steer a terminal, sizes and times in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from innerlingua.recipe.doctor.render import render
from innerlingua.recipe.doctor.report import (
    Finding,
    FirstStep,
    Gradients,
    Losses,
    Memory,
    Pair,
    Part,
    Piece,
    Prior,
    Report,
    Side,
    Time,
)

EMPTY = Report(recipe_path="recipe.yaml", versions={})
MEMORY = Memory(
    device="cuda:0 (a large card)",
    capacity=141_000_000_000,
    free=140_000_000_000,
    weights=122_000_000_000,
    buffers=1_000_000,
    gradients=122_000_000_000,
    optimizer=None,
    optimizer_name="adamw_torch_fused",
    least=None,
    most=None,
    shares=[],
    checkpoint=366_000_000_000,
    checkpoints=4,
    disk_free=999,
)


def text_of(**sections: object) -> str:
    return "\n".join(render(replace(EMPTY, **sections)))  # type: ignore[arg-type]


def test_what_is_missing_is_named_once_with_its_reason() -> None:
    lines = render(replace(EMPTY, skipped={"losses": "too large", "time": "too large", "model": "refused"}))
    assert "Not shown (too large)" in lines
    assert "  Loss before training, Time (estimate)" in lines
    assert "Not shown (refused)" in lines


def test_long_text_is_cut_in_the_middle_and_says_so() -> None:
    side = Side("अ" * 2000, 2000, 0)
    lines = render(replace(EMPTY, pair=Pair("x", "hin_Deva", side, None)))
    assert any("1,300 more characters" in line for line in lines)
    assert max(cell_len(line) for line in lines) <= 80
    assert "  anchor: none" in lines


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\tb", "a\\tb"),
        ("\u202eabc", "\\u202eabc"),
        ("क्\u200dष", "क्\u200dष"),
        ("中文", "中文"),
    ],
)
def test_nothing_in_a_row_steers_the_terminal(raw: str, shown: str) -> None:
    side = Side(raw, 1, 1)
    assert f"    {shown}" in render(replace(EMPTY, pair=Pair("x", "swh_Latn", side, None)))


def test_wide_characters_count_twice() -> None:
    lines = render(replace(EMPTY, pair=Pair("x", "zho_Hans", Side("中" * 100, 100, 0), None)))
    assert max(cell_len(line) for line in lines) == 80
    assert sum(line.count("中") for line in lines) == 100


def test_large_models_stay_within_80_columns() -> None:
    part = Part("shared_experts", "adapters", 12_288, 30_532_122_624, 30_532_122_624, ["bfloat16", "float32"], [], "x")
    gradients = Gradients({"router": 1.2345e-11, "adapters on shared_experts": 123456.789}, 123456.789)
    step = FirstStep(32, 256, 524_288, 11.123456, {"entropy": 1.0, "routing_alignment": 0.1}, gradients, [])
    pieces = [
        Piece(name, 1.5, 1.23456e-9, gradients)
        for name in ("cross_entropy", "balance_loss", "a", "a_long_name_of_a_term")
    ]
    lines = render(
        replace(
            EMPTY,
            parameters=[part],
            losses=Losses(step, 8, 16_384, pieces),
            memory=MEMORY,
            time=Time(61.0, None, 1e6, 5e5, 2e6),
        )
    )
    assert max(len(line) for line in lines) <= 80
    text = "\n".join(lines)
    assert "30,532,122,624" in text
    assert "bf16,fp32" in text
    assert "11.6 days" in text


def test_sizes_in_words() -> None:
    text = text_of(memory=MEMORY)
    for words in ("122 GB", "141 GB", "366 GB", "999 B", "adamw_torch_fused, cannot be tried alone"):
        assert words in text, words
    assert "1.00 MB" in text_of(memory=replace(MEMORY, checkpoint=999_600))
    assert "9.99 kB" in text_of(memory=replace(MEMORY, checkpoint=9_990))


def test_the_prior_says_whether_it_is_there() -> None:
    assert "fresh: out/prior" in text_of(prior=Prior("fresh", "out/prior", 10, 4000))
    assert "(estimate from 3 anchors)" in text_of(prior=Prior("missing", "out/prior", 10, 4000, 3, 1.5))
    assert "none is needed" in text_of(prior=Prior("live", "out/prior", 0, 0))


def test_findings_come_worst_first_and_say_where_once() -> None:
    lines = render(
        replace(
            EMPTY,
            findings=[
                Finding("ok", "data.train", "recipe.yaml, line 3", "read"),
                Finding("note", "alignment.weight", "recipe.yaml, line 9", "lopsided", "change it"),
                Finding(
                    "refused", "trainer", "recipe.yaml, line 12", "recipe.yaml, line 12: trainer.seed is -1\nand more"
                ),
            ],
        )
    )
    start = lines.index("Findings")
    assert lines[start + 1 : start + 5] == [
        "  refused recipe.yaml, line 12: trainer.seed is -1",
        "          and more",
        "  note    recipe.yaml, line 9: alignment.weight: lopsided. Change it",
        "  ok      data.train: read",
    ]
    assert lines[-1] == "Refused: innerlingua train would stop there."
