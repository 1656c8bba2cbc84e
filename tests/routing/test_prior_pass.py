"""The pass that computes a prior: its batches, what it keeps when it is cut short, and how the next one goes on."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerlingua.errors import PriorError
from innerlingua.routing import RoutingPrior, prior_files, prior_partial
from innerlingua.routing.pooling import batches_by_length, padding_share
from innerlingua.routing.prior_files import record_text, write_prior
from innerlingua.routing.prior_pass import share_of
from tiny import tiny_model

VOCAB = 64
LENGTHS = [3, 17, 5, 8, 30, 4, 9, 2, 12, 6, 7, 11]
BATCHES = 3  # of the anchors below, at two rows of the longest


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model(vocab_size=VOCAB)


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Twelve anchors of 2 to 30 tokens."""
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, VOCAB, length).tolist() for length in LENGTHS]
    return Dataset.from_list(
        [{"id": f"{at:02d}", "language": "swh_Latn", "input_ids": x, "anchor_input_ids": x} for at, x in enumerate(ids)]
    )


Compute = Callable[..., RoutingPrior]


@pytest.fixture
def compute(model: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> Compute:
    def compute(**changes: Any) -> RoutingPrior:
        given = {"model": model, "dataset": rows, "batch_size": 2, "progress": False} | changes
        return RoutingPrior.compute(given.pop("model"), given.pop("dataset"), tokenizer, **given)

    return compute


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is written by itself."""
    monkeypatch.setattr(prior_partial, "PIECE_BYTES", 1)


@contextmanager
def counted_passes(model: PreTrainedModel) -> Iterator[list[int]]:
    """The number of rows of each forward pass inside."""
    sizes: list[int] = []
    handle = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        yield sizes
    finally:
        handle.remove()


class TestBatches:
    def test_the_longest_come_first_and_shorter_ones_fill_as_many_positions(self) -> None:
        assert batches_by_length([2, 10, 5, 5, 9, 1], 2) == [[1, 4], [2, 3, 0, 5]]
        assert batches_by_length([7], 3) == [[0]]
        assert batches_by_length([], 3) == []

    @pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
    def test_every_text_once_and_never_more_positions_than_the_longest_rows(self, batch_size: int) -> None:
        lengths = np.random.default_rng(batch_size).integers(1, 200, 500).tolist()
        batches = batches_by_length(lengths, batch_size)
        assert sorted(place for batch in batches for place in batch) == list(range(500))
        widths = [max(lengths[place] for place in batch) for batch in batches]
        assert widths == sorted(widths, reverse=True)
        limit = batch_size * max(lengths)
        assert all(len(batch) * width <= limit for batch, width in zip(batches, widths, strict=True))
        assert len(batches[0]) >= min(batch_size, 500)

    def test_padding_in_closed_form(self) -> None:
        assert padding_share([4, 4, 2], [[0, 1], [2]]) == 0.0
        assert padding_share([4, 2], [[0, 1]]) == pytest.approx(2 / 8)
        assert padding_share([], []) == 0.0

    def test_like_lengths_need_less_padding(self) -> None:
        lengths = np.random.default_rng(0).integers(1, 200, 500).tolist()
        mixed = [list(range(start, start + 10)) for start in range(0, 500, 10)]
        assert padding_share(lengths, batches_by_length(lengths, 8)) < 0.1 < padding_share(lengths, mixed)

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_shares_hold_every_batch_once_and_as_many_passes_each_where_asked(self, size: int) -> None:
        batches = [[place] for place in range(5)]
        shares = [share_of(batches, rank, size) for rank in range(size)]
        assert sorted(batch for share in shares for batch in share) == batches
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        even = [share_of(batches, rank, size, even=True) for rank in range(size)]
        assert len({len(share) for share in even}) == 1
        assert [[batch for batch in share if batch] for share in even] == shares


class TestFolder:
    def test_it_is_what_is_computed_in_memory(self, compute: Compute, tmp_path: Path) -> None:
        expected = compute()
        stored = compute(folder=tmp_path / "prior")
        assert stored.ids == expected.ids
        assert torch.equal(stored.rows(stored.ids), expected.rows(expected.ids))
        assert sorted(path.name for path in (tmp_path / "prior").iterdir()) == ["prior.json", "prior.safetensors"]
        expected.save(tmp_path / "saved")
        for name in ("prior.json", "prior.safetensors"):
            assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "prior" / name).read_bytes()

    def test_the_same_prior_is_opened_and_another_one_replaced(
        self, compute: Compute, model: PreTrainedModel, rows: Dataset, tmp_path: Path
    ) -> None:
        first = compute(folder=tmp_path)
        with counted_passes(model) as passes:
            again = compute(folder=tmp_path)
        assert passes == []
        assert torch.equal(again.rows(first.ids), first.rows(first.ids))
        fewer = compute(folder=tmp_path, dataset=rows.select(range(5)))
        assert RoutingPrior.open(tmp_path).ids == fewer.ids == ["00", "01", "02", "03", "04"]

    def test_it_says_how_much_is_padding(self, compute: Compute, capsys: pytest.CaptureFixture[str]) -> None:
        said: list[str] = []
        compute(say=said.append)
        assert said == ["routing prior: 114 tokens of anchors in 3 batches, 24.0% padding"]
        compute()
        assert capsys.readouterr().out == ""
        compute(progress=True)
        assert "114 tokens of anchors in 3 batches" in capsys.readouterr().out

    def test_rows_that_are_missing(self, tmp_path: Path) -> None:
        payload = record_text(
            ids=["a", "b"], texts=["", ""], layers=[0], experts=2, pooling="sequence", score="softmax", fingerprint={}
        )
        with pytest.raises(PriorError, match=r"1 of 2 rows .* not there: .* must be a folder that all of them share"):
            write_prior(tmp_path, payload, [([1], torch.zeros((1, 1, 2)))])
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_pieces")
class TestTakenUp:
    @pytest.mark.parametrize("cut_at", range(1, BATCHES + 3))
    def test_a_pass_that_is_cut_short_goes_on_where_it_was(
        self, cut_at: int, compute: Compute, model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At each of its renames: of a piece, of the stored tensor, of the record."""
        expected = compute()
        replace, renamed = os.replace, []

        def dies(source: Path, target: Path) -> None:
            renamed.append(target)
            if len(renamed) == cut_at:
                raise KeyboardInterrupt
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(prior_files.os, "replace", dies)
            with pytest.raises(KeyboardInterrupt):
                compute(folder=tmp_path)
        with pytest.raises(PriorError):
            RoutingPrior.open(tmp_path)
        said: list[str] = []
        with counted_passes(model) as passes:
            found = compute(folder=tmp_path, say=said.append)
        assert torch.equal(found.rows(found.ids), expected.rows(expected.ids))
        assert len(passes) == max(0, BATCHES + 1 - cut_at)
        assert any("of 12 anchors are done" in text for text in said) == (cut_at > 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["prior.json", "prior.safetensors"]

    def test_an_earlier_prior_stays_until_the_new_one_is_whole(
        self, compute: Compute, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        earlier = compute(folder=tmp_path, dataset=rows.select(range(5)))
        cut(compute, tmp_path, monkeypatch)
        assert RoutingPrior.open(tmp_path).ids == earlier.ids
        assert len(compute(folder=tmp_path)) == len(LENGTHS)

    def test_other_batches_than_before(
        self, compute: Compute, model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cut(compute, tmp_path, monkeypatch)
        with counted_passes(model) as passes:
            found = compute(folder=tmp_path, batch_size=3)
        assert sum(passes) == 12 - 2  # the first batch, of the two longest, was done
        expected = compute()
        assert torch.allclose(found.rows(found.ids), expected.rows(expected.ids), atol=1e-6)

    def test_what_another_model_left_is_discarded(
        self, compute: Compute, model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cut(lambda **options: compute(model=tiny_model(seed=1, vocab_size=VOCAB), **options), tmp_path, monkeypatch)
        said: list[str] = []
        with counted_passes(model) as passes:
            found = compute(folder=tmp_path, say=said.append)
        assert len(passes) == BATCHES
        assert "computed from another model, other anchors or with other settings, and is discarded" in said[0]
        expected = compute()
        assert torch.equal(found.rows(found.ids), expected.rows(expected.ids))

    @pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
    def test_a_piece_that_is_not_whole_is_computed_again(
        self,
        damage: Callable[[bytes], bytes],
        compute: Compute,
        model: PreTrainedModel,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        cut(compute, tmp_path, monkeypatch)
        (piece,) = (tmp_path / "partial").iterdir()
        piece.write_bytes(damage(piece.read_bytes()))
        said: list[str] = []
        with counted_passes(model) as passes:
            found = compute(folder=tmp_path, say=said.append)
        assert len(passes) == BATCHES
        assert "1 of the files" in said[0]
        assert "not whole" in said[0]
        expected = compute()
        assert torch.equal(found.rows(found.ids), expected.rows(expected.ids))


def cut(compute: Compute, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pass into `folder` end after its first piece."""
    replace, renamed = os.replace, []

    def dies(source: Path, target: Path) -> None:
        renamed.append(target)
        if len(renamed) > 1:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(prior_files.os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            compute(folder=folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from innerlingua.routing import RoutingPrior, prior_partial

prior_partial.PIECE_BYTES = 1
folder = Path(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(folder / "model")
passes = []

def killed(module, args):
    passes.append(module)
    if len(passes) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

model.model.layers[-1].register_forward_pre_hook(killed)
RoutingPrior.compute(model, load_from_disk(folder / "rows"), PreTrainedTokenizerFast.from_pretrained(folder / "model"),
                     batch_size=2, folder=folder / "prior", progress=False)
"""


def test_a_process_that_was_killed(
    compute: Compute, model: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows.save_to_disk(tmp_path / "rows")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    with pytest.raises(PriorError, match="no routing prior"):
        RoutingPrior.open(tmp_path / "prior")
    with counted_passes(model) as passes:
        found = compute(folder=tmp_path / "prior")
    # Killed in the third pass, when the first batch had been read and written.
    assert len(passes) == BATCHES - 1
    expected = compute()
    assert torch.allclose(found.rows(found.ids), expected.rows(expected.ids), atol=1e-6)


class TestWorkers:
    def test_a_stored_prior_travels_without_its_rows(self, compute: Compute, tmp_path: Path) -> None:
        stored = compute(folder=tmp_path)
        stored.rows(["03"])
        travelled = pickle.loads(pickle.dumps(stored))
        assert "_tensor" not in {name for name, value in vars(travelled).items() if isinstance(value, torch.Tensor)}
        assert torch.equal(travelled.rows(stored.ids), stored.rows(stored.ids))

    def test_one_in_memory_is_shared_and_not_copied(self, compute: Compute) -> None:
        prior = compute()
        assert prior._tensor is not None
        ForkingPickler.dumps(prior)  # what a spawned data-loading worker is sent
        assert prior._tensor.is_shared()
