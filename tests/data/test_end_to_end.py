"""verify -> translate -> pair -> check -> train, against `transformers serve` on loopback with a tiny model.

The model has learnt by heart to answer a few questions of the pack and to translate them, and answers all else wrongly:
both ways through the pipeline are walked. The translations it learnt are people's, from the same pack.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

from innerlingua.data import PACK_VARIABLE

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

KNOWN = 4
ASK = "{question} {choices}"
SAY = "{target_language}: {text}"
RIGHT, RIGHT_SWAHILI = "So it is \\boxed{%s}.", "Basi ni \\boxed{%s}."


@dataclass(frozen=True)
class Served:
    url: str
    model: Path
    choices: Path
    gsm8k: Path
    ask: Path
    say: Path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def first_rows(path: Path, count: int) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(next(stream)) for _ in range(count)]


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    # The marks of Qwen3: `transformers serve` takes a Qwen3 model's answers apart by them.
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<|im_end|>", chat_template=template
    )


def lettered(item: dict[str, Any], question: str) -> str:
    """A question of XCOPA as the template renders it; the choices stand on one line each."""
    what = f"\n\nWhat is the {question}?" if question else ""
    return f"{item['premise']}{what} A. {item['choices'][0]}\nB. {item['choices'][1]}"


def learn(tokenizer: PreTrainedTokenizerFast, dialogues: list[tuple[str, str]]) -> Qwen3MoeForCausalLM:
    """A tiny Qwen3-MoE that has these dialogues by heart."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        moe_intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        tie_word_embeddings=False,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen3MoeForCausalLM(config)
    texts = []
    for asked, said in dialogues:
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        whole = tokenizer.apply_chat_template(messages, return_dict=False)
        start = len(tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False))
        texts.append((whole, [-100] * start + whole[start:]))
    width = max(len(ids) for ids, _ in texts)
    ids = torch.tensor([i + [tokenizer.pad_token_id] * (width - len(i)) for i, _ in texts])
    labels = torch.tensor([x + [-100] * (width - len(x)) for _, x in texts])
    mask = torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i, _ in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(400):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    return model.eval()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if PACK_VARIABLE not in os.environ:
        pytest.skip(f"{PACK_VARIABLE} is not set")
    pack = Path(os.environ[PACK_VARIABLE])
    folder = tmp_path_factory.mktemp("served")
    chosen = first_rows(pack / "mcq" / "xcopa.jsonl.gz", KNOWN)
    dialogues = []
    for row in chosen:
        letter = "AB"[row["answer"]]
        english = lettered(row["items"]["eng_Latn"], row["question"])
        swahili = lettered(row["items"]["swh_Latn"], "").replace(" A. ", f"\n\nNini {row['question']}? A. ")
        dialogues += [(english, RIGHT % letter), (f"Swahili: {english}", swahili)]
    dialogues += [(f"Swahili: {RIGHT % letter}", RIGHT_SWAHILI % letter) for letter in "AB"]
    tokenizer = tokenizer_of([text for dialogue in dialogues for text in dialogue])
    learn(tokenizer, dialogues).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    choices, gsm8k = folder / "choices.jsonl", folder / "gsm8k.jsonl"
    choices.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in chosen), encoding="utf-8")
    some = first_rows(pack / "instruct" / "gsm8k_en.jsonl.gz", 2)
    gsm8k.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    (folder / "ask.txt").write_text(ASK)
    (folder / "say.txt").write_text(SAY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "serve.log").open("w")
    words = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen([*words, "--device", "cpu"], stdout=log, stderr=log, env=environment)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "serve.log").read_text()
            time.sleep(0.1)
        yield Served(
            f"http://127.0.0.1:{port}/v1", folder / "model", choices, gsm8k, folder / "ask.txt", folder / "say.txt"
        )
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def innerlingua(*words: str | Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "innerlingua.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_questions_to_a_trained_model(served: Served, tmp_path: Path) -> None:
    server = ("--model", served.model, "--url", served.url, "--concurrency", 2, "--max-tokens", 120)
    verified, targets, pairs = tmp_path / "verified.jsonl", tmp_path / "targets.jsonl", tmp_path / "train.jsonl"

    asked = innerlingua(
        *("data", "verify", served.choices, served.gsm8k, "--language", "eng_Latn", "--template", served.ask, *server),
        *("-o", verified),
    )
    assert "asked: 6" in asked
    anchors = rows_of(verified)
    assert {row["id"] for row in anchors} == {row["id"] for row in rows_of(served.choices)}
    assert anchors[0]["provenance"]["reply_model"] == f"{served.model}@main"
    assert {row["id"].split(":")[0] for row in rows_of(tmp_path / "verified.rejected.jsonl")} == {"gsm8k"}

    innerlingua(
        *("data", "translate", verified, "--to", "swh_Latn", "--template", served.say, *server, "-o", targets),
        *("--no-identify", "--tries", 1),
    )
    translated, aside = rows_of(targets), rows_of(tmp_path / "targets.set_aside.jsonl")
    assert len(translated) + len(aside) == KNOWN
    assert translated, aside

    innerlingua("data", "pair", targets, "--anchors", verified, "-o", pairs)
    checked = innerlingua("data", "check", pairs, "--tokenizer", served.model, "--test", served.gsm8k, "--json")
    report = json.loads(checked)
    assert report["languages"]["swh_Latn"]["rows"] == len(translated)
    assert report["languages"]["swh_Latn"]["untranslated"] == 0
    assert report["overlap"][str(served.gsm8k)]["overlapping"] == 0
    assert report["length_unit"] == "tokens"

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{path: {served.model}}}\nalignment: {{layers: 0-1}}\n"
        f"data: {{train: {pairs}, missing_anchor: error}}\n"
        f"trainer: {{output_dir: {tmp_path / 'run'}, max_steps: 1, per_device_train_batch_size: 2, report_to: none, "
        "gradient_checkpointing: false}\n"
    )
    innerlingua("train", recipe)
    assert list((tmp_path / "run").rglob("model.safetensors"))


def test_the_same_model_in_process_gives_the_same_verdicts(served: Served, tmp_path: Path) -> None:
    innerlingua(
        *(
            "data",
            "verify",
            served.choices,
            "--language",
            "eng_Latn",
            "--template",
            served.ask,
            "--model",
            served.model,
        ),
        *("--max-tokens", 40, "-o", tmp_path / "v.jsonl"),
    )
    assert len(rows_of(tmp_path / "v.jsonl")) == KNOWN
