"""The routing prior: what it holds, its files, and when it is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import shutil
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerlingua.anatomy import capture_routing
from innerlingua.data import tokenize_pairs
from innerlingua.errors import DataError, ModelError, PriorError, RecipeError
from innerlingua.routing import RoutingPrior
from innerlingua.routing.pooling import segment_ids
from innerlingua.routing.prior_files import SCHEMA
from routers import naive_per_token
from tiny import FAMILIES, LAYERS, tiny_model


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_model(vocab_size=len(tokenizer))


@pytest.fixture(scope="module")
def tokenised(pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    return tokenize_pairs(pairs, tokenizer).dataset


def prior_of(model: PreTrainedModel, dataset: Dataset, tokenizer: Any, **options: Any) -> RoutingPrior:
    return RoutingPrior.compute(model, dataset, tokenizer, progress=False, **options)


@pytest.fixture(scope="module")
def prior(model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> RoutingPrior:
    return prior_of(model, pairs, tokenizer)


class TestContent:
    def test_each_row_is_the_pooled_routing_of_its_anchor_alone(
        self, prior: RoutingPrior, model: PreTrainedModel, tokenised: Dataset
    ) -> None:
        for row in tokenised:
            tokens = {"input_ids": torch.tensor([row["anchor_input_ids"]])}
            expected = naive_per_token(model, tokens)[0].mean(dim=0)
            assert torch.allclose(prior.rows([row["id"]])[0].double(), expected, atol=1e-6)

    def test_one_row_per_id_in_the_order_of_the_ids(self, prior: RoutingPrior) -> None:
        assert prior.ids == ["grass", "sky", "snow", "sun"]
        assert len(prior) == 4
        assert prior.layers == list(range(LAYERS))
        assert "sky" in prior
        assert "earth" not in prior

    def test_rows_come_in_the_order_asked_for_and_may_repeat(self, prior: RoutingPrior) -> None:
        rows = prior.rows(["sun", "grass", "sun"])
        assert torch.equal(rows[0], rows[2])
        assert torch.equal(rows[1], prior.rows(["grass"])[0])
        assert not torch.allclose(rows[0], rows[1], atol=1e-3)
        assert rows.dtype == torch.float32

    @pytest.mark.parametrize("batch_size", [1, 3, 64])
    def test_batch_size_and_order_of_the_rows_change_nothing(
        self,
        batch_size: int,
        prior: RoutingPrior,
        model: PreTrainedModel,
        pairs: Dataset,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        other = prior_of(model, pairs.select([5, 0, 7, 4]), tokenizer, batch_size=batch_size)
        assert other.ids == prior.ids
        assert torch.allclose(other.rows(prior.ids), prior.rows(prior.ids), atol=1e-6)

    def test_tokenised_rows_give_the_same_as_raw_ones(
        self, prior: RoutingPrior, model: PreTrainedModel, tokenised: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        assert torch.equal(prior_of(model, tokenised, tokenizer).rows(prior.ids), prior.rows(prior.ids))

    def test_a_choice_of_layers(
        self, prior: RoutingPrior, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        some = prior_of(model, pairs, tokenizer, layers=[3, 1])
        assert some.layers == [1, 3]
        assert torch.equal(some.rows(prior.ids), prior.rows(prior.ids)[:, [1, 3]])

    @pytest.mark.parametrize("pooling", ["completion", "prompt"])
    def test_completion_and_prompt_are_pooled_by_the_labels(
        self,
        pooling: str,
        model: PreTrainedModel,
        pairs: Dataset,
        tokenised: Dataset,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        some = prior_of(model, pairs, tokenizer, pooling=pooling)
        for row in tokenised:
            chosen = [(label != -100) == (pooling == "completion") for label in row["anchor_labels"]]
            tokens = naive_per_token(model, {"input_ids": torch.tensor([row["anchor_input_ids"]])})[0]
            expected = tokens[torch.tensor(chosen)].mean(dim=0)
            assert torch.allclose(some.rows([row["id"]])[0].double(), expected, atol=1e-6)

    def test_no_gradient_and_the_model_s_mode_is_kept(self, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
        model = tiny_model(vocab_size=len(tokenizer)).train()
        rows = prior_of(model, pairs, tokenizer).rows(["sky"])
        assert not rows.requires_grad
        assert all(module.training for module in model.modules())

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_same_in_training_mode_as_in_evaluation_mode(
        self, family: str, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """PhiMoE draws its experts at random in training mode, so an anchor taken there would be noise."""
        model = tiny_model(family, vocab_size=len(tokenizer))
        first = prior_of(model.eval(), pairs, tokenizer)
        second = prior_of(model.train(), pairs, tokenizer)
        assert torch.equal(first.rows(first.ids), second.rows(first.ids))

    def test_phimoe_in_training_mode_would_differ_in_deeper_layers(self) -> None:
        # Random weights rarely put two experts within its jitter of 0.01; small ones do.
        model = tiny_model("phimoe", router_jitter_noise=0.5).train()
        batch = {"input_ids": torch.randint(3, 64, (4, 30), generator=torch.Generator().manual_seed(0))}
        with torch.no_grad(), capture_routing(model) as routing:
            model(**batch)
            first = routing.pooled
            model(**batch)
            second = routing.pooled
        assert torch.equal(first[:, 0], second[:, 0])
        assert not torch.allclose(first[:, 1:], second[:, 1:], atol=1e-6)

    def test_rows_without_an_anchor_are_passed_over(
        self, prior: RoutingPrior, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        plain = pairs[0] | {"id": "plain", "anchor_prompt": None, "anchor_completion": None}
        some = prior_of(model, Dataset.from_list([*pairs.to_list(), plain]), tokenizer)
        assert some.ids == prior.ids

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_score_is_stored(self, family: str, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
        prior = prior_of(tiny_model(family, vocab_size=len(tokenizer)), pairs.select([0]), tokenizer)
        assert prior.score == ("sigmoid_normalised" if family == "deepseek_v3" else "softmax")

    def test_an_own_score(self, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
        model = tiny_model("deepseek_v3", vocab_size=len(tokenizer))
        own = prior_of(model, pairs, tokenizer, score="softmax")
        assert own.score == "softmax"
        assert not torch.allclose(own.rows(own.ids), prior_of(model, pairs, tokenizer).rows(own.ids), atol=1e-3)


class TestRefusedContent:
    def test_an_unknown_id(self, prior: RoutingPrior) -> None:
        with pytest.raises(PriorError, match="no anchor 'earth'"):
            prior.rows(["sky", "earth"])

    def test_two_anchors_of_one_id(
        self, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        rows = pairs.to_list()
        rows[3]["anchor_completion"] = "it is grey"
        with pytest.raises(DataError, match=r"row 3 \(id 'sky'\): another anchor than at .*row 0"):
            prior_of(model, Dataset.from_list(rows), tokenizer)
        tokenised = tokenize_pairs(Dataset.from_list(rows), tokenizer).dataset
        with pytest.raises(DataError, match="id 'sky' have different anchors"):
            prior_of(model, tokenised, tokenizer)

    def test_no_anchor_at_all(self, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
        rows = [row | {"anchor_prompt": None, "anchor_completion": None} for row in pairs.to_list()]
        with pytest.raises(DataError, match="no row of the dataset has an anchor"):
            prior_of(model, Dataset.from_list(rows, features=pairs.features), tokenizer)

    def test_spans_need_a_live_anchor(
        self, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        with pytest.raises(DataError, match="use a live anchor"):
            prior_of(model, pairs, tokenizer, pooling="spans")

    def test_an_unknown_pooling_names_the_nearest(
        self, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        with pytest.raises(RecipeError, match="did you mean 'sequence'"):
            prior_of(model, pairs, tokenizer, pooling="sequences")

    def test_absent_layers(self, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(ModelError, match="no MoE layer at decoder layer 9"):
            prior_of(model, pairs, tokenizer, layers=[9])

    def test_a_text_without_a_token_of_the_pooling(self) -> None:
        row = {"id": "x", "input_ids": [4, 5], "labels": [4, 5], "anchor_input_ids": [4], "anchor_labels": [-100]}
        with pytest.raises(DataError, match=r"row 'x': its target has no token .*'prompt'"):
            segment_ids(row, "prompt")
        with pytest.raises(DataError, match=r"row 'x': its anchor has no token .*'completion'"):
            segment_ids(row, "completion", prefix="anchor_")


class TestFiles:
    def test_saved_and_opened_is_the_same_bit_for_bit(self, prior: RoutingPrior, tmp_path: Path) -> None:
        opened = RoutingPrior.open(prior.save(tmp_path / "prior"))
        assert torch.equal(opened.rows(prior.ids), prior.rows(prior.ids))
        for name in ("ids", "layers", "pooling", "score", "fingerprint"):
            assert vars(opened)[name] == vars(prior)[name]
        assert sorted(path.name for path in (tmp_path / "prior").iterdir()) == ["prior.json", "prior.safetensors"]

    def test_an_opened_prior_can_be_saved_again(self, prior: RoutingPrior, tmp_path: Path) -> None:
        opened = RoutingPrior.open(prior.save(tmp_path / "a"))
        again = RoutingPrior.open(opened.save(tmp_path / "b"))
        assert torch.equal(again.rows(prior.ids), prior.rows(prior.ids))
        assert (tmp_path / "a" / "prior.json").read_bytes() == (tmp_path / "b" / "prior.json").read_bytes()

    def test_ids_in_any_script(self, prior: RoutingPrior, tmp_path: Path) -> None:
        ids = ["आकाश", "a/b\n", 'quote"', "𝛼"]
        record = {
            "ids": ids,
            "layers": prior.layers,
            "pooling": "sequence",
            "score": "softmax",
            "texts": ["0"] * 4,
            "fingerprint": {"weights": {}, "compute": "float32"},
        }
        renamed = RoutingPrior(record, tensor=prior.rows(prior.ids))
        opened = RoutingPrior.open(renamed.save(tmp_path))
        assert torch.equal(opened.rows(["𝛼"])[0], prior.rows(["sun"])[0])

    def test_a_missing_folder_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(PriorError, match=r"no routing prior in .*nowhere: `innerlingua routing prior"):
            RoutingPrior.open(tmp_path / "nowhere")

    @pytest.mark.parametrize("half", ["prior.json", "prior.safetensors"])
    def test_one_half_is_no_prior(self, half: str, prior: RoutingPrior, tmp_path: Path) -> None:
        prior.save(tmp_path)
        (tmp_path / half).unlink()
        with pytest.raises(PriorError, match="no routing prior"):
            RoutingPrior.open(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [b"{", b"", b"[]", b"null", b'"text"', b"{}", b"\xff\xfe\x00", b'{"ids": 3, "layers": 2, "experts": 1}'],
    )
    def test_a_broken_record(self, content: bytes, prior: RoutingPrior, tmp_path: Path) -> None:
        prior.save(tmp_path)
        (tmp_path / "prior.json").write_bytes(content)
        with pytest.raises(PriorError, match="is damaged"):
            RoutingPrior.open(tmp_path)

    @pytest.mark.parametrize("keep", [0, 4, 60, -1])
    def test_a_truncated_tensor_file(self, keep: int, prior: RoutingPrior, tmp_path: Path) -> None:
        prior.save(tmp_path)
        path = tmp_path / "prior.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(PriorError, match="is damaged"):
            RoutingPrior.open(tmp_path)

    def test_halves_of_two_priors(
        self,
        prior: RoutingPrior,
        model: PreTrainedModel,
        pairs: Dataset,
        tokenizer: PreTrainedTokenizerFast,
        tmp_path: Path,
    ) -> None:
        """As after a write that was killed between its two files: same shape, same ids, other layers' numbers."""
        other = prior_of(tiny_model(seed=1, vocab_size=len(tokenizer)), pairs, tokenizer)
        prior.save(tmp_path / "a")
        other.save(tmp_path / "b")
        shutil.copy(tmp_path / "b" / "prior.safetensors", tmp_path / "a")
        with pytest.raises(PriorError, match="do not belong together"):
            RoutingPrior.open(tmp_path / "a")

    def test_a_record_that_was_edited_by_hand(self, prior: RoutingPrior, tmp_path: Path) -> None:
        prior.save(tmp_path)
        record = json.loads((tmp_path / "prior.json").read_text(encoding="utf-8"))
        record["ids"] = record["ids"][::-1]
        (tmp_path / "prior.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        with pytest.raises(PriorError, match="is damaged"):
            RoutingPrior.open(tmp_path)

    @pytest.mark.parametrize("survivors", [[".prior.safetensors.1"], [".prior.safetensors.1", ".prior.json.1"]])
    def test_a_killed_first_write_is_no_prior(self, survivors: list[str], prior: RoutingPrior, tmp_path: Path) -> None:
        prior.save(tmp_path)
        for name in survivors:
            (tmp_path / name.removeprefix(".").removesuffix(".1")).rename(tmp_path / name)
        with pytest.raises(PriorError, match="no routing prior"):
            RoutingPrior.open(tmp_path)

    @pytest.mark.parametrize("killed_at", [1, 2])
    def test_a_killed_second_write_is_refused_or_leaves_the_first(
        self,
        killed_at: int,
        prior: RoutingPrior,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        pairs: Dataset,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        prior.save(tmp_path)
        other = prior_of(tiny_model(seed=1, vocab_size=len(tokenizer)), pairs, tokenizer)
        calls = []
        replace = os.replace

        def dies(source: Path, target: Path) -> None:
            calls.append(target)
            if len(calls) == killed_at:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            other.save(tmp_path)
        if killed_at == 1:
            opened = RoutingPrior.open(tmp_path)
            assert torch.equal(opened.rows(prior.ids), prior.rows(prior.ids))
        else:
            with pytest.raises(PriorError, match="do not belong together"):
                RoutingPrior.open(tmp_path)


def look_up(prior: RoutingPrior, ids: Sequence[str]) -> tuple[int, Tensor]:
    return os.getpid(), prior.rows(ids)


class TestWorkers:
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_a_worker_opens_the_file_for_itself(self, method: str, prior: RoutingPrior, tmp_path: Path) -> None:
        opened = RoutingPrior.open(prior.save(tmp_path))
        opened.rows(["sky"])  # the handle of this process must not travel
        ids = ["sun", "sky", "grass", "snow"]
        loader = DataLoader(
            ids,  # type: ignore[arg-type]
            batch_size=2,
            num_workers=1,
            collate_fn=partial(look_up, opened),
            multiprocessing_context=multiprocessing.get_context(method),
        )
        batches = list(loader)
        assert all(process != os.getpid() for process, _ in batches)
        assert torch.equal(torch.cat([rows for _, rows in batches]), prior.rows(ids))


def test_a_hundred_thousand_anchors_open_at_once_and_rows_are_read_alone(tmp_path: Path) -> None:
    """A sparse file of 2.5 GB, so that whoever reads it whole is found out."""
    shape = (100_000, 48, 128)
    ids = [f"anchor-{number:05d}" for number in range(shape[0])]
    record = {
        "schema": SCHEMA,
        "layers": list(range(shape[1])),
        "experts": shape[2],
        "pooling": "sequence",
        "score": "softmax",
        "fingerprint": {"weights": {}, "compute": "float32"},
        "ids": ids,
        "texts": ["0123456789abcdef"] * len(ids),
    }
    payload = json.dumps(record, ensure_ascii=False)
    (tmp_path / "prior.json").write_text(payload, encoding="utf-8")
    size = 4 * shape[0] * shape[1] * shape[2]
    digest = xxhash.xxh3_128_hexdigest(payload.encode())
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"record": digest}, "prior": entry}).encode()
    header += b" " * (-len(header) % 8)
    with (tmp_path / "prior.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.seek(4 * 7 * shape[1] * shape[2], os.SEEK_CUR)
        row = torch.full((shape[1] * shape[2],), 1 / shape[2]).numpy().tobytes()
        file.write(row)
        file.seek(8 + len(header) + size - len(row))
        file.write(row)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    prior = RoutingPrior.open(tmp_path)
    rows = prior.rows(["anchor-99999", "anchor-00007"])
    assert time.process_time() - start < 2.0  # a tenth of it where nothing else runs
    assert bool((rows == 1 / shape[2]).all())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    assert len(pickle.dumps(prior)) < 20_000_000  # ids and digests: what a data-loading worker is sent


class TestStaleness:
    """What may change without harm, and what may not."""

    @pytest.fixture
    def check(
        self, prior: RoutingPrior, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> Callable[..., None]:
        def check(**changes: Any) -> None:
            given = {"dataset": pairs, "tokenizer": tokenizer, "model": model} | changes
            prior.check_fresh(given.pop("dataset"), given.pop("tokenizer"), **given)

        return check

    def test_nothing_changed(self, check: Callable[..., None], tokenised: Dataset) -> None:
        check()
        check(dataset=tokenised)
        check(layers=[1, 2], score="softmax", pooling="sequence")

    def test_after_a_round_trip(
        self, prior: RoutingPrior, model: PreTrainedModel, pairs: Dataset, tokenizer: Any, tmp_path: Path
    ) -> None:
        RoutingPrior.open(prior.save(tmp_path)).check_fresh(pairs, tokenizer, model=model)

    def test_model_and_tokenizer_saved_and_loaded(
        self, check: Callable[..., None], model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        check(model=type(model).from_pretrained(tmp_path), tokenizer=PreTrainedTokenizerFast.from_pretrained(tmp_path))

    def test_fewer_rows_in_another_order(self, check: Callable[..., None], pairs: Dataset) -> None:
        check(dataset=pairs.select([7, 1, 0]))

    def test_what_has_no_influence_on_routing(
        self, check: Callable[..., None], pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        model = tiny_model(vocab_size=len(tokenizer)).train().requires_grad_(False)
        model.config.use_cache = False
        model.config.output_router_logits = True
        model.config.router_aux_loss_coef = 0.5
        other = copy_of(tokenizer)
        other.padding_side = "left"
        other("some text", truncation=True, max_length=2, padding="max_length")
        check(model=model, tokenizer=other)

    def test_targets_may_change(self, check: Callable[..., None], pairs: Dataset) -> None:
        check(dataset=pairs.map(lambda row: {"completion": row["completion"] + " ndiyo"}))

    def test_a_resumed_run_compares_all_but_the_weights(
        self, prior: RoutingPrior, pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        prior.check_fresh(pairs, tokenizer)
        with pytest.raises(PriorError, match="template"):
            prior.check_fresh(pairs, with_template(tokenizer))

    def test_changed_weights_name_the_tensor(
        self, check: Callable[..., None], tokenizer: PreTrainedTokenizerFast
    ) -> None:
        model = tiny_model(vocab_size=len(tokenizer))
        with torch.no_grad():
            model.model.layers[2].self_attn.q_proj.weight.mul_(1.001)
        with pytest.raises(
            PriorError, match=r"what differs: weights \(1 of \d+ tensors, the first is model.layers.2.self_attn.q_proj"
        ):
            check(model=model)

    def test_another_seed_changes_most_tensors(
        self, check: Callable[..., None], tokenizer: PreTrainedTokenizerFast
    ) -> None:
        with pytest.raises(PriorError, match=r"weights \(\d\d+ of"):
            check(model=tiny_model(seed=1, vocab_size=len(tokenizer)))

    def test_another_number_type(self, check: Callable[..., None], tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(PriorError, match="weights"):
            check(model=tiny_model(vocab_size=len(tokenizer)).bfloat16())

    def test_a_changed_configuration(self, check: Callable[..., None], tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(PriorError, match=r"differs: config \(1 of \d+ keys, the first is num_experts_per_tok\)"):
            check(model=tiny_model(vocab_size=len(tokenizer), num_experts_per_tok=3))

    def test_a_changed_tokenizer(
        self, check: Callable[..., None], pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        other = copy_of(tokenizer)
        other.add_tokens(["unseen"])
        with pytest.raises(PriorError, match=r"what differs: tokenizer\."):
            check(tokenizer=other)

    def test_a_changed_template(self, check: Callable[..., None], tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(PriorError, match=r"what differs: template\."):
            check(tokenizer=with_template(tokenizer))

    def test_a_changed_text(self, check: Callable[..., None], pairs: Dataset) -> None:
        rows = pairs.to_list()
        for row in rows:
            if row["id"] == "snow":
                row["anchor_completion"] += "!"
        with pytest.raises(PriorError, match=r"anchor texts \(1 of 4 have changed, the first is 'snow'\)"):
            check(dataset=Dataset.from_list(rows))

    def test_a_new_anchor(self, check: Callable[..., None], pairs: Dataset) -> None:
        rows = [*pairs.to_list(), pairs[0] | {"id": "earth"}]
        with pytest.raises(PriorError, match=r"anchors \(1 of 5 are not in it, the first is 'earth'\)"):
            check(dataset=Dataset.from_list(rows))

    def test_other_layers(self, model: PreTrainedModel, pairs: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
        some = prior_of(model, pairs, tokenizer, layers=[1, 2])
        with pytest.raises(PriorError, match=r"layers \(stored \[1, 2\], now \[2, 3\]\)"):
            some.check_fresh(pairs, tokenizer, model=model, layers=[2, 3])

    def test_other_pooling(self, check: Callable[..., None]) -> None:
        with pytest.raises(PriorError, match=r"pooling \(stored sequence, now completion\)"):
            check(pooling="completion")

    def test_other_score(self, check: Callable[..., None]) -> None:
        with pytest.raises(PriorError, match=r"score \(stored softmax, now sigmoid_normalised\)"):
            check(score="sigmoid_normalised")

    def test_all_that_differs_is_named_in_one_message(
        self, check: Callable[..., None], pairs: Dataset, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        with pytest.raises(PriorError, match=r"template; weights .*; pooling|pooling .*; template; weights"):
            check(
                model=tiny_model(seed=1, vocab_size=len(tokenizer)),
                tokenizer=with_template(tokenizer),
                pooling="prompt",
            )


def copy_of(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str()),
        pad_token=tokenizer.pad_token,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        chat_template=tokenizer.chat_template,
    )


def with_template(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    other = copy_of(tokenizer)
    other.chat_template = tokenizer.chat_template.replace("<|", "< |")
    return other
