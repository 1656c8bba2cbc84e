from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM
from trl import SFTConfig, SFTTrainer

from innerlingua.data import TokenizedPairs, read_pairs, tokenize_pairs
from innerlingua.errors import DataError

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]

TARGETS = ["Mto ni mpana.", "Soko liko wapi leo?", "नदी चौड़ी है और नाव छोटी है।", "Mashua ni ndogo.<|eos|>"]
ANCHORS = [
    "The river is wide.",
    "Where is the market today?",
    "The river is wide and the boat small.",
    "The boat is small.",
]


def talk(question: str, *answers: str) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": "Be short."}]
    for answer in answers:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def content(form: str, text: str) -> dict[str, Any]:
    if form == "text":
        return {"text": text}
    if form == "plain":
        return {"prompt": text[:6], "completion": text[6:]}
    if form == "chat":
        messages = talk(text, text[3:])
        return {"prompt": messages[:-1], "completion": messages[-1:]}
    return {"messages": talk(text, text[:4], text[2:])}


def rows(form: str, count: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "id": str(index),
            "language": "swh_Latn",
            **content(form, target),
            **{f"anchor_{name}": value for name, value in content(form, anchor).items()},
        }
        for index, (target, anchor) in enumerate(zip(TARGETS[:count], ANCHORS[:count], strict=True))
    ]


def tokenized(given: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, **options: Any) -> TokenizedPairs:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = read_pairs(Dataset.from_list(given), missing_anchor="keep", same_as_anchor="keep")
        return tokenize_pairs(pairs.dataset, tokenizer, **options)


def by_trl(
    contents: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, folder: Path, **options: Any
) -> list[dict[str, list[int]]]:
    """What TRL's own trainer trains on."""
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        moe_intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
    )
    args = SFTConfig(
        output_dir=str(folder),
        max_length=None,
        shuffle_dataset=False,
        report_to="none",
        use_cpu=True,
        bf16=False,
        **options,
    )
    trainer = SFTTrainer(
        model=Qwen3MoeForCausalLM(config),
        args=args,
        train_dataset=Dataset.from_list(contents),
        processing_class=tokenizer,
    )
    return list(trainer.train_dataset.select_columns(["input_ids", "labels"]))


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("text", {}),
    ("plain", {}),
    ("plain", {"completion_only_loss": False}),
    ("chat", {}),
    ("chat", {"completion_only_loss": False}),
    ("chat", {"assistant_only_loss": True}),
    ("chat", {"assistant_only_loss": True, "completion_only_loss": False}),
    ("messages", {}),
    ("messages", {"assistant_only_loss": True}),
]


@pytest.mark.parametrize(("form", "options"), OPTIONS, ids=[f"{form} {' '.join(o)}" for form, o in OPTIONS])
def test_ids_and_labels_equal_what_trl_trains_on(
    form: str, options: dict[str, Any], make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    theirs = by_trl([content(form, text) for text in TARGETS], make_tokenizer(), tmp_path, **options)
    anchors = by_trl([content(form, text) for text in ANCHORS], make_tokenizer(), tmp_path, **options)
    ours = tokenized(rows(form), make_tokenizer(), **options).dataset
    assert list(ours.select_columns(["input_ids", "labels"])) == theirs
    assert ours["anchor_input_ids"][:] == [row["input_ids"] for row in anchors]
    assert ours["anchor_labels"][:] == [row["labels"] for row in anchors]


@pytest.mark.parametrize(("form", "options"), OPTIONS, ids=[f"{form} {' '.join(o)}" for form, o in OPTIONS])
def test_the_same_text_on_both_sides_gives_the_same_tokens(
    form: str, options: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    given = [{"id": "1", "language": "hin_Deva"} | content(form, TARGETS[2])]
    given[0] |= {f"anchor_{name}": value for name, value in content(form, TARGETS[2]).items()}
    row = tokenized(given, tokenizer, **options).dataset[0]
    assert row["input_ids"] == row["anchor_input_ids"]
    assert row["labels"] == row["anchor_labels"]
    assert len(row["input_ids"]) > 5


THINKING = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}{% if mood is defined %}{{ mood }}{% endif %}"
)


def test_template_settings_reach_both_sides_as_trl_passes_them(make_tokenizer: MakeTokenizer, tmp_path: Path) -> None:
    contents = [{**content("messages", text), "chat_template_kwargs": {"mood": "calm"}} for text in TARGETS]
    theirs = by_trl(contents, make_tokenizer(THINKING), tmp_path)
    ours = tokenized(rows("messages"), make_tokenizer(THINKING), chat_template_kwargs={"mood": "calm"}).dataset
    assert ours["input_ids"][:] == [row["input_ids"] for row in theirs]
    assert make_tokenizer().decode(ours["anchor_input_ids"][0]).endswith("calm")


def test_a_template_that_trl_has_a_training_version_of_is_used(make_tokenizer: MakeTokenizer, tmp_path: Path) -> None:
    from trl.chat_template_utils import phi3_5_chat_template

    theirs = by_trl(
        [content("messages", text) for text in TARGETS],
        make_tokenizer(phi3_5_chat_template),
        tmp_path,
        assistant_only_loss=True,
    )
    ours = tokenized(rows("messages"), make_tokenizer(phi3_5_chat_template), assistant_only_loss=True).dataset
    assert list(ours.select_columns(["input_ids", "labels"])) == theirs


def test_only_the_columns_of_the_contract_come_out(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = Dataset.from_list([{**row, "mine": 1, "group": "g"} for row in rows("text")])
    assert tokenize_pairs(dataset, tokenizer).dataset.column_names == [
        "id",
        "language",
        "anchor_language",
        "input_ids",
        "labels",
        "anchor_input_ids",
        "anchor_labels",
    ]


def test_rows_without_an_anchor_have_none(tokenizer: PreTrainedTokenizerFast) -> None:
    given = [*rows("text", 1), {"id": "p", "language": "hin_Deva", "text": "नदी"}]
    result = tokenized(given, tokenizer)
    row = result.dataset[1]
    assert (row["anchor_input_ids"], row["anchor_labels"], row["anchor_language"]) == (None, None, None)
    assert result.dataset[0]["anchor_language"] == "eng_Latn"
    assert result.counts["kept_without_anchor"] == 1


def test_no_cache_file_is_left_beside_saved_rows(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    Dataset.from_list(rows("text")).save_to_disk(tmp_path / "rows")
    before = sorted(tmp_path.rglob("*"))
    tokenize_pairs(Dataset.load_from_disk(tmp_path / "rows"), tokenizer)
    assert sorted(tmp_path.rglob("*")) == before


def lengths(result: TokenizedPairs) -> list[tuple[int, int]]:
    return [(len(row["input_ids"]), len(row["anchor_input_ids"])) for row in result.dataset]


def test_the_limit_is_the_last_length_that_fits(tokenizer: PreTrainedTokenizerFast) -> None:
    longest = max(max(pair) for pair in lengths(tokenized(rows("text"), tokenizer)))
    assert tokenized(rows("text"), tokenizer, max_length=longest).counts["kept"] == 4
    with pytest.raises(DataError, match=f"max_length is {longest - 1}; 1 of 4 pairs are too long"):
        tokenized(rows("text"), tokenizer, max_length=longest - 1)


def test_an_overlong_error_names_the_row_both_lengths_and_the_remedy(tokenizer: PreTrainedTokenizerFast) -> None:
    target, anchor = lengths(tokenized(rows("text"), tokenizer))[0]
    message = rf"row '0': {target} tokens in the target and {anchor} in the anchor, .*4 of 4 pairs.*overlong: drop"
    with pytest.raises(DataError, match=message):
        tokenized(rows("text"), tokenizer, max_length=1)


@pytest.mark.parametrize("side", ["", "anchor_"])
def test_a_pair_is_dropped_whole_when_either_side_is_too_long(side: str, tokenizer: PreTrainedTokenizerFast) -> None:
    given = rows("text", 2)
    given[1][f"{side}text"] = "river " * 60
    result = tokenized(given, tokenizer, max_length=60, overlong="drop")
    assert result.dataset["id"][:] == ["0"]
    assert {"read": 2, "kept": 1, "dropped_overlong": 1}.items() <= result.counts.items()
    assert result.counts["tokens"] == len(result.dataset[0]["input_ids"])


def test_dropping_every_row_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="4 of 4 pairs are too long"):
        tokenized(rows("text"), tokenizer, max_length=1, overlong="drop")


def test_a_row_without_a_supervised_token_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    given = rows("messages", 2)
    given[1]["messages"] = given[1]["messages"][:2]
    with pytest.raises(
        DataError, match=r"row '1' \(swh_Latn\): the target has no token to train on: the chat template"
    ):
        tokenized(given, tokenizer, assistant_only_loss=True)


def test_an_anchor_without_a_supervised_token_is_named(make_tokenizer: MakeTokenizer) -> None:
    blank = make_tokenizer("{% for m in messages %}{{ m['content'] if m['role'] == 'user' else '' }}{% endfor %}")
    given = rows("chat", 1)
    with pytest.raises(DataError, match=r"row '0' .*: the completion adds no token to the prompt"):
        tokenized(given, blank)


def test_a_row_of_one_token_trains_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = Dataset.from_list([{"id": "1", "language": "swh_Latn", "prompt": "", "completion": ""}])
    with pytest.raises(DataError, match="no token to train on: the tokenizer makes 1 token of it"):
        tokenize_pairs(dataset, tokenizer)


def test_a_prompt_that_merges_with_its_completion_is_warned_of(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"id": "1", "language": "swh_Latn", "prompt": "The riv", "completion": "er is wide."}
    pairs = read_pairs(Dataset.from_list([row]), missing_anchor="keep")
    with pytest.warns(UserWarning, match=r"In 1 sides the prompt alone is not tokenised .*first row '1'"):
        tokenize_pairs(pairs.dataset, tokenizer)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("text", {"completion_only_loss": True}, "completion_only_loss needs prompt and completion; the rows have text"),
    ("messages", {"completion_only_loss": True}, "completion_only_loss needs prompt and completion"),
    ("plain", {"assistant_only_loss": True}, "assistant_only_loss needs messages"),
    ("text", {"overlong": "cut"}, "overlong: 'cut' is no policy"),
    ("text", {"max_length": 0}, "max_length is 0"),
]


@pytest.mark.parametrize(("form", "options", "message"), REFUSED)
def test_options_that_cannot_act_are_refused(
    form: str, options: dict[str, Any], message: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DataError, match=message):
        tokenized(rows(form), tokenizer, **options)


def test_a_template_without_marks_is_refused(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(DataError, match=r"assistant_only_loss: the chat template does not mark .*\{% generation %\}"):
        tokenized(rows("messages"), make_tokenizer(THINKING), assistant_only_loss=True)


def test_messages_need_a_chat_template(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(DataError, match="no chat template"):
        tokenized(rows("messages"), make_tokenizer(None))


def test_a_template_that_refuses_a_row_is_reported_with_the_row(make_tokenizer: MakeTokenizer) -> None:
    picky = make_tokenizer("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}")
    with pytest.raises(DataError, match="row 0: the chat template refuses its messages: no system"):
        tokenized(rows("messages"), picky)


def test_a_tokenizer_without_eos_is_refused(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(DataError, match="the tokenizer has no EOS token"):
        tokenized(rows("text"), make_tokenizer(pad_token="<|pad|>"))


BAD_COLUMNS: list[tuple[list[dict[str, Any]], str]] = [
    ([{"text": "a"}], "the rows have the columns text; needed are id, language"),
    ([{"id": "1", "language": "swh_Latn", "input_ids": [1]}], "tokenised already"),
    ([{"id": "1", "language": "swh_Latn", "text": "a", "messages": []}], "and one of: text; prompt and completion"),
    ([{"id": "1", "language": "swh_Latn", "text": None}], r"row '1' \(swh_Latn\): text must be text, not None"),
]


@pytest.mark.parametrize(("given", "message"), BAD_COLUMNS)
def test_rows_that_were_not_read_are_checked(
    given: list[dict[str, Any]], message: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DataError, match=message):
        tokenize_pairs(Dataset.from_list(given), tokenizer)
