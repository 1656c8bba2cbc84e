"""Results folders against each other: what is found, what is refused, and what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from stored_runs import LANGUAGES, SETTINGS, answers, changed, rows_of, three_models, write_folder, write_scores

from innerlingua.errors import DataError
from innerlingua.evaluation import compare_runs
from innerlingua.evaluation.matching import match
from innerlingua.evaluation.outcome import Comparison, Difference
from innerlingua.evaluation.selection import read_methods
from innerlingua.evaluation.store import content_hash

FAST: dict[str, Any] = {"replicates": 500, "permutations": 499}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def compared(models: list[Path]) -> Comparison:
    return compare_runs(models, **FAST)


def row(comparison: Comparison, language: str | None, method: str = "sara") -> Difference:
    return next(one for one in comparison.differences if (one.language, one.method) == (language, method))


# ---- what is found ---------------------------------------------------------------------------------------------------


def test_what_moved_is_found_and_what_did_not_is_noise(compared: Comparison) -> None:
    assert row(compared, "swh_Latn").verdict == "better"
    assert row(compared, "eng_Latn").verdict == "worse"
    assert row(compared, "eng_Latn").kind == "anchor"
    assert {row(compared, code, "sft").verdict for code in LANGUAGES} == {"noise"}
    assert row(compared, None).verdict == "better"


def test_noise_is_said_in_words(compared: Comparison) -> None:
    found = row(compared, "hin_Deva", "sft")
    assert found.smallest is not None
    assert found.words == (
        f"no difference that these 400 samples could show; the smallest they could show is {found.smallest:.1f} points"
    )
    assert "these 1,200 samples (400 independent)" in row(compared, None, "sft").words


def test_numbers_are_those_of_the_samples(compared: Comparison, models: list[Path]) -> None:
    before, after = (
        read_methods([models[0], models[2]])[place].runs[0].tables["mmlu", "swh_Latn"].scores for place in (0, 1)
    )
    found = row(compared, "swh_Latn")
    assert found.difference == pytest.approx(100 * (after - before).mean())
    assert (found.wins, found.losses) == ((after > before).sum(), (after < before).sum())
    assert found.p == pytest.approx(stats.binomtest(found.wins or 0, (found.wins or 0) + (found.losses or 0)).pvalue)
    assert found.test == "exact"
    targets = [row(compared, code).difference for code in LANGUAGES[1:]]
    assert row(compared, None).difference == pytest.approx(np.mean(targets))
    assert compared.score(found, "base").score == pytest.approx(100 * before.mean())


def test_languages_are_corrected_together_and_means_and_anchors_apart(compared: Comparison) -> None:
    languages = [one for one in compared.differences if one.kind == "language" and one.method == "sara"]
    assert {one.tests for one in languages} == {3}
    assert row(compared, None).tests == row(compared, "eng_Latn").tests == 2
    raw, held = min((one.p, one.corrected) for one in languages)
    assert held == pytest.approx(3 * raw)
    plain = compare_runs(
        compared.methods["base"]["folders"] + compared.methods["sara"]["folders"],
        correction="none",
        **FAST,
    )
    assert all(one.p == one.corrected for one in plain.differences)
    assert (row(plain, "hin_Deva").smallest or 99) < (row(compared, "hin_Deva").smallest or 0)


def test_the_same_seed_gives_the_same_comparison(models: list[Path], compared: Comparison) -> None:
    assert compare_runs(models, **FAST).to_json() == compared.to_json()
    assert compare_runs(models, seed=1, **FAST).to_json() != compared.to_json()


def test_the_order_of_samples_and_files_does_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = {("mmlu", code): answers(rng, 60, 0.5) for code in LANGUAGES}
    after = {key: changed(rng, one, lost=0.1, won=0.3) for key, one in scores.items()}
    a, b = write_scores(tmp_path / "a", scores), write_scores(tmp_path / "b", after)
    turned = {key: rows_of(*key, one)[::-1] for key, one in reversed(after.items())}
    write_folder(tmp_path / "turned" / "b", turned)
    # Another order is another digest of the benchmark's version, so it is given the version of the first.
    for name in ("results.json",):
        shutil.copy(b / name, tmp_path / "turned" / "b" / name)
    found = [compare_runs([a, b], **FAST)]
    stored = read_methods([a, b])
    tables = {key: _reversed(one) for key, one in stored[1].runs[0].tables.items()}
    run = type(stored[1].runs[0])(label="b", run=stored[1].runs[0].run, tables=tables)
    found.append(compare_runs([stored[0], type(stored[1])("b", stored[1].folders, [run])], **FAST))
    assert found[0].to_json() == found[1].to_json()


def _reversed(samples: Any) -> Any:
    lists = {name: getattr(samples, name)[::-1] for name in ("ids", "scores", "statuses", "hashes", "groups")}
    rest = {name: getattr(samples, name) for name in ("metric", "chance", "version", "anchor", "texts")}
    return type(samples)(**lists, **rest)


def test_questions_on_one_passage_are_one_cluster(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scores = {("belebele", "hin_Deva"): np.repeat(answers(rng, 60, 0.5), 4)}
    after = {key: np.repeat(changed(rng, one[::4], lost=0.1, won=0.3), 4) for key, one in scores.items()}
    whole = [write_scores(tmp_path / name, one, passages=4) for name, one in (("a", scores), ("b", after))]
    found = compare_runs(whole, **FAST).differences[0]
    assert (found.samples, found.clusters, found.test) == (240, 60, "permutation")
    split = [write_scores(tmp_path / f"split-{name}", one) for name, one in (("a", scores), ("b", after))]
    apart = compare_runs(split, **FAST).differences[0]
    assert found.standard_error > 1.7 * apart.standard_error
    assert found.p > apart.p


def test_continuous_scores_are_compared_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    scores = {("xquad", code): rng.random(150) for code in LANGUAGES}
    after = {key: np.clip(one + 0.08 + rng.normal(0, 0.1, 150), 0, 1) for key, one in scores.items()}
    folders = [
        write_scores(tmp_path / name, one, metric="f1", chance=None) for name, one in (("a", scores), ("b", after))
    ]
    found = compare_runs(folders, replicates=500)
    assert {one.verdict for one in found.differences} == {"better"}
    assert row(found, "hin_Deva", "b").test == "permutation"
    assert row(found, "hin_Deva", "b").smallest == pytest.approx(
        2.8 * row(found, "hin_Deva", "b").standard_error, rel=0.2
    )


def test_scores_at_chance_are_said_to_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scores = {("mmlu", code): answers(rng, 400, 0.25) for code in LANGUAGES}
    after = {key: changed(rng, one, lost=0.3, won=0.1) for key, one in scores.items()}
    found = compare_runs([write_scores(tmp_path / name, one) for name, one in (("a", scores), ("b", after))], **FAST)
    assert all(one.at_chance for one in found.scores if one.kind == "language")
    assert "Neither score can be told from guessing (25.0)" in row(found, "hin_Deva", "b").words


def test_identical_answers_are_said_to_be_identical(tmp_path: Path) -> None:
    scores = {("mmlu", "hin_Deva"): answers(np.random.default_rng(4), 200, 0.5)}
    found = compare_runs([write_scores(tmp_path / name, scores) for name in "ab"], **FAST).differences[0]
    assert (found.difference, found.p, found.verdict) == (0, 1, "same")
    assert found.words.startswith("b has the same score as a on each of 200 samples")


def test_languages_and_benchmarks_can_be_chosen(models: list[Path]) -> None:
    found = compare_runs(models[:2], languages=["swh_Latn"], benchmarks=["mmlu"], **FAST)
    assert [one.language for one in found.differences] == ["swh_Latn"]
    assert "no anchor language in mmlu: what alignment cost there cannot be seen" in found.notes


def test_baseline_and_pairs_can_be_chosen(models: list[Path]) -> None:
    assert compare_runs(models, baseline="sft", **FAST).pairs == [("sft", "base"), ("sft", "sara")]
    assert compare_runs(models, all_pairs=True, **FAST).pairs == [("base", "sft"), ("base", "sara"), ("sft", "sara")]


def test_languages_that_one_run_lacks_are_named(tmp_path: Path, models: list[Path]) -> None:
    rng = np.random.default_rng(5)
    fewer = write_scores(tmp_path / "fewer", {("mmlu", code): answers(rng, 400, 0.4) for code in LANGUAGES[:3]})
    found = compare_runs([models[0], fewer], **FAST)
    assert f"not compared, because {fewer} lacks it: mmlu (npi_Deva)" in found.notes
    assert {one.language for one in found.differences} == {None, *LANGUAGES[:3]}


def test_languages_of_different_sizes_are_drawn_from_their_own_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    scores = {("mmlu", code): answers(rng, n, 0.5) for code, n in (("hin_Deva", 300), ("swh_Latn", 12))}
    after = {key: changed(rng, one, lost=0.2, won=0.2) for key, one in scores.items()}
    found = compare_runs([write_scores(tmp_path / name, one) for name, one in (("a", scores), ("b", after))], **FAST)
    small = row(found, "swh_Latn", "b")
    assert (small.samples, small.clusters) == (12, 12)
    assert row(found, None, "b").clusters == 300
    assert small.low is not None
    assert small.standard_error > 3 * row(found, "hin_Deva", "b").standard_error


# ---- translations ----------------------------------------------------------------------------------------------------


def _translations(rng: np.random.Generator, n: int, kept: float) -> list[tuple[str, str]]:
    words = [f"word{number}" for number in range(30)]
    pairs = []
    for _ in range(n):
        reference = list(rng.choice(words, 12))
        hypothesis = [word if rng.random() < kept else str(rng.choice(words)) for word in reference]
        pairs.append((" ".join(hypothesis), " ".join(reference)))
    return pairs


def _write_translations(folder: Path, texts: dict[str, list[tuple[str, str]]]) -> Path:
    tables = {}
    for language, pairs in texts.items():
        rows = rows_of("flores", language, [50.0] * len(pairs))
        for one, (hypothesis, reference) in zip(rows, pairs, strict=True):
            one |= {"hypothesis": hypothesis, "reference": reference, "hash": content_hash(reference)}
        tables["flores", language] = rows
    return write_folder(folder, tables, metric="chrf++", chance=None)


def test_translations_are_compared_by_scores_of_the_corpus(tmp_path: Path) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    rng = np.random.default_rng(7)
    before = {code: _translations(rng, 60, 0.5) for code in ("hin_Deva", "swh_Latn")}
    after = {
        code: [
            (" ".join(r if rng.random() < 0.3 else h for h, r in zip(hyp.split(), ref.split(), strict=True)), ref)
            for hyp, ref in pairs
        ]
        for code, pairs in before.items()
    }
    found = compare_runs(
        [_write_translations(tmp_path / name, one) for name, one in (("a", before), ("b", after))], **FAST
    )
    assert found.tables == [("flores", "chrF++"), ("flores", "BLEU")]
    for measure, metric in (("chrF++", CHRF(word_order=2)), ("BLEU", BLEU())):
        one = next(d for d in found.differences if (d.measure, d.language) == (measure, "swh_Latn"))
        expected = [
            metric.corpus_score([h for h, _ in texts["swh_Latn"]], [[r for _, r in texts["swh_Latn"]]]).score
            for texts in (before, after)
        ]
        assert one.difference == pytest.approx(expected[1] - expected[0])
        assert (one.verdict, one.test) == ("better", "permutation")
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.difference < one.high


def test_translations_without_texts_are_refused(tmp_path: Path) -> None:
    texts = {code: _translations(np.random.default_rng(17), 10, 0.5) for code in ("hin_Deva", "swh_Latn")}
    folders = [_write_translations(tmp_path / name, texts) for name in "ab"]
    for change, message in (
        ("null", "the translation of 'q00000' is no text"),
        ("", "has texts none, and .* has some"),
    ):
        for folder in folders:
            path = folder / "samples" / "flores.swh_Latn.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            for one in rows:
                one.pop("hypothesis", None)
                one |= {"hypothesis": None} if change else {}
            path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        with pytest.raises(DataError, match=message):
            compare_runs(folders, **FAST)


def test_resampled_corpora_agree_with_sacrebleu(tmp_path: Path) -> None:
    from sacrebleu.metrics import CHRF
    from sacrebleu.significance import PairedTest

    rng = np.random.default_rng(8)
    before = _translations(rng, 80, 0.5)
    after = [
        (
            " ".join(
                h if rng.random() < 0.9 else str(rng.choice([r, "word1"], p=[0.65, 0.35]))
                for h, r in zip(hyp.split(), ref.split(), strict=True)
            ),
            ref,
        )
        for hyp, ref in before
    ]
    found = compare_runs(
        [_write_translations(tmp_path / name, {"swh_Latn": one}) for name, one in (("a", before), ("b", after))],
        replicates=2000,
        permutations=4999,
    )
    ours = found.differences[0]
    _, theirs = PairedTest(
        [("a", [h for h, _ in before]), ("b", [h for h, _ in after])],
        {"chrF++": CHRF(word_order=2)},
        [[r for _, r in before]],
        test_type="ar",
        n_samples=4999,
    )()
    expected = theirs["chrF2++"][1].p_value
    assert expected is not None
    assert ours.p == pytest.approx(expected, abs=0.03)


# ---- seeds -----------------------------------------------------------------------------------------------------------


def _seeds(root: Path, name: str, level: float, *, runs: int, spread: float, seed: int, n: int = 300) -> list[Path]:
    rng = np.random.default_rng(seed)
    easy = np.random.default_rng(99).random((len(LANGUAGES), n))
    folders = []
    for number in range(runs):
        shift = level + rng.normal(0, spread)
        scores = {
            ("mmlu", code): (easy[place] + rng.normal(0, 0.05, n) < 0.5 + shift).astype(float)
            for place, code in enumerate(LANGUAGES)
        }
        folders.append(write_scores(root / f"{name}-{number}", scores, label=name, seed=number))
    return folders


def test_seeds_widen_the_interval_and_are_named(tmp_path: Path) -> None:
    sft = _seeds(tmp_path, "sft", 0.0, runs=3, spread=0.03, seed=1)
    sara = _seeds(tmp_path, "sara", 0.03, runs=3, spread=0.03, seed=2)
    found = compare_runs([*sft, *sara], **FAST)  # grouped by label, since their seeds differ
    assert found.pairs == [("sft", "sara")]
    mean = row(found, None)
    alone = row(compare_runs([f"sft={sft[0]}", f"sara={sara[0]}"], **FAST), None)
    assert mean.test == "t"
    assert mean.from_seeds is not None
    assert mean.from_seeds > mean.from_samples
    assert mean.freedom < 10
    assert alone.from_seeds is None
    assert mean.standard_error > alone.standard_error
    assert len(found.score(mean, "sara").by_run) == 3
    assert np.mean(found.score(mean, "sara").by_run) == pytest.approx(found.score(mean, "sara").score)
    assert "3 + 3 runs" in mean.words


def test_groups_are_named_on_the_command_line_also_by_pattern(tmp_path: Path) -> None:
    sft = _seeds(tmp_path, "sft", 0.0, runs=2, spread=0.01, seed=3)
    _seeds(tmp_path, "sara", 0.1, runs=2, spread=0.01, seed=4)
    found = compare_runs([f"plain={sft[0]},{sft[1]}", f"aligned={tmp_path}/sara-*"], **FAST)
    assert found.pairs == [("plain", "aligned")]
    assert found.methods["aligned"]["seeds"] == [0, 1]


def test_a_folder_of_runs_stands_for_its_runs(models: list[Path]) -> None:
    assert [one.label for one in read_methods([models[0].parent])] == ["base", "sara", "sft"]


def test_a_single_run_beside_several_varies_like_them_unless_it_is_fixed(tmp_path: Path) -> None:
    base = write_scores(
        tmp_path / "base", {("mmlu", code): answers(np.random.default_rng(5), 300, 0.5) for code in LANGUAGES}
    )
    sara = _seeds(tmp_path, "sara", 0.0, runs=3, spread=0.03, seed=6)
    loose, tight = compare_runs([base, *sara], **FAST), compare_runs([base, *sara], fixed=["base"], **FAST)
    assert (row(loose, None).from_seeds or 0) > 1.5 * (row(tight, None).from_seeds or 0) > 0
    assert any("base: one run, taken to vary between seeds as sara" in note for note in loose.notes)
    assert not any("taken to vary" in note for note in tight.notes)


def test_one_model_under_two_names_is_said_to_be_one(tmp_path: Path) -> None:
    scores = {("mmlu", "hin_Deva"): answers(np.random.default_rng(15), 30, 0.5)}
    same = {"digest": "abc", "adapter": None}
    folders = [write_scores(tmp_path / name, scores, model={"path": name, **same}) for name in "ab"]
    folders.append(write_scores(tmp_path / "c", scores, model={"path": "c", "digest": "other"}))
    notes = compare_runs(folders, **FAST).notes
    assert f"the same model was evaluated in {folders[0]}, {folders[1]}: what differs there is not training" in notes


def test_versions_that_differ_are_named(tmp_path: Path) -> None:
    scores = {("mmlu", "hin_Deva"): answers(np.random.default_rng(16), 30, 0.5)}
    a, b = (write_scores(tmp_path / name, scores) for name in "ab")
    record = json.loads((b / "run.json").read_text())
    (b / "run.json").write_text(json.dumps({**record, "versions": {"lm_eval": "0.5"}}))
    assert (
        f"evaluated with different versions of lm_eval: 0.4.13 in {a}; 0.5 in {b}" in compare_runs([a, b], **FAST).notes
    )


# ---- what is refused -------------------------------------------------------------------------------------------------


def _edit(folder: Path, language: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the samples of a language and write the folder anew, so that only the comparison can object."""
    tables = {}
    for path in sorted((folder / "samples").iterdir()):
        code = path.name.split(".")[1]
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        tables["mmlu", code] = change(rows) if code == language else rows
    write_folder(folder, tables)


def _pair(root: Path, n: int = 30) -> tuple[Path, Path]:
    rng = np.random.default_rng(9)
    scores = {("mmlu", code): answers(rng, n, 0.5) for code in LANGUAGES}
    return write_scores(root / "a", scores), write_scores(root / "b", scores)


def test_other_samples_are_refused_by_their_first_ids(tmp_path: Path) -> None:
    a, b = _pair(tmp_path)
    _edit(b, "swh_Latn", lambda rows: rows[:-7])
    with pytest.raises(
        DataError,
        match=r"mmlu swh_Latn: .*a and .*b do not hold the same samples: 7 only in .*a, first 'q00023', 'q00024'",
    ):
        compare_runs([a, b])
    _edit(b, "hin_Deva", lambda rows: [{**rows[0], "id": "new"}, *rows[1:]])
    with pytest.raises(DataError, match=r"mmlu hin_Deva: .* 1 only in .*a, first 'q00000'; 1 only in .*b, first 'new'"):
        compare_runs([a, b])


def test_another_content_under_the_same_id_is_refused(tmp_path: Path) -> None:
    a, b = _pair(tmp_path)
    _edit(b, "swh_Latn", lambda rows: [*rows[:4], {**rows[4], "hash": "other"}, *rows[5:]])
    with pytest.raises(DataError, match=r"1 of 30 have another content under the same id, first 'q00004'"):
        compare_runs([a, b])


def test_another_benchmark_version_is_refused_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    scores = {("mmlu", code): answers(rng, 20, 0.5) for code in LANGUAGES}
    a, b = write_scores(tmp_path / "a", scores), write_scores(tmp_path / "b", scores, task_version="2")
    with pytest.raises(DataError, match=r"mmlu \w+: .*b is of another benchmark version \(\w+\) than .*a \(\w+\)"):
        compare_runs([a, b])


def test_other_settings_are_refused_by_name_or_marked(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    scores = {("mmlu", code): answers(rng, 20, 0.5) for code in LANGUAGES}
    a = write_scores(tmp_path / "a", scores)
    b = write_scores(tmp_path / "b", scores, settings={**SETTINGS, "num_fewshot": 5, "chat_template": True})
    with pytest.raises(
        DataError,
        match=r"b was evaluated with other settings than .*a: chat_template true against false; num_fewshot 5 ag",
    ):
        compare_runs([a, b])
    assert compare_runs([a, b], allow_settings=True, **FAST).notes[0].startswith("SETTINGS DIFFER: ")


REFUSALS: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "one run": (lambda a, b: [a], "only a .* was given, and a comparison needs two"),
    "no run": (lambda a, b: [], "nothing was given"),
    "the same folder twice": (lambda a, b: [a, a.parent / "." / "a"], "was given twice"),
    "the same folder in two groups": (lambda a, b: [f"x={a}", f"y={a},{b}"], "was given twice"),
    "no such folder": (lambda a, b: [a, b.parent / "nowhere"], "nowhere: no such folder"),
    "a file": (lambda a, b: [a, b / "run.json"], "no such folder"),
    "a folder without results": (lambda a, b: [a, b / "samples"], "no results of a run in it"),
    "a pattern without a match": (lambda a, b: [a, f"x={b}/*"], "no results of a run match this pattern"),
    "an empty name": (lambda a, b: [a, f"={b}"], "is not NAME=FOLDER"),
    "an empty part": (lambda a, b: [a, f"x={b},"], "is not NAME=FOLDER"),
    "an empty word": (lambda a, b: [a, ""], "an empty name is no results folder"),
    "a group called like a run": (lambda a, b: [a, f"a={b}"], "its run is called 'a', and so is a group of runs"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_words_that_make_no_comparison_are_refused(tmp_path: Path, case: str) -> None:
    a, b = _pair(tmp_path)
    words, message = REFUSALS[case]
    with pytest.raises(DataError, match=message):
        compare_runs(words(a, b))


def test_two_runs_of_one_name_must_be_seeds(tmp_path: Path) -> None:
    scores = {("mmlu", "hin_Deva"): answers(np.random.default_rng(12), 20, 0.5)}
    other = write_scores(tmp_path / "other", scores)
    for seeds in ((None, None), (1, 1), (1, None)):
        twins = [
            write_scores(tmp_path / f"{place}-{seeds[0]}-{seeds[1]}" / "sara", scores, label="sara", seed=seed)
            for place, seed in enumerate(seeds)
        ]
        with pytest.raises(DataError, match=r"2 runs are called 'sara': .* Name them apart"):
            compare_runs([other, *twins])
    found = compare_runs([other, f"sara={twins[0]},{twins[1]}"], **FAST)
    assert found.pairs == [("other", "sara")]


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "scores missing": (
        lambda b: (b / "samples" / "mmlu.swh_Latn.jsonl").unlink(),
        "mmlu.swh_Latn.jsonl is missing",
    ),
    "samples cut short": (lambda b: _cut(b / "samples" / "mmlu.swh_Latn.jsonl", -40), "cannot be read"),
    "samples cut at a line": (lambda b: _drop(b / "samples" / "mmlu.swh_Latn.jsonl"), "do not belong together"),
    "no samples": (lambda b: (b / "samples" / "mmlu.swh_Latn.jsonl").write_text(""), "is empty"),
    "not JSON": (lambda b: (b / "samples" / "mmlu.swh_Latn.jsonl").write_text("hello\n"), "cannot be read"),
    "not UTF-8": (lambda b: (b / "samples" / "mmlu.swh_Latn.jsonl").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "no results.json": (lambda b: (b / "results.json").unlink(), "nothing in this run is finished"),
    "results.json of another kind": (lambda b: (b / "results.json").write_text("[]"), "damaged"),
    "results.json of a later schema": (
        lambda b: (b / "results.json").write_text('{"schema": 9, "results": []}'),
        "schema 9",
    ),
    "no run.json": (lambda b: (b / "run.json").unlink(), "no results of a run in it"),
    "NaN": (lambda b: _replace(b, '"score": 1.0', '"score": NaN'), "'q\\d+' is nan"),
    "infinity": (lambda b: _replace(b, '"score": 1.0', '"score": Infinity'), "'q\\d+' is inf"),
    "accuracy 3": (lambda b: _replace(b, '"score": 1.0', '"score": 3.0'), "do not belong together"),
    "an answer turned right": (lambda b: _replace(b, '"score": 0.0', '"score": 1.0'), "mean of the samples' scores"),
    "a score that is a truth value": (lambda b: _replace(b, '"score": 1.0', '"score": true'), "no sample of this"),
    "results of no name": (lambda b: (b / "results.json").write_text('{"schema": 1}'), "lists no results; delete it"),
    "results in another folder": (lambda b: _summary(b, language="../x"), "name no benchmark and language"),
    "no score": (lambda b: _replace(b, '"score": 1.0, ', ""), "no sample of this version"),
    "a score that is text": (lambda b: _replace(b, '"score": 1.0', '"score": "high"'), "swh_Latn"),
    "a score that is null": (lambda b: _replace(b, '"score": 1.0', '"score": null'), "swh_Latn"),
    "an id twice": (lambda b: _replace(b, '"id": "q00001"', '"id": "q00000"'), "more than once, first 'q00000'"),
    "a guess of 5": (lambda b: _summary(b, chance=5), "the score of a guess is 5"),
    "another guess": (lambda b: _summary(b, chance=0.5), "has chance 0.5, and .* has 0.25"),
    "a label that is a number": (lambda b: _run(b, label=5), "the label 5 is no name"),
    "settings that are text": (lambda b: _run(b, settings="x"), "its settings are 'x'"),
    "results that are null": (lambda b: (b / "results.json").write_text('{"schema": 1, "results": null}'), "lists no"),
    "another anchor": (lambda b: _summary(b, anchor=True), "anchor"),
    "another metric": (lambda b: _summary(b, metric="f1"), "has metric f1, and .* has accuracy"),
}


def _cut(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[:at])


def _drop(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def _replace(folder: Path, old: str, new: str) -> None:
    path = folder / "samples" / "mmlu.swh_Latn.jsonl"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _run(folder: Path, **changes: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _summary(folder: Path, **changes: Any) -> None:
    path = folder / "results.json"
    record = json.loads(path.read_text())
    for entry in record["results"]:
        if entry["language"] == "swh_Latn":
            entry.update(changes)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_results_are_refused_with_their_place(tmp_path: Path, case: str) -> None:
    a, b = _pair(tmp_path)
    damage, message = BROKEN[case]
    damage(b)
    with pytest.raises(DataError, match=message) as refused:
        compare_runs([a, b])
    assert str(b) in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["swh_Lat"]}, "no run has results for language 'swh_Lat'; did you mean 'swh_Latn'"),
        ({"languages": []}, "no language was named"),
        ({"benchmarks": ["mmul"]}, "did you mean 'mmlu'"),
        ({"baseline": "c"}, "baseline: no method is called 'c'"),
        ({"fixed": ["c"]}, "fixed: no method is called 'c'"),
        ({"baseline": "a", "all_pairs": True}, "choose one"),
        ({"correction": "bonferoni"}, "none of holm, bh, none"),
        ({"level": 95}, "level: 95 is not in 0.5 to 1"),
        ({"power": 0.1}, "power"),
        ({"replicates": 3}, "replicates: 3 is too few"),
        ({"permutations": 0}, "permutations"),
        ({"seed": -1}, "seed: -1 is negative"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare_runs(_pair(tmp_path), **options)


def test_too_few_swaps_for_the_correction_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    codes = ("hin_Deva", "swh_Latn", "npi_Deva", "ben_Beng", "tel_Telu", "tha_Thai")
    scores = {("xquad", code): rng.random(40) for code in codes}
    folders = [write_scores(tmp_path / name, scores, metric="f1") for name in "ab"]
    with pytest.raises(DataError, match="permutations: with 100 of them no p-value is below"):
        compare_runs(folders, permutations=100, replicates=200)


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    a = write_scores(tmp_path / "a", {("mmlu", "hin_Deva"): answers(rng, 20, 0.5)})
    b = write_scores(tmp_path / "b", {("mmlu", "swh_Latn"): answers(rng, 20, 0.5)})
    with pytest.raises(
        DataError, match=r"no benchmark and language in common: .*a has mmlu \(hin_Deva\); .*b has mmlu \(swh_Latn\)"
    ):
        compare_runs([a, b])


def test_one_sample_is_compared_without_pretence(tmp_path: Path) -> None:
    folders = [write_scores(tmp_path / name, {("mmlu", "hin_Deva"): [score]}) for name, score in (("a", 0), ("b", 1))]
    found = compare_runs(folders, **FAST).differences[0]
    assert (found.low, found.high, found.p, found.smallest) == (None, None, 1, None)
    assert found.words == "no difference that this one sample could show; it is too few to show any"


def test_matching_keeps_ids_and_scores_together(models: list[Path]) -> None:
    matched, _ = match(read_methods(models))
    assert matched[0].languages[0] == matched[0].anchor == "eng_Latn"
    assert matched[0].clusters == 400
    assert all(list(ids) == sorted(ids) for ids in matched[0].ids)
