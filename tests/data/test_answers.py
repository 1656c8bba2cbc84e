from __future__ import annotations

import pytest

from innerlingua.data.answers import EXTRACTORS, boxed_answers, extractor, same_answer
from innerlingua.errors import DataError

BOXED = [
    (r"\boxed{42}", "42"),
    (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    (r"\boxed{1} then \boxed{2}", "2"),
    (r"\boxed{\sqrt{\frac{a}{b}}}", r"\sqrt{\frac{a}{b}}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\text{yes}}", r"\text{yes}"),
    (r"\boxed {7}", "7"),
    (r"\fbox{7}", "7"),
    (r"\boxed{ -3 }", "-3"),
    (r"\boxed{12\text{ km}}", r"12\text{ km}"),
    (r"\boxed{1,234}", "1,234"),
    (r"$\boxed{x^{2^{n}}}$", "x^{2^{n}}"),
    (r"\boxed{3", None),
    (r"\boxed{4} and \boxed{5", "4"),
    (r"\boxed{}", None),
    ("the answer is 42", None),
    ("", None),
    (r"\boxed{a}\boxed{b{c}}", "b{c}"),
    (r"\boxed{\boxed{9}}", "9"),
    ("\\boxed{\n5\n}", "5"),
]


@pytest.mark.parametrize(("text", "answer"), BOXED)
def test_the_last_balanced_box_is_taken(text: str, answer: str | None) -> None:
    assert EXTRACTORS["boxed"](text) == answer


def test_all_boxes_are_found_in_order() -> None:
    assert boxed_answers(r"\boxed{1} \boxed{\text{a}} \boxed{") == ["1", r"\text{a}"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{b}", "B"),
        (r"\boxed{\text{C}}", "C"),
        (r"\boxed{(D)}", "D"),
        (r"\boxed{A. the sun}", "A"),
        ("The answer is (B).", "B"),
        ("Answer: **C**", "C"),
        ("B", "B"),
        (r"\boxed{42}", None),
        ("I think that it depends", None),
        ("A man walks", None),
    ],
)
def test_choice_letters(text: str, letter: str | None) -> None:
    assert EXTRACTORS["choice"](text) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so it is 1,234.", "1,234"),
        (r"5 \boxed{\$18}", "18"),
        ("जवाब १२ है", "12"),
        ("none", None),
        ("-3.5 it is", "-3.5"),
    ],
)
def test_numbers(text: str, number: str | None) -> None:
    assert EXTRACTORS["number"](text) == number


@pytest.mark.parametrize(
    ("found", "gold", "same"),
    [
        ("42", "42.0", True),
        ("1,234", "1234", True),
        (r"\$18", "18", True),
        ("१८", "18", True),
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{2}{4}", r"\frac{1}{2}", True),
        ("x + 1", "1 + x", True),
        (r"\text{yes}", "Yes", True),
        ("B", "b", True),
        ("B", "C", False),
        ("41", "42", False),
        ("yes", "no", False),
        ("1.5", "15", False),
        ("x + 1", "x + 2", False),
    ],
)
def test_answers_are_compared_by_meaning(found: str, gold: str, same: bool) -> None:
    assert same_answer(found, gold) is same


def test_an_unknown_extractor_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'choice'"):
        extractor("choise")
