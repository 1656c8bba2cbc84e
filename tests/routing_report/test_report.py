"""The report: what it reads and refuses, what it writes, and that every number comes out as it went in."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.cluster.hierarchy import average, cophenet, leaves_list, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from stored_profiles import HTML_IN_DATA, write_profile, write_results

from innerlingua.errors import DataError
from innerlingua.evaluation.store import read_summaries, summarise, write_run
from innerlingua.evaluation.store import write_results as write_evaluated
from innerlingua.page import CATEGORIES, SEQUENTIAL, ramp
from innerlingua.routing.report import read_profiles, write_report
from innerlingua.routing.report.order import similarity_order
from innerlingua.routing.report.pack import EXACT, pack_distribution
from innerlingua.routing.report.results import read_results
from innerlingua.routing.report.summary import correlations, wilson


def embedded(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, flags=re.S)
    assert found
    return json.loads(found[1])


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    raw = gzip.decompress(base64.b64decode(packed["data"]))
    kind = "u1" if packed["kind"] == "sqrt" else packed["kind"]
    values = np.frombuffer(raw, dtype=np.dtype(kind).newbyteorder("<")).reshape(packed["shape"])
    return (values / 255.0) ** 2 * unpacked(packed["top"])[..., None] if packed["kind"] == "sqrt" else values


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def edited(directory: Path, **changes: Any) -> Path:
    path = directory / "profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory


class TestPage:
    def test_asks_nothing_of_the_network(self, family: list[Path], results: Path, tmp_path: Path) -> None:
        page = write_report(family, tmp_path / "report.html", results=results).page.read_text()
        assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?(?!#)[^"'\s>]""", page.split("<script>")[0])
        assert not re.findall(r"@import|url\((?!#)", page.replace("url(#${clip})", ""))
        assert set(re.findall(r"https?://[^\s\"'`<]+", page)) <= {"http://www.w3.org/2000/svg"}

    def test_policy_allows_only_the_script_of_the_page(self, family: list[Path], tmp_path: Path) -> None:
        page = write_report(family, tmp_path / "report.html").page.read_text()
        script = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
        assert len(script) == 1
        digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
        assert f"default-src 'none'; script-src 'sha256-{digest}'" in page

    def test_html_of_the_data_stays_text(self, tmp_path: Path) -> None:
        directory = write_profile(tmp_path / "p", label=HTML_IN_DATA)
        page = write_report([directory], tmp_path / "report.html").page.read_text()
        assert "alert('no')</script>" not in page
        assert page.count("<script") == 2
        data = embedded(page)
        assert data["profiles"][0]["label"] == HTML_IN_DATA
        assert data["profiles"][0]["samples"]["pairs"][0]["target"]["tokens"][2] == HTML_IN_DATA

    def test_scripts_never_set_markup(self, family: list[Path], tmp_path: Path) -> None:
        page = write_report(family, tmp_path / "report.html").page.read_text()
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", page)

    def test_size_limits(self, large_pages: list[str]) -> None:
        one, two = (len(page.encode()) for page in large_pages)
        assert one < 6_000_000
        assert two - one <= 1_500_000

    def test_pairs_that_do_not_fit_are_counted(self, large_pages: list[str]) -> None:
        samples = embedded(large_pages[1])["profiles"][1]["samples"]
        assert samples["of"] == 24
        assert 0 < len(samples["pairs"]) < 24

    def test_lone_surrogates_do_not_break_the_page(self, tmp_path: Path) -> None:
        directory = write_profile(tmp_path / "p")
        path = directory / "samples.json"
        path.write_text(path.read_text().replace(" w1", " \\ud800"))
        data = embedded(write_report([directory], tmp_path / "report.html").page.read_text(encoding="utf-8"))
        assert "\ud800" in data["profiles"][0]["samples"]["pairs"][0]["target"]["tokens"][1]


class TestNumbers:
    def test_measures_in_the_page_equal_the_profile(self, family: list[Path], tmp_path: Path) -> None:
        data = embedded(write_report(family, tmp_path / "report.html").page.read_text())
        codes = [entry["code"] for entry in data["languages"]]
        for directory, shown in zip(family, data["profiles"], strict=True):
            stored, values = json.loads((directory / "profile.json").read_text()), unpacked(shown["measures"])
            for row, measure in enumerate(data["measures"]):
                for code, entry in stored["measures"][measure["key"]].items():
                    for which, key in enumerate(("mean", "low", "high")):
                        numbers = (entry or {}).get(key) or [None] * len(data["layers"])
                        expected = np.array([np.nan if x is None else x for x in numbers])
                        assert np.array_equal(values[row, codes.index(code), which], expected, equal_nan=True)

    def test_csv_equals_json_equals_profile(self, family: list[Path], tmp_path: Path) -> None:
        write_report(family, tmp_path / "report.html", export_to=tmp_path / "numbers")
        rows = table(tmp_path / "numbers" / "measures.csv")
        objects = json.loads((tmp_path / "numbers" / "report.json").read_text())["measures"]
        assert len(rows) == len(objects) == 3 * 9 * 5 * 6
        stored = {path.name: json.loads((path / "profile.json").read_text()) for path in family}
        for row, item in zip(rows, objects, strict=True):
            place = stored[row["profile"]]["model"]["layers"].index(int(row["layer"]))
            entry = stored[row["profile"]]["measures"][row["measure"]][row["language"]] or {}
            for key in ("mean", "low", "high"):
                expected = (entry.get(key) or [None] * 100)[place]
                assert item[key] == expected
                assert (float(row[key]) if row[key] else None) == expected

    def test_expert_shares_are_exported_in_full(self, family: list[Path], tmp_path: Path) -> None:
        write_report(family[:1], tmp_path / "report.html", export_to=tmp_path / "numbers")
        stored = load_file(family[0] / "profile.safetensors")
        rows = table(tmp_path / "numbers" / "experts.csv")
        for key in ("mean", "load"):
            assert np.array_equal(np.array([row[key] for row in rows], dtype="f4"), stored[key].ravel())

    def test_languages_are_exported_pair_by_pair(self, family: list[Path], tmp_path: Path) -> None:
        write_report(family[:1], tmp_path / "report.html", export_to=tmp_path / "numbers")
        between = json.loads((family[0] / "profile.json").read_text())["between_languages"]
        for row in table(tmp_path / "numbers" / "between_languages.csv"):
            a, b = (between["order"].index(row[side]) for side in ("language_a", "language_b"))
            source = between["js"] if row["layer"] == "mean" else between["js_by_layer"][int(row["layer"])]
            assert float(row["js"]) == source[a][b]
            for end in ("low", "high"):
                assert row[end] == (str(between[end][a][b]) if row["layer"] == "mean" else "")

    def test_small_distributions_are_exact(self) -> None:
        values = np.random.default_rng(0).dirichlet(np.ones(8), (3, 4)).astype("f4")
        assert np.array_equal(unpacked(pack_distribution(values)), values)

    def test_large_distributions_keep_small_shares_apart(self) -> None:
        values = np.random.default_rng(0).dirichlet(np.full(128, 0.5), (31, 48)).astype("f4")
        assert values.size > EXACT
        off, top = np.abs(unpacked(pack_distribution(values)) - values), values.max(-1, keepdims=True)
        assert (off / top).max() < 0.004
        small = values < 0.01 * top
        assert (off / top)[small].max() < 0.0005

    def test_a_row_of_zeros_stays_zero(self) -> None:
        values = np.zeros((31, 48, 128), dtype="f4")
        assert not unpacked(pack_distribution(values)).any()

    def test_skipped_rows_are_exported(self, family: list[Path], tmp_path: Path) -> None:
        write_report(family[:1], tmp_path / "report.html", export_to=tmp_path / "numbers")
        rows = {(row["reason"], row["language"]): row["count"] for row in table(tmp_path / "numbers" / "skipped.csv")}
        assert rows == {
            ("missing_side", "tel_Telu"): "41",
            ("without_anchor", ""): "0",
            ("empty", "hin_Deva"): "3",
            ("overlong", ""): "0",
        }


class TestOrder:
    def test_blocks_stand_together(self) -> None:
        random = np.random.default_rng(1)
        block = random.permutation(np.repeat([0, 1, 2], 5))
        distance = (block[:, None] != block[None]) + 0.1 * random.random((15, 15))
        distance = (distance + distance.T) / 2 * (1 - np.eye(15))
        order = block[similarity_order(distance)]
        assert sum(a != b for a, b in pairwise(order)) == 2

    def test_points_on_a_line_come_out_in_order(self) -> None:
        place = np.random.default_rng(2).permutation(12).astype(float) ** 1.1
        order = place[similarity_order(np.abs(place[:, None] - place[None]))]
        assert list(order) in (sorted(place), sorted(place, reverse=True))

    @pytest.mark.parametrize("seed", range(5))
    def test_is_a_leaf_order_of_average_linkage(self, seed: int) -> None:
        points = np.random.default_rng(seed).normal(size=(14, 3))
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
        height = squareform(cophenet(average(squareform(distance, checks=False))))
        order = similarity_order(distance)
        # In a leaf order of the tree, what lies between two leaves merged no later than those two did.
        for i in range(14):
            for j in range(i + 2, 14):
                a, b = order[i], order[j]
                assert all(height[a, order[k]] <= height[a, b] + 1e-12 for k in range(i + 1, j))

    def test_neighbours_are_nearly_as_near_as_in_the_optimal_order(self) -> None:
        points = np.random.default_rng(7).normal(size=(31, 4))
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
        condensed = squareform(distance, checks=False)
        best = leaves_list(optimal_leaf_ordering(average(condensed), condensed))
        length = lambda order: sum(distance[a, b] for a, b in pairwise(order))  # noqa: E731
        assert length(similarity_order(distance)) < 1.25 * length(best)

    def test_languages_without_shared_rows_are_put_far(self) -> None:
        distance = np.array([[0, 0.1, np.nan], [0.1, 0, 0.2], [np.nan, 0.2, 0]])
        assert similarity_order(distance) in ([0, 1, 2], [2, 1, 0])


class TestResults:
    def test_a_planted_linear_relation_has_r_minus_one(self, tmp_path: Path) -> None:
        (profile,) = read_profiles([write_profile(tmp_path / "p", languages=6, layers=1)])
        js = {code: rows[0, 0] for code, rows in profile.measures["js"].items() if code != "eng_Latn"}
        accuracy = {code: {"n": 10**9, "correct": round((0.9 - x) * 10**9)} for code, x in js.items()}
        path = tmp_path / "result.json"
        path.write_text(json.dumps({"runs": {"Base": {"accuracy": accuracy}, "other": {}}}))
        results = read_results(path, [profile])
        r, n = correlations(profile, results, "js")
        assert r[0] == pytest.approx(-1, abs=1e-6)
        assert n[0] == 5
        assert results.unmatched == ["other"]

    def test_two_languages_give_no_r(self, tmp_path: Path) -> None:
        (profile,) = read_profiles([write_profile(tmp_path / "p", languages=3)])
        results = read_results(write_results(tmp_path / "result.json", languages=3), [profile])
        assert np.isnan(correlations(profile, results, "js")[0]).all()

    def test_wilson_at_the_ends(self) -> None:
        assert wilson(100, 0) == pytest.approx((0.0, 0.03699), abs=1e-5)
        assert wilson(100, 100) == pytest.approx((0.96301, 1.0), abs=1e-5)

    def test_runs_of_other_names_are_refused(self, family: list[Path], tmp_path: Path) -> None:
        path = write_results(tmp_path / "result.json", labels=("first", "second"))
        with pytest.raises(DataError, match=r"first, second match none of the profiles base, sft, sara.*--label"):
            write_report(family, tmp_path / "report.html", results=path)

    @pytest.mark.parametrize(
        ("runs", "message"),
        [
            ({"base": {"accuracy": {"hin_Deva": {"n": 10, "correct": 11}}}}, r"runs\.base\.accuracy\.hin_Deva"),
            ({"base": {"accuracy": {"hin_Deva": {"n": True, "correct": True}}}}, r"runs\.base\.accuracy\.hin_Deva"),
            ({"base": {"accuracy": {"hin_Deva": 3}}}, r"runs\.base\.accuracy\.hin_Deva"),
            ({"base": {"accuracy": [1]}}, "no accuracy in it"),
            ({"base": "x"}, "no accuracy in it"),
            ([1], "no accuracy in it"),
            ({"base": {"accuracy": {}}}, "no accuracy in it"),
            ({"base": {}, "b": {"accuracy": {"hin_Deva": {"n": 2, "correct": 1}}}}, "or hold no accuracy"),
            ({"base": {"accuracy": {"fra_Latn": {"n": 2, "correct": 1}}}}, "accuracy in fra_Latn, and none of these"),
        ],
    )
    def test_results_that_say_nothing_are_refused(
        self, family: list[Path], tmp_path: Path, runs: Any, message: str
    ) -> None:
        path = tmp_path / "result.json"
        path.write_text(json.dumps({"runs": runs}))
        with pytest.raises(DataError, match=message):
            write_report(family, tmp_path / "report.html", results=path)
        assert not (tmp_path / "report.html").exists()

    @staticmethod
    def evaluated(folder: Path, label: str, right: dict[str, int], *, benchmark: str = "belebele") -> None:
        """What `innerlingua evaluate` writes of one run: of ten questions in each language so many right."""
        run = folder / label.replace("/", "-")
        run.mkdir(parents=True, exist_ok=True)
        write_run(run, {"label": label})
        entries = [
            summarise(
                benchmark,
                code,
                [{"score": int(at < number), "status": "answered", "hash": str(at)} for at in range(10)],
                metric="accuracy",
                chance=0.25,
                task_version="1",
                anchor=code == "eng_Latn",
                seconds=1.0,
            )
            for code, number in right.items()
        ]
        write_evaluated(run, [*read_summaries(run), *entries])

    def test_a_folder_of_evaluate_is_read(self, family: list[Path], tmp_path: Path) -> None:
        self.evaluated(tmp_path / "e", "base", {"eng_Latn": 9, "hin_Deva": 3, "npi_Deva": 4})
        self.evaluated(tmp_path / "e", "SARA", {"eng_Latn": 8, "hin_Deva": 7})
        self.evaluated(tmp_path / "e", "other", {"hin_Deva": 5})
        results = read_results(tmp_path / "e", read_profiles(family))
        assert results.accuracy == {
            "base": {"eng_Latn": (10, 9), "hin_Deva": (10, 3), "npi_Deva": (10, 4)},
            "sara": {"eng_Latn": (10, 8), "hin_Deva": (10, 7)},
        }
        assert (results.benchmark, results.chance, results.unmatched) == ("belebele", 0.25, ["other"])
        alone = read_results(tmp_path / "e" / "base", read_profiles(family))
        assert alone.accuracy == {"base": results.accuracy["base"]}

    def test_benchmarks_are_never_added_up(self, family: list[Path], tmp_path: Path) -> None:
        for benchmark, number in (("belebele", 3), ("xcopa", 6)):
            self.evaluated(tmp_path / "e", "base", {"hin_Deva": number}, benchmark=benchmark)
        profiles = read_profiles(family)
        assert read_results(tmp_path / "e", profiles, benchmark="xcopa").accuracy == {"base": {"hin_Deva": (10, 6)}}
        with pytest.raises(DataError, match=r"holds belebele, xcopa: choose one by --benchmark"):
            read_results(tmp_path / "e", profiles)
        with pytest.raises(DataError, match=r"no accuracy in 'xcop'; did you mean 'xcopa'\?"):
            read_results(tmp_path / "e", profiles, benchmark="xcop")

    def test_folders_that_say_nothing_are_refused(self, family: list[Path], tmp_path: Path) -> None:
        profiles = read_profiles(family)
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="empty: no accuracy in it"):
            read_results(tmp_path / "empty", profiles)
        self.evaluated(tmp_path / "e", "base", {"hin_Deva": 3})
        path = tmp_path / "e" / "base" / "results.json"
        stored = json.loads(path.read_text())
        stored["results"][0]["score"] = 7
        path.write_text(json.dumps(stored))
        with pytest.raises(DataError, match=r"results\.json: accuracy 1: expected .* a score from 0 to 1"):
            read_results(tmp_path / "e", profiles)
        path.write_text("{")
        with pytest.raises(DataError, match=r"results\.json: no readable JSON"):
            read_results(tmp_path / "e", profiles)
        with pytest.raises(DataError, match="--benchmark chooses in a folder"):
            write_report(family, tmp_path / "r.html", benchmark="xcopa")

    def test_languages_of_no_profile_are_named(self, family: list[Path], tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        accuracy = {code: {"n": 2, "correct": 1} for code in ("hin_Deva", "fra_Latn", "eng_Latn")}
        path.write_text(json.dumps({"runs": {"base": {"accuracy": accuracy}}}))
        written = write_report(family, tmp_path / "report.html", results=path)
        assert written.notes == ["accuracy in languages of no profile, not shown: fra_Latn"]
        assert embedded(written.page.read_text())["results"]["other_languages"] == ["fra_Latn"]


class TestFigures:
    def test_every_figure_is_svg_that_parses(self, family: list[Path], results: Path, tmp_path: Path) -> None:
        written = write_report(family, tmp_path / "report.html", results=results, svg_to=tmp_path / "svg").files
        names = {path.stem for path in written}
        assert names == {
            f"routing_{name}" for name in ("layers", "experts", "curves", "overview", "similarity", "accuracy")
        }
        for path in written:
            root = ElementTree.parse(path).getroot()
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert "nan" not in path.read_text().lower().replace("nanma", "")

    def test_curves_have_a_line_per_language_and_profile(self, family: list[Path], tmp_path: Path) -> None:
        write_report(family, tmp_path / "report.html", svg_to=tmp_path)
        root = ElementTree.parse(tmp_path / "routing_curves.svg").getroot()
        bands = root.findall(".//{http://www.w3.org/2000/svg}polygon")
        assert len(bands) == 4 * 3

    def test_names_of_the_data_are_escaped(self, tmp_path: Path) -> None:
        write_report([write_profile(tmp_path / "p", label=HTML_IN_DATA)], tmp_path / "r.html", svg_to=tmp_path)
        texts = [node.text for node in ElementTree.parse(tmp_path / "routing_overview.svg").iter()]
        assert f"{HTML_IN_DATA} (4 languages)" in texts

    def test_ramp_meets_its_stops(self) -> None:
        assert ramp(SEQUENTIAL, 0) == SEQUENTIAL[0]
        assert ramp(SEQUENTIAL, 0.5) == SEQUENTIAL[5]
        assert ramp(SEQUENTIAL, 2) == SEQUENTIAL[-1]
        assert len(set(CATEGORIES)) == len(CATEGORIES)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model_type": "mixtral"}, "model_type 'qwen3_moe' against 'mixtral'"),
            ({"experts": 16}, "experts 8 against 16"),
            ({"layers": 9}, r"MoE layers 6 \(0, 1, 2, 3, 4, 5\) against 9 \(0, 1, \.\.\., 8\)"),
            ({"top_k": 3}, "top_k 2 against 3"),
        ],
    )
    def test_another_family(self, family: list[Path], tmp_path: Path, change: dict[str, Any], message: str) -> None:
        other = write_profile(tmp_path / "other", **change)
        with pytest.raises(DataError, match=message):
            write_report([family[0], other], tmp_path / "report.html")
        assert not (tmp_path / "report.html").exists()

    def test_another_anchor(self, family: list[Path], tmp_path: Path) -> None:
        stored = json.loads((family[0] / "profile.json").read_text())
        codes = ["hin_Deva", "eng_Latn", *list(stored["languages"])[2:]]
        other = write_profile(tmp_path / "other", anchor="hin_Deva")
        edited(other, languages={code: stored["languages"][code] for code in codes})
        with pytest.raises(DataError, match="anchor 'eng_Latn' against 'hin_Deva'"):
            write_report([family[0], other], tmp_path / "report.html")

    def test_a_folder_without_profile(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no routing profile in it.*interrupted"):
            read_profiles([tmp_path])

    def test_a_damaged_profile(self, tmp_path: Path) -> None:
        # What is asked of each file is tested beside the reader, in routing_profile/test_profile_layout.py.
        directory, other = write_profile(tmp_path / "p"), write_profile(tmp_path / "q", experts=4)
        (directory / "profile.safetensors").write_bytes((other / "profile.safetensors").read_bytes())
        with pytest.raises(DataError, match=r"profile\.safetensors: mean should be \(5, 6, 8\) and is \(5, 6, 4\)"):
            read_profiles([directory])
        edited(directory, measures=None)
        with pytest.raises(DataError, match=r"profile\.json: measures: input should be a valid dictionary"):
            read_profiles([directory])

    @pytest.mark.parametrize("option", ["output", "export_to", "svg_to"])
    @pytest.mark.parametrize("place", ["kept/x", "taken"])
    def test_a_place_that_cannot_be_written(self, family: list[Path], tmp_path: Path, option: str, place: str) -> None:
        (tmp_path / "kept").write_text("a file")
        if option == "output":
            (tmp_path / "taken").mkdir()
        else:
            (tmp_path / "taken").write_text("a file")
        before = sorted(tmp_path.rglob("*"))
        chosen = {"output": tmp_path / "report.html", option: tmp_path / place}
        with pytest.raises(DataError, match=rf"--{option.partition('_')[0]}: .*{place}"):
            write_report(family, **chosen)
        assert sorted(tmp_path.rglob("*")) == before


class TestCommand:
    @staticmethod
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "innerlingua.cli", "routing", "report", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_writes_what_was_asked_for(self, family: list[Path], results: Path, tmp_path: Path) -> None:
        page = tmp_path / "report.html"
        done = self.run(*family, "-o", page, "--results", results, "--svg", tmp_path / "s", "--export", tmp_path / "n")
        assert done.returncode == 0
        assert f"report: {page} (" in done.stdout
        assert (tmp_path / "s" / "routing_curves.svg").is_file()
        assert (tmp_path / "n" / "report.json").is_file()

    def test_another_family_ends_with_two_and_one_message(self, family: list[Path], tmp_path: Path) -> None:
        other = write_profile(tmp_path / "other", model_type="mixtral")
        done = self.run(family[0], other, "-o", tmp_path / "report.html")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {other}: this profile cannot be compared with {family[0]}")
        assert "Traceback" not in done.stderr


class TestCost:
    def test_needs_no_torch(self, family: list[Path], tmp_path: Path) -> None:
        code = (
            "import sys\nfrom pathlib import Path\nfrom innerlingua.routing.report import write_report\n"
            "from innerlingua.routing.profile import format_layers, read_record\n"
            "write_report([Path(sys.argv[1])], Path(sys.argv[2]))\nprint('torch' in sys.modules)"
        )
        command = [sys.executable, "-c", code, family[0], tmp_path / "r.html"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


class TestLenience:
    def test_without_samples_and_known_training(self, tmp_path: Path) -> None:
        directory = write_profile(tmp_path / "p", samples=0)
        (directory / "samples.json").unlink()
        stored = json.loads((directory / "profile.json").read_text())
        stored["data"]["seen_in_training"] = None
        edited(directory, data=stored["data"])
        written = write_report([directory], tmp_path / "r.html", svg_to=tmp_path / "svg", export_to=tmp_path / "n")
        data = embedded(written.page.read_text())
        assert data["profiles"][0]["unseen"] is None
        assert data["profiles"][0]["samples"] == {"pairs": [], "of": 0}
        assert table(tmp_path / "n" / "languages.csv")[1]["seen_in_training"] == ""

    def test_profiles_of_other_languages_are_joined(self, tmp_path: Path) -> None:
        few, many = write_profile(tmp_path / "few", languages=3), write_profile(tmp_path / "many", languages=6)
        data = embedded(write_report([few, many], tmp_path / "r.html").page.read_text())
        assert len(data["languages"]) == 6
        assert np.isnan(unpacked(data["profiles"][0]["measures"])[:, 3:]).all()

    def test_equal_labels_are_told_apart_by_folder(self, tmp_path: Path) -> None:
        paths = [write_profile(tmp_path / name, label="model") for name in ("first", "second")]
        assert [profile.label for profile in read_profiles(paths)] == ["model (first)", "model (second)"]
