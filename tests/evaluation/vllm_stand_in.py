"""A stand-in for vLLM, which needs a GPU and another torch: the calls that the harness makes, answered by transformers.

What is tested with it is everything but vLLM: the harness's backend and ours on top of it. Its answers have vLLM's form
(a log-probability of each token of the prompt, the reason why an answer ended), so their values can be compared with
those of the Hugging Face backend.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class SamplingParams:
    temperature: float = 1.0
    prompt_logprobs: int | None = None
    max_tokens: int = 16
    detokenize: bool = True
    stop: Any = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True


class LLM:
    """As much of `vllm.LLM` as the harness calls."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, model: str, **options: Any) -> None:
        LLM.made.append({"model": model, **options})
        self._model = AutoModelForCausalLM.from_pretrained(model).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        length = options.get("max_model_len") or self._model.config.max_position_embeddings
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=length))

    def generate(self, prompts: list[Any], sampling_params: list[SamplingParams], **options: Any) -> list[Any]:
        return [self._answer(prompt, params) for prompt, params in zip(prompts, sampling_params, strict=True)]

    @torch.no_grad()
    def _answer(self, prompt: Any, params: SamplingParams) -> Any:
        tokens = list(prompt["prompt_token_ids"])
        assert len(tokens) + params.max_tokens <= self.llm_engine.model_config.max_model_len  # as vLLM does
        if params.prompt_logprobs is not None:
            table = torch.log_softmax(self._model(torch.tensor([tokens])).logits[0].float(), dim=-1)
            scored: list[Any] = [None]
            for place in range(1, len(tokens)):
                row = table[place - 1]
                best = int(row.argmax())
                scored.append({best: float(row[best]), tokens[place]: float(row[tokens[place]])})
            return SimpleNamespace(prompt_logprobs=scored, outputs=[])
        new: list[int] = []
        reason = "length"
        while len(new) < params.max_tokens:
            new.append(int(self._model(torch.tensor([tokens + new])).logits[0, -1].argmax()))
            text = self._tokenizer.decode(new)
            if new[-1] == self._tokenizer.eos_token_id or any(end in text for end in params.stop or []):
                reason = "stop"
                break
        return SimpleNamespace(outputs=[SimpleNamespace(text=self._tokenizer.decode(new), finish_reason=reason)])


def install(folder: Path) -> None:
    """Put the stand-in where `import vllm` finds it, with the metadata of an installed distribution."""
    modules = {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams, "TokensPrompt": dict},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lambda *words: words},
        "vllm.tokenizers": {"get_tokenizer": lambda name, **_: AutoTokenizer.from_pretrained(name)},
        "vllm.renderers": {},
        "vllm.renderers.hf": {"resolve_chat_template": lambda tokenizer, **_: tokenizer.chat_template},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(content)
        sys.modules[name] = module
    metadata = folder / "vllm-0.33.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.33.0\n", encoding="utf-8")
    sys.path.insert(0, str(folder))


def remove(folder: Path) -> None:
    """Undo `install`."""
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]:
        del sys.modules[name]
