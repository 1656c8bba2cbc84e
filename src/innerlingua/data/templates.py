r"""Prompt templates: plain text with `{names}` in it, ours by name, the user's from a file.

A template is text and never code: a name in braces that the template's kind knows is replaced, every other brace is
left as it is, so `\boxed{}` needs no escaping. Its name and a hash of its text go into every row that it made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from innerlingua.errors import DataError, nearest

__all__ = ["ANSWER_TEMPLATES", "TRANSLATE_TEMPLATES", "Template", "load_template"]

ANSWER_TEMPLATES: Final[dict[str, str]] = {
    "reasoning": "{question}\n\nReason step by step, and put your final answer in \\boxed{}.",
    "choice": "{question}\n\n{choices}\n\nReason step by step, and put the letter of the right choice in \\boxed{}.",
    "plain": "{question}",
}
"""For `verify`: {question}, and {choices} as lettered lines."""

TRANSLATE_TEMPLATES: Final[dict[str, str]] = {
    "general": (
        "Translate the text below from {source_language} to {target_language}. "
        "Reply with the translation only.\n\n{text}"
    ),
    "mathematics": (
        "Translate the text below, a piece of mathematics, from {source_language} to {target_language}. Do not solve "
        "or correct anything. Keep every number in digits, every formula, LaTeX command, \\boxed{} with its content, "
        "code and placeholder exactly as it stands. Reply with the translation only.\n\n{text}"
    ),
    "choice": (
        "Translate the text below, a question with lettered choices or an answer to one, from {source_language} to "
        "{target_language}. Do not answer it. Keep the letters of the choices, every number, \\boxed{} with its "
        "content, code and placeholders exactly as they stand. Reply with the translation only.\n\n{text}"
    ),
    "bare": "{text}",
}
"""For `translate`: {text}, {source_language}, {target_language}; `bare` suits models that translate and do not chat."""


@dataclass(frozen=True)
class Template:
    """A template: its name, its text, and the names it may use."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every `{name}` of `values` replaced, in one pass: what is put in is not read again."""
        out, at = [], 0
        while (start := self.text.find("{", at)) >= 0:
            end = self.text.find("}", start)
            name = self.text[start + 1 : end] if end >= 0 else ""
            if name in values:
                out += [self.text[at:start], values[name]]
                at = end + 1
            else:
                out.append(self.text[at : start + 1])
                at = start + 1
        return "".join([*out, self.text[at:]])


def load_template(name: str, known: Mapping[str, str], *, needs: str) -> Template:
    """A template by name, or from a text file.

    Args:
        name: one of `known`, or a path.
        known: our templates.
        needs: the name that the template must use, such as `text`.

    Raises:
        DataError: neither a template nor a file, or the text lacks `{needs}`.
    """
    if name in known:
        return Template(name, known[name])
    path = Path(name)
    if not path.is_file():
        raise DataError(f"--template {name!r}: no such template or file{nearest(name, known)}")
    try:
        text = path.read_text(encoding="utf-8").strip("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"--template {name}: no text in UTF-8; a template is a text file") from error
    if "{" + needs + "}" not in text:
        raise DataError(f"--template {name}: the text must hold {{{needs}}}, where the row's text goes")
    return Template(path.name, text)
