"""One side of a pair as token ids and labels, equal to what `trl.SFTTrainer` makes of the same row.

The rules are TRL's (1.16, `SFTTrainer._prepare_dataset`), so that a run without alignment trains on the same tokens:

- `text`: the text plus EOS unless it ends with it; every token has a label.
- `prompt` and `completion` as text: EOS after the completion; the completion begins where the ids of the prompt alone
  and of both together part, and it alone has labels unless `completion_only_loss` is false.
- as messages: both through the chat template, the prompt alone with the generation prompt.
- `messages`: through the chat template; with `assistant_only_loss`, labels where the template marks what the assistant
  generates, and TRL's training template when the tokenizer's own has no marks.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from innerlingua.data.rows import KINDS, Content, final_text
from innerlingua.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = ["IGNORED", "Plan", "Side", "encode_sides", "plan_for", "reply_place", "side_content"]

IGNORED: Final = -100
"""Label of a token without loss, as in torch and transformers."""

# Characters of a private use area, in an order that no text has: they stand for the reply while its place is looked up.
_SENTINEL = "\ue0f1\ue0a7\ue0f3"


@dataclass(frozen=True)
class Plan:
    """All that decides how a side becomes tokens; the same for target and anchor."""

    tokenizer: PreTrainedTokenizerBase
    columns: tuple[str, ...]
    conversational: bool
    completion_only: bool
    assistant_only: bool
    template: str | None
    template_kwargs: dict[str, Any]
    with_offsets: bool


@dataclass(frozen=True)
class Side:
    """One side as tokens; `prompt_rest` is the end of the prompt that the whole does not begin with (most often [])."""

    input_ids: list[int]
    labels: list[int]
    offsets: list[tuple[int, int]] | None
    prompt_rest: list[int]


def plan_for(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    completion_only_loss: bool | None,
    assistant_only_loss: bool,
    template_kwargs: dict[str, Any],
) -> Plan:
    """Choose how to tokenise, and refuse options that could not act."""
    names = dataset.column_names
    if "input_ids" in names:
        raise DataError("the rows are tokenised already (column 'input_ids'); give rows of text")
    missing = [name for name in ("id", "language") if name not in names]
    kinds = [columns for columns in KINDS.values() if set(columns) <= set(names)]
    if missing or len(kinds) != 1:
        needed = "id, language, and one of: text; prompt and completion; messages"
        raise DataError(
            f"the rows have the columns {', '.join(names)}; needed are {needed}. read_pairs gives such rows."
        )
    if len(dataset) == 0:
        raise DataError("no rows to tokenise")
    columns = kinds[0]
    conversational = isinstance(dataset[0][columns[0]], list)
    if completion_only_loss and columns != KINDS["prompt"]:
        raise DataError(f"completion_only_loss needs prompt and completion; the rows have {columns[0]}")
    if assistant_only_loss and not conversational:
        raise DataError(f"assistant_only_loss needs messages; the rows have plain {' and '.join(columns)}")
    with_spans = "spans" in names
    _check_tokenizer(tokenizer, conversational, needs_offsets=with_spans or assistant_only_loss)
    return Plan(
        tokenizer=tokenizer,
        columns=columns,
        conversational=conversational,
        completion_only=columns == KINDS["prompt"] if completion_only_loss is None else completion_only_loss,
        assistant_only=assistant_only_loss,
        template=_training_template(tokenizer) if assistant_only_loss else None,
        template_kwargs=template_kwargs,
        with_offsets=with_spans,
    )


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, conversational: bool, *, needs_offsets: bool) -> None:
    if tokenizer.eos_token is None and (tokenizer.pad_token is None or not conversational):
        raise DataError(
            "the tokenizer has no EOS token, so a text would have no end (and rows no padding). Set one that is in its "
            "vocabulary: tokenizer.eos_token = ..."
        )
    if conversational and tokenizer.chat_template is None:
        raise DataError(
            "the tokenizer has no chat template to render messages with. Set tokenizer.chat_template, take the "
            "tokenizer of an instruct model, or write the rows as prompt and completion in plain text."
        )
    if needs_offsets and not tokenizer.is_fast:
        raise DataError(
            "spans and assistant_only_loss need a fast tokenizer (one with character offsets); this is a slow one"
        )


def _training_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template whose generation marks say what the assistant wrote: None for the tokenizer's own, or TRL's."""
    from trl.chat_template_utils import (
        get_training_chat_template,
        has_generation_markers,
        is_chat_template_stop_token_trained,
    )

    template: str | None = None
    if not has_generation_markers(tokenizer.chat_template):
        try:
            template = get_training_chat_template(tokenizer)
        except ValueError as error:
            raise DataError(
                "assistant_only_loss: the chat template does not mark what the assistant generates, and TRL has no "
                "training version of it. Put {% generation %} ... {% endgeneration %} around the reply (its end token "
                "included), or write the rows as prompt and completion."
            ) from error
    if not is_chat_template_stop_token_trained(tokenizer, chat_template=template):
        warnings.warn(
            "The chat template leaves the token that ends the assistant's turn outside {% generation %}: the model may "
            "not learn to stop.",
            stacklevel=4,
        )
    return template


def side_content(row: dict[str, Any], plan: Plan, prefix: str) -> Content:
    """The content columns of one side of a row, without prefix; refused when they have not the dataset's form."""
    content = {column: row.get(prefix + column) for column in plan.columns}
    for column, value in content.items():
        if not isinstance(value, list if plan.conversational else str) or (plan.conversational and not value):
            form = "a list of messages" if plan.conversational else "text"
            raise DataError(f"row {row['id']!r} ({row['language']}): {prefix}{column} must be {form}, not {value!r}")
    return content


def encode_sides(contents: list[Content], ids: list[str], plan: Plan) -> list[Side]:
    """The sides of a batch as tokens; `ids` name the rows in errors."""
    if not contents:
        return []
    if plan.conversational:
        return [_encode_messages(content, row_id, plan) for content, row_id in zip(contents, ids, strict=True)]
    return _encode_plain(contents, plan)


def _encode_plain(contents: list[Content], plan: Plan) -> list[Side]:
    """Plain text: one call of the tokenizer for all wholes, and one for all prompts."""
    whole = plan.tokenizer(
        text=[_whole_text(content, plan) for content in contents], return_offsets_mapping=plan.with_offsets
    )
    prompts: list[list[int]] = [[] for _ in contents]
    if "prompt" in plan.columns:
        prompts = plan.tokenizer(text=[content["prompt"] for content in contents])["input_ids"]
    sides = []
    for index, (ids, prompt) in enumerate(zip(whole["input_ids"], prompts, strict=True)):
        offsets = whole["offset_mapping"][index] if plan.with_offsets else None
        sides.append(_side(ids, prompt, None, offsets, plan))
    return sides


def _whole_text(content: Content, plan: Plan) -> str:
    """The text of one side with its end: EOS, unless the last part ends with it."""
    eos = str(plan.tokenizer.eos_token)
    text = "".join(content.values())
    return text if content[plan.columns[-1]].endswith(eos) else text + eos


def _encode_messages(content: Content, row_id: str, plan: Plan) -> Side:
    options = {"tokenizer_kwargs": {"return_offsets_mapping": True}} if plan.with_offsets else {}
    whole = _render(
        [message for part in content.values() for message in part],
        row_id,
        plan,
        return_assistant_tokens_mask=plan.assistant_only,
        **options,
    )
    prompt = (
        _render(content["prompt"], row_id, plan, add_generation_prompt=True)["input_ids"] if "prompt" in content else []
    )
    return _side(whole["input_ids"], prompt, whole.get("assistant_masks"), whole.get("offset_mapping"), plan)


def _render(messages: list[dict[str, str]], row_id: str, plan: Plan, **options: Any) -> Any:
    from jinja2 import TemplateError

    try:
        return plan.tokenizer.apply_chat_template(
            messages,
            chat_template=plan.template,
            **{"tokenize": True, "return_dict": True} | options,
            **plan.template_kwargs,
        )
    except TemplateError as error:
        raise DataError(f"row {row_id}: the chat template refuses its messages: {error}") from error


def _side(
    ids: list[int],
    prompt: list[int],
    assistant: list[int] | None,
    offsets: list[tuple[int, int]] | None,
    plan: Plan,
) -> Side:
    """Labels from the masks that apply: the completion begins where prompt and whole part."""
    shared = 0
    while shared < min(len(prompt), len(ids)) and prompt[shared] == ids[shared]:
        shared += 1
    first = shared if plan.completion_only else 0
    labels = [
        token if index >= first and (assistant is None or assistant[index]) else IGNORED
        for index, token in enumerate(ids)
    ]
    return Side(ids, labels, offsets, prompt[shared:])


def reply_place(content: Content, plan: Plan, row_id: str) -> tuple[int, int]:
    """Where the text that spans point into begins in what was tokenised, and how many of its first characters are not.

    Plain text stands behind the prompt. A reply stands where a sentinel put in its place shows up: the rendered text
    must be the same before it, and the reply must follow as it is written, or without the blanks around it, which some
    templates cut away.
    """
    if not plan.conversational:
        return len(content["prompt"]) if "prompt" in content else 0, 0
    reply = final_text(content)
    if reply is None:
        raise DataError(f"row {row_id}: spans, and no assistant message for them to point into")
    parts = {column: list(messages) for column, messages in content.items()}
    final = parts[plan.columns[-1]]
    at = max(index for index, message in enumerate(final) if message["role"] == "assistant")
    rendered = _render([m for part in parts.values() for m in part], row_id, plan, tokenize=False)
    final[at] = {**final[at], "content": _SENTINEL}
    marked = _render([m for part in parts.values() for m in part], row_id, plan, tokenize=False)
    position = marked.find(_SENTINEL)
    for text, lead in ((reply, 0), (reply.strip(), len(reply) - len(reply.lstrip()))):
        if position >= 0 and rendered[:position] == marked[:position] and rendered.startswith(text, position):
            return position, lead
    raise DataError(
        f"row {row_id}: the chat template does not render the last assistant message as it is written, so its spans "
        "have no place. Leave the spans out, or write the rows as plain prompt and completion."
    )
