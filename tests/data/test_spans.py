from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from innerlingua.data import read_pairs, tokenize_pairs
from innerlingua.data.spans import link_tokens, token_spans
from innerlingua.errors import DataError

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


@st.composite
def pieces(draw: st.DrawFn, length: int, *, gaps: bool) -> list[tuple[int, int]]:
    """Consecutive non-empty intervals in [0, length); with gaps, some are left out."""
    cuts = sorted(draw(st.sets(st.integers(1, length - 1), max_size=10)))
    parts = list(zip([0, *cuts], [*cuts, length], strict=True))
    return [part for part in parts if not gaps or draw(st.booleans())]


@given(st.data())
def test_each_token_belongs_to_the_span_that_holds_most_of_it(data: st.DataObject) -> None:
    offsets = data.draw(pieces(40, gaps=False))
    spans = data.draw(st.permutations(data.draw(pieces(40, gaps=True))))
    for (start, end), owner in zip(offsets, token_spans(offsets, spans), strict=True):
        shares = [len(set(range(start, end)) & set(range(*span))) for span in spans]
        if not any(shares):
            assert owner == -1
        else:
            assert shares[owner] == max(shares)
            assert spans[owner] == min(span for span, share in zip(spans, shares, strict=True) if share == max(shares))


@given(st.lists(st.integers(-1, 5)), st.lists(st.integers(-1, 5)))
def test_links_keep_the_shared_spans_without_a_gap(target: list[int], anchor: list[int]) -> None:
    new_target, new_anchor, lost = link_tokens(target, anchor, 6)
    numbers = set(new_target) - {-1}
    assert numbers == set(new_anchor) - {-1} == set(range(6 - lost))
    pairs = {(a, b) for a, b in zip([*target, *anchor], [*new_target, *new_anchor], strict=True) if b != -1}
    assert len(pairs) == len(numbers)
    for old in set(target) & set(anchor) - {-1}:
        assert any(a == old for a, _ in pairs)


@pytest.mark.parametrize(
    ("offsets", "owners"),
    [
        ([(0, 2), (2, 4), (4, 5)], [0, 0, -1]),
        ([(0, 4), (4, 8)], [0, 1]),
        ([(0, 0), (0, 6), (6, 8)], [-1, 0, 1]),
        ([(3, 7)], [1]),
        ([(3, 6)], [0]),
    ],
)
def test_tokens_of_two_spans(offsets: list[tuple[int, int]], owners: list[int]) -> None:
    assert token_spans(offsets, [(0, 4), (5, 8)]) == owners


TARGET, ANCHOR = "Mto ni mpana sana", "The river is very wide"
LINKS = [[7, 12, 18, 22], [0, 3, 4, 9], [13, 17, 13, 17]]  # mpana - wide, Mto - river, sana - very


def content(form: str, text: str) -> dict[str, Any]:
    user = [{"role": "user", "content": "Mto mpana river wide"}]
    reply = [{"role": "assistant", "content": text}]
    return {
        "text": {"text": text},
        "plain": {"prompt": "Mto river mpana wide: ", "completion": text},
        "chat": {"prompt": user, "completion": reply},
        "messages": {"messages": [*user, {"role": "assistant", "content": "mpana wide"}, *user, *reply]},
    }[form]


def spelled(tokenizer: PreTrainedTokenizerFast, ids: list[int], spans: list[int], number: int) -> str:
    return str(tokenizer.decode([token for token, span in zip(ids, spans, strict=True) if span == number])).strip()


@pytest.mark.parametrize("form", ["text", "plain", "chat", "messages"])
def test_spans_cover_the_tokens_of_their_words(form: str, tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"id": "1", "language": "swh_Latn", **content(form, TARGET), "spans": LINKS}
    row |= {f"anchor_{name}": value for name, value in content(form, ANCHOR).items()}
    result = tokenize_pairs(read_pairs(Dataset.from_list([row])).dataset, tokenizer)
    out = result.dataset[0]
    words = [
        (
            spelled(tokenizer, out["input_ids"], out["span_ids"], number),
            spelled(tokenizer, out["anchor_input_ids"], out["anchor_span_ids"], number),
        )
        for number in range(3)
    ]
    assert words == [("mpana", "wide"), ("Mto", "river"), ("sana", "very")]
    assert result.counts["spans"] == 3
    assert result.counts["spans_without_tokens"] == 0


def test_code_points_count_and_not_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"id": "1", "language": "hin_Deva", "text": "नदी चौड़ी है", "anchor_text": "🙂 wide river"}
    row["spans"] = [[4, 9, 2, 6]]
    out = tokenize_pairs(read_pairs(Dataset.from_list([row])).dataset, tokenizer).dataset[0]
    assert spelled(tokenizer, out["input_ids"], out["span_ids"], 0) == "चौड़ी"
    assert spelled(tokenizer, out["anchor_input_ids"], out["anchor_span_ids"], 0) == "wide"


def test_a_template_that_trims_the_reply_keeps_its_spans(make_tokenizer: MakeTokenizer) -> None:
    trimming = make_tokenizer("{% for m in messages %}{{ m['role'] + ': ' + m['content'] | trim }}\n{% endfor %}")
    row: dict[str, Any] = {"id": "1", "language": "swh_Latn", "spans": [[2, 5, 6, 11]]}
    for prefix, text in (("", "  Mto ni mpana "), ("anchor_", "  The river is wide ")):
        row[f"{prefix}messages"] = [{"role": "user", "content": "Mto"}, {"role": "assistant", "content": text}]
    out = tokenize_pairs(read_pairs(Dataset.from_list([row])).dataset, trimming).dataset[0]
    assert spelled(trimming, out["input_ids"], out["span_ids"], 0) == "Mto"
    assert spelled(trimming, out["anchor_input_ids"], out["anchor_span_ids"], 0) == "river"


def test_a_template_that_rewrites_the_reply_is_refused(make_tokenizer: MakeTokenizer) -> None:
    rewriting = make_tokenizer("{% for m in messages %}{{ m['content'] | upper }}\n{% endfor %}")
    row: dict[str, Any] = {"id": "1", "language": "swh_Latn", "spans": [[0, 3, 0, 3]]}
    for prefix in ("", "anchor_"):
        row[f"{prefix}messages"] = [{"role": "assistant", "content": f"{prefix} Mto ni mpana"}]
    pairs = read_pairs(Dataset.from_list([row]))
    with pytest.raises(DataError, match="row 1: the chat template does not render the last assistant message"):
        tokenize_pairs(pairs.dataset, rewriting)


def test_a_span_without_a_token_of_its_own_is_left_out_on_both_sides(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"id": "1", "language": "swh_Latn", "text": TARGET, "anchor_text": ANCHOR}
    river = tokenizer.encode(" river")
    assert len(river) == 1
    row["spans"] = [[0, 3, 4, 8], [7, 12, 8, 9], [13, 17, 13, 17]]  # the token of 'river' goes to [4, 8)
    result = tokenize_pairs(read_pairs(Dataset.from_list([row])).dataset, tokenizer)
    out = result.dataset[0]
    assert set(out["span_ids"]) == set(out["anchor_span_ids"]) == {-1, 0, 1}
    assert spelled(tokenizer, out["input_ids"], out["span_ids"], 1) == "sana"
    assert result.counts["spans_without_tokens"] == 1


def test_rows_without_spans_or_anchor_have_none_of_them(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [
        {"id": "1", "language": "swh_Latn", "text": TARGET, "anchor_text": ANCHOR, "spans": [[0, 3, 4, 9]]},
        {"id": "2", "language": "swh_Latn", "text": TARGET, "anchor_text": ANCHOR},
        {"id": "3", "language": "swh_Latn", "text": TARGET},
    ]
    pairs = read_pairs(Dataset.from_list(rows), missing_anchor="keep")
    _, second, third = tokenize_pairs(pairs.dataset, tokenizer).dataset
    assert set(second["span_ids"]) == set(second["anchor_span_ids"]) == {-1}
    assert third["anchor_span_ids"] is None
