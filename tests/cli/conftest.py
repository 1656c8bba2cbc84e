"""A tiny Qwen3-MoE, its tokenizer and forty pairs on disk, and the command run on them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, STEPS, TINY, Done, Run, command, options, pairs, write_rows


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model/` and `pairs.jsonl`. Random weights: what is tested is the command, not learning."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *alphabet])}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>")
    config = Qwen3MoeConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        moe_intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        tie_word_embeddings=True,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_rows(folder / "pairs.jsonl", pairs())
    return folder


@pytest.fixture
def innerlingua(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """`innerlingua("train", ...)`: the verb on the tiny recipe, into `tmp_path / "out"`, with these further options.

    The command's own entry point, in this process: starting one takes seconds. `test_resume.py` starts real ones.
    """
    import torch

    from innerlingua.cli import main

    def run(*words: str, code: int = 0) -> Done:
        verb = [word for word in words[:2] if word in ("train", "routing", "prior")]
        rest = words[len(verb) :]
        monkeypatch.setattr(sys, "argv", ["innerlingua", *verb, str(TINY), *options(tiny, tmp_path / "out"), *rest])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        streams = capfd.readouterr()
        done = Done(int(left.value.code or 0), streams.out, streams.err)
        assert done.code == code, f"{done.out}\n{done.err}"
        assert code == 1 or "Traceback" not in done.err, done.err
        return done

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    yield run
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of twelve steps that nothing interrupted."""
    output = tmp_path_factory.mktemp("finished") / "out"
    words = [*options(tiny, output), *STEPS]
    done = subprocess.run(
        command("train", str(TINY), *words), capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return output
