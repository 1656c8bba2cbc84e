"""Models in this process, for small ones: causal models that answer, and sequence-to-sequence models that translate.

Requests that wait together go through the model together. A model whose vocabulary holds the language's FLORES-200 code
(NLLB and its kin) is told source and target by it; others by the words of the template. Sequence-to-sequence models
translate sentences, so a text goes through line by line, and lines without a letter are left as they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from innerlingua.data.work import Refused, Reply
from innerlingua.errors import ModelError
from innerlingua.weights import refuse_unsafe_weights

__all__ = ["LocalModel"]

_QUOTED: Final = 300


class LocalModel:
    """One model of `transformers`, asked like a server.

    Args:
        model: a folder, or a name on the hub.
        revision: on the hub.
        batch_size: conversations per forward pass.
    """

    def __init__(self, model: str, *, revision: str | None = None, batch_size: int = 8) -> None:
        self._name = model
        self._revision = revision
        self._batch_size = batch_size
        self._waiting: list[tuple[list[dict[str, str]], dict[str, Any], asyncio.Future[Reply]]] = []
        self._filled = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._load)
        self._loop = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def _load(self) -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        if self._name.startswith((".", "/", "~")) and not Path(self._name).is_dir():
            raise ModelError(f"--model {self._name}: no such folder. Give a folder or hub name, or --url for a server.")
        if Path(self._name).is_dir():
            refuse_unsafe_weights(Path(self._name), f"--model {self._name}")
        # Said, because transformers asks on the terminal where it is not.
        options: dict[str, Any] = {"revision": self._revision, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(self._name, **options)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self._name, **options)
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            self._model: Any = kind.from_pretrained(self._name, dtype="auto", use_safetensors=True, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            told = " ".join(str(error).split())
            if "trust_remote_code" in told:
                raise ModelError(
                    f"--model {self._name}: it comes with Python code of its own, which is not run here. Serve it "
                    "where you trust that code, and give --url"
                ) from error
            raise ModelError(
                f"--model {self._name}: cannot be loaded ({told[:_QUOTED]}). Give a folder or hub name, or --url for a "
                "server."
            ) from error
        if not self._tokenizer("1 + 1").input_ids:
            raise ModelError(f"--model {self._name}: its tokenizer makes no tokens of a text; save a tokenizer with it")
        self._longest = config.to_dict().get("max_position_embeddings")
        self._seq2seq = bool(config.is_encoder_decoder)
        self._model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if not self._seq2seq:
            self._tokenizer.padding_side = "left"
        self._commit = vars(config).get("_commit_hash")  # set for models of the hub, not for folders

    async def complete(self, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> Reply:
        """One completion. `settings` are those of a request; `source` and `target` name languages for translation."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(([dict(message) for message in messages], dict(settings), answer))
        self._filled.set()
        return await answer

    async def _serve(self) -> None:
        while True:
            await self._filled.wait()
            await asyncio.sleep(0)  # let those that come together be seen together
            # What can share a forward pass: the same settings; seeds differ only between draws.
            first = self._waiting[0][1]
            batch = [entry for entry in self._waiting if entry[1] == first][: self._batch_size]
            chosen = {id(entry) for entry in batch}
            self._waiting = [entry for entry in self._waiting if id(entry) not in chosen]
            if not self._waiting:
                self._filled.clear()
            try:
                replies = await asyncio.to_thread(self._generate, [entry[0] for entry in batch], first)
            except Exception as error:
                for *_, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (*_, answer), reply in zip(batch, replies, strict=True):
                if answer.done():
                    continue
                if isinstance(reply, Refused):
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)

    def _generate(self, conversations: list[list[dict[str, str]]], settings: dict[str, Any]) -> list[Reply | Refused]:
        if self._seq2seq:
            return [self._translated(messages[-1]["content"], settings) for messages in conversations]
        texts = [self._rendered(messages) for messages in conversations]
        fitting = [text for text in texts if self._room(text, settings) >= 0]
        replies = iter([self._reply(text, cut) for text, cut in self._run(fitting, settings)] if fitting else [])
        return [next(replies) if self._room(text, settings) >= 0 else self._too_long(text, settings) for text in texts]

    def _room(self, text: str, settings: dict[str, Any]) -> int:
        """How many tokens the model takes beyond this prompt and its answer; 0 when it names no limit."""
        if self._longest is None:
            return 0
        templated = self._tokenizer.chat_template is not None
        length = len(self._tokenizer(text, add_special_tokens=not templated).input_ids)
        return int(self._longest) - length - int(settings["max_tokens"])

    def _too_long(self, text: str, settings: dict[str, Any]) -> Refused:
        return Refused(
            f"{-self._room(text, settings)} tokens too many: prompt and --max-tokens {settings['max_tokens']} are more "
            f"than the {self._longest} that the model takes; lower --max-tokens, or leave the row out"
        )

    def _translated(self, text: str, settings: dict[str, Any]) -> Reply:
        lines = text.split("\n")
        spoken = [i for i, line in enumerate(lines) if re.search(r"[^\W\d_]", line)]
        cut = False
        for start in range(0, len(spoken), self._batch_size):
            part = spoken[start : start + self._batch_size]
            for i, (line, ended) in zip(part, self._run([lines[i] for i in part], settings), strict=True):
                lines[i] = line
                cut = cut or ended
        return self._reply("\n".join(lines), cut)

    def _reply(self, text: str, cut: bool) -> Reply:
        model = f"{self._name}@{self._commit}" if self._commit else self._name
        return Reply(text, "length" if cut else "stop", model)

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        if self._tokenizer.chat_template is None:
            return "\n\n".join(message["content"] for message in messages)
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _run(self, texts: list[str], settings: dict[str, Any]) -> list[tuple[str, bool]]:
        """Continuations (or translations) of a batch, and whether each was cut off by the limit of tokens."""
        import torch

        options: dict[str, Any] = {
            "max_new_tokens": settings["max_tokens"],
            "pad_token_id": self._tokenizer.pad_token_id,
        }
        if settings["temperature"] > 0:
            options |= {"do_sample": True, "temperature": settings["temperature"], "top_p": settings["top_p"]}
        else:
            options |= {"do_sample": False}
        if "target" in settings:
            options |= self._languages(settings["source"], settings["target"])
        templated = not self._seq2seq and self._tokenizer.chat_template is not None
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not templated)
        inputs.pop("token_type_ids", None)
        torch.manual_seed(settings["seed"])
        with torch.inference_mode():
            out: Any = self._model.generate(**inputs.to(self._model.device), **options)
        if not self._seq2seq:
            out = out[:, inputs["input_ids"].shape[1] :]
        ends = self._model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        results = []
        for row in out.tolist():
            ended = any(token in ends for token in row[self._seq2seq :])
            results.append((self._tokenizer.decode(row, skip_special_tokens=True), not ended))
        return results

    def _languages(self, source: str, target: str) -> dict[str, Any]:
        """What tells a translation model its languages; nothing where its vocabulary does not know the codes."""
        vocabulary = self._tokenizer.get_vocab()
        if source not in vocabulary or target not in vocabulary:
            return {}
        if hasattr(self._tokenizer, "src_lang"):
            self._tokenizer.src_lang = source
        return {"forced_bos_token_id": vocabulary[target]}
