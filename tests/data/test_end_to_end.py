"""verify -> translate -> pair -> check -> train, against `transformers serve` on loopback with a tiny model.

The model has learnt by heart to answer a few questions of the pack and to translate them, and answers all else wrongly:
both ways through the pipeline are walked. The translations it learnt are people's, from the same pack.
"""

from __future__ import annotations

import gzip
import json
import os
import random
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
from trust.soak_record import record

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

KNOWN = 4
MANY = 60
ASK = "{question} {choices}"
SAY = "{target_language}: {text}"
RIGHT, RIGHT_SWAHILI = "So it is \\boxed{%s}.", "Basi ni \\boxed{%s}."


@dataclass(frozen=True)
class Served:
    url: str
    model: Path
    choices: Path
    gsm8k: Path
    many: Path
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
    some = first_rows(pack / "instruct" / "gsm8k_en.jsonl.gz", MANY)
    for path, count in ((gsm8k, 2), (folder / "many.jsonl", MANY)):
        path.write_text("".join(json.dumps(row) + "\n" for row in some[:count]), encoding="utf-8")
    (folder / "ask.txt").write_text(ASK)
    (folder / "say.txt").write_text(SAY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "serve.log").open("w")
    words = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([*words, "--device", "cpu"], stdout=log, stderr=log, env=environment())
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "serve.log").read_text()
            time.sleep(0.1)
        yield Served(
            f"http://127.0.0.1:{port}/v1",
            folder / "model",
            choices,
            gsm8k,
            folder / "many.jsonl",
            folder / "ask.txt",
            folder / "say.txt",
        )
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "innerlingua.cli", *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def innerlingua(*words: object) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, env=environment())
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


def killed(words: list[str], journal: Path, lines: int, rng: random.Random) -> bool:
    """Start, and kill -9 a moment after the journal has grown by `lines`; whether it was alive then."""

    def length() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    target = length() + lines
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    while process.poll() is None and length() < target:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.05))
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def verdicts(path: Path) -> dict[str, list[tuple[str, str]]]:
    """What a run decided: ids kept, ids rejected with the reason, and the counts of its card."""
    kept = [(row["id"], row["completion"]) for row in rows_of(path)]
    rejected = [(row["id"], row["reason"]) for row in rows_of(path.with_name(f"{path.stem}.rejected.jsonl"))]
    card = path.with_name(f"{path.stem}.card.md").read_text(encoding="utf-8").split("## Made from")[0]
    counts = [tuple(line.strip("| ").split(" | ")) for line in card.splitlines() if line.startswith("| ")]
    return {"kept": kept, "rejected": rejected, "counts": counts}


def kill_and_continue(served: Served, tmp_path: Path, *, kills: int, questions: int) -> int:
    rng = random.Random(kills)
    many = tmp_path / "many.jsonl"
    many.write_text("".join(served.many.read_text(encoding="utf-8").splitlines(keepends=True)[:questions]))
    words = ("data", "verify", served.choices, many, "--language", "eng_Latn", "--template", served.ask)
    words += ("--model", served.model, "--url", served.url, "--concurrency", 1, "--max-tokens", 24, "-o")
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    innerlingua(*words, whole)
    journal, total = tmp_path / "broken.jsonl.journal", 1 + questions + KNOWN
    alive = 0
    for _ in range(kills):
        alive += killed(command(*words, broken), journal, rng.randint(0, max(1, total // (kills + 2))), rng)
        if broken.exists():
            break  # it was faster than the kill
    if not broken.exists():
        innerlingua(*words, broken)
    assert verdicts(broken) == verdicts(whole)
    assert len(verdicts(whole)["kept"]) == KNOWN
    keys = [json.loads(line)["key"] for line in journal.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(keys) == len(set(keys)) == questions + KNOWN
    return alive


def test_a_run_that_is_killed_on_a_real_server_goes_on_to_the_same_rows(served: Served, tmp_path: Path) -> None:
    assert kill_and_continue(served, tmp_path, kills=3, questions=12) > 0


@pytest.mark.slow
def test_twenty_kills_on_a_real_server(served: Served, tmp_path: Path) -> None:
    alive = kill_and_continue(served, tmp_path, kills=20, questions=MANY)
    assert alive > 15
    record(
        "data work with a real server that is killed gives the same rows",
        "`innerlingua data verify` against transformers' own server, killed by SIGKILL and gone on with",
        alive,
        "kills",
        "the same rows and verdicts; each question asked once",
    )


def test_the_same_model_in_process_gives_the_same_verdicts(served: Served, tmp_path: Path) -> None:
    words = ("data", "verify", served.choices, "--language", "eng_Latn", "--template", served.ask)
    innerlingua(*words, "--model", served.model, "--max-tokens", 40, "-o", tmp_path / "v.jsonl")
    assert len(rows_of(tmp_path / "v.jsonl")) == KNOWN
