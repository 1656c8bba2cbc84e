from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, T5Config, T5ForConditionalGeneration

from innerlingua.data.local import LocalModel
from innerlingua.data.work import Refused, Reply
from innerlingua.errors import ModelError

SETTINGS = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 8, "seed": 1}


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and two language codes as words of the vocabulary."""
    names = ["<pad>", "</s>", "eng_Latn", "swh_Latn", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    made.add_special_tokens({"additional_special_tokens": ["eng_Latn", "swh_Latn"]})
    return made


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=260,
        max_position_embeddings=512,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seq2seq")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=260, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0, eos_token_id=1
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def ask(folder: Path, texts: list[str], **more: object) -> list[Reply]:
    async def run() -> list[Reply]:
        async with LocalModel(str(folder), batch_size=4) as model:
            requests = (model.complete([{"role": "user", "content": t}], {**SETTINGS, **more}) for t in texts)
            return list(await asyncio.gather(*requests))

    return asyncio.run(run())


def test_a_batch_gives_each_text_the_answer_it_gets_alone(causal: Path) -> None:
    texts = ["a", "a longer text", "something else again"]
    together = [reply.text for reply in ask(causal, texts)]
    assert together == [ask(causal, [text])[0].text for text in texts]
    assert len(set(together)) > 1


def test_an_answer_that_uses_all_its_tokens_was_cut_off(causal: Path) -> None:
    assert ask(causal, ["a"])[0].finish == "length"


def test_sampling_follows_its_seed(causal: Path) -> None:
    first, again, other = (ask(causal, ["a"], temperature=1.0, seed=s)[0].text for s in (1, 1, 2))
    assert first == again != other


def test_a_translation_model_goes_line_by_line_and_leaves_lines_without_words(seq2seq: Path) -> None:
    (reply,) = ask(seq2seq, ["one line\n\n2 + 2 = 4\nanother"], source="eng_Latn", target="swh_Latn")
    lines = reply.text.split("\n")
    assert len(lines) >= 4
    assert "2 + 2 = 4" in lines


def test_the_target_language_is_the_first_token_where_the_vocabulary_has_it(
    seq2seq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []
    plain = T5ForConditionalGeneration.generate

    def spy(self: T5ForConditionalGeneration, **options: object) -> object:
        out = plain(self, **options)  # type: ignore[arg-type]
        seen.extend(out[:, 1].tolist())  # type: ignore[index]
        return out

    monkeypatch.setattr(T5ForConditionalGeneration, "generate", spy)
    ask(seq2seq, ["a b", "c d"], source="eng_Latn", target="swh_Latn")
    assert seen == [3, 3]


def test_a_prompt_that_is_too_long_is_refused_and_the_others_of_its_batch_are_answered(causal: Path) -> None:
    longest = Qwen3Config.from_pretrained(causal).max_position_embeddings

    async def run() -> list[Reply | BaseException]:
        async with LocalModel(str(causal), batch_size=4) as model:
            texts = ["a", "b" * longest, "c"]
            requests = (model.complete([{"role": "user", "content": t}], SETTINGS) for t in texts)
            return list(await asyncio.gather(*requests, return_exceptions=True))

    first, second, third = asyncio.run(run())
    assert isinstance(first, Reply)
    assert isinstance(third, Reply)
    assert isinstance(second, Refused)
    assert f"8 tokens too many: prompt and --max-tokens 8 are more than the {longest}" in str(second)


def test_a_model_that_cannot_be_loaded_is_named(causal: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        ask(tmp_path, ["a"])
    with pytest.raises(ModelError, match="no such folder"):
        ask(tmp_path / "nothing", ["a"])
    damaged, mute = tmp_path / "damaged", tmp_path / "mute"
    for folder in (damaged, mute):
        shutil.copytree(causal, folder)
    (damaged / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"cannot be loaded \(.*header"):
        ask(damaged, ["a"])
    for file in mute.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"no tokens of a text|cannot be loaded"):
        ask(mute, ["a"])
