"""The page of a comparison in a real browser: it loads alone, and what a reader does to it works."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from stored_runs import LANGUAGES, answers, changed, rows_of, write_folder, write_scores

from browser import Visit, running
from innerlingua.data.languages import LANGUAGES as CODES
from innerlingua.evaluation import compare_runs
from innerlingua.evaluation.outcome import Comparison
from innerlingua.evaluation.page import write_page

pytestmark = pytest.mark.browser

HTML = "<img src=x onerror=alert(1)>&amp;"


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with running(request.config) as browser:
        yield browser


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two benchmarks, a base and two methods of two seeds each, with answers that were cut and a label of markup."""
    root, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    keys = [(name, code) for name in ("mmlu", "belebele") for code in LANGUAGES]
    base = {key: answers(rng, 300, 0.45) for key in keys}
    moved = {"swh_Latn": (0.02, 0.3), "eng_Latn": (0.3, 0.02)}
    folders = []
    for label, seeds in (("base", 1), (HTML, 2), ("sara", 2)):
        for seed in range(seeds):
            tables = {}
            for key, scores in base.items():
                lost, won = moved.get(key[1], (0.05, 0.05)) if label == "sara" else (0.05, 0.05)
                rows = rows_of(*key, changed(rng, scores, lost=lost, won=won) if label != "base" else scores)
                if label == "sara" and key[1] == "hin_Deva":
                    rows[:3] = [{**one, "status": "cut", "score": 0.0} for one in rows[:3]]
                tables[key] = rows
            folders.append(
                write_folder(
                    root / f"{label[:1].strip('<')}{label[1:4]}{seed}".replace("/", ""), tables, label=label, seed=seed
                )
            )
    return compare_runs(folders, fixed=["base"], all_pairs=True, replicates=300, permutations=299)


@pytest.fixture(scope="module")
def page_file(compared: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "results.html"
    write_page(compared, path)
    return path


@pytest.fixture
def visit(browser: Browser, page_file: Path) -> Iterator[Visit]:
    """The page, ready; whatever the test did, no script failed and nothing was requested."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    visit = Visit(context.new_page(), page_file.as_uri())
    visit.page.wait_for_selector("html[data-ready]")
    yield visit
    assert visit.errors == []
    assert visit.requests == []
    context.close()


def saved(page: Page, selector: str) -> str:
    with page.expect_download() as download:
        page.click(selector)
    return Path(download.value.path()).read_text(encoding="utf-8")


def column(page: Page, key: str) -> list[str]:
    heads = page.locator("#table thead th").evaluate_all("all => all.map(one => one.dataset.key)")
    return page.locator(f"#table tbody td:nth-child({heads.index(key) + 1})").all_inner_texts()


def test_draws_a_row_per_language_with_its_band(visit: Visit) -> None:
    assert visit.page.locator("#forest g.row").count() == 1 + len(LANGUAGES)
    assert visit.page.locator("#forest rect.smallest").count() == 1 + len(LANGUAGES)
    assert visit.page.locator("#scores line.chance").count() == 1 + len(LANGUAGES)
    assert visit.page.locator("#scores line.run").count() == 4 * (1 + len(LANGUAGES))
    assert visit.page.locator("#failure").is_hidden()


def test_markup_in_a_label_stays_text(visit: Visit) -> None:
    assert HTML in visit.page.inner_text("h1")
    assert visit.page.locator("img").count() == 0
    assert visit.page.locator("script").count() == 2


def test_says_in_words_what_was_found(visit: Visit, compared: Comparison) -> None:
    visit.page.select_option("#pair", "1")
    words = visit.page.locator("#words li").all_inner_texts()
    expected = [
        one
        for one in compared.rows("belebele", "accuracy", "base", "sara")
        if one.kind != "language" or one.verdict in ("better", "worse")
    ]
    assert [line.split(": ", 1)[1] for line in words] == [f"{one.words}." for one in expected]
    assert any("better" in line for line in words)
    assert any(line.startswith("English (anchor)") and "worse" in line for line in words)


def test_switches_benchmark_pair_and_order(visit: Visit) -> None:
    page = visit.page
    assert page.inner_text("#forest-caption").startswith(f"{HTML} less base, belebele")
    page.select_option("#table-choice", "1")
    assert "mmlu" in page.inner_text("#forest-caption")
    page.select_option("#pair", "2")
    assert page.inner_text("#forest-caption").startswith(f"sara less {HTML}, mmlu")
    page.select_option("#order", "name")
    assert column(page, "language") == ["Mean of targets", "English (anchor)", "Hindi", "Nepali", "Swahili"]
    page.select_option("#order", "difference")
    assert column(page, "language")[2] == "Swahili"


def test_sorts_both_ways_and_filters(visit: Visit) -> None:
    page = visit.page
    for state, reverse in (("ascending", False), ("descending", True)):
        page.click('#table th[data-key="difference"] button')
        assert page.get_attribute('#table th[data-key="difference"]', "aria-sort") == state
        shown = [float(text.replace("−", "-")) for text in column(page, "difference")]
        assert shown == sorted(shown, reverse=reverse)
    page.fill("#filter", "swahili")
    assert column(page, "code") == ["swh_Latn"]
    page.fill("#filter", "nothing such")
    assert column(page, "code") == []


def test_downloads_hold_the_numbers(visit: Visit, compared: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(saved(visit.page, "#differences-csv"))))
    assert len(rows) == len(compared.differences)
    for row, one in zip(rows, compared.differences, strict=True):
        assert float(row["difference"]) == one.difference
        assert float(row["p"]) == one.p
        assert row["method"] == one.method
        assert row["smallest"] == ("" if one.smallest is None else row["smallest"])
    scores = list(csv.DictReader(io.StringIO(saved(visit.page, "#scores-csv"))))
    assert len(scores) == sum(1 + (len(one.by_run) if len(one.by_run) > 1 else 0) for one in compared.scores)
    assert json.loads(saved(visit.page, "#all-json"))["scores"] == compared.to_json()["scores"]
    assert len(list(csv.DictReader(io.StringIO(saved(visit.page, "#rows-csv"))))) == 1 + len(LANGUAGES)


def test_figures_download_as_svg_on_white(visit: Visit) -> None:
    for name in ("forest", "scores"):
        text = saved(visit.page, f'[data-svg="{name}"]')
        assert text.startswith("<svg")
        assert 'fill="#ffffff"' in text
        assert "NaN" not in text
        assert "<img" not in text


def test_counts_answers_that_were_cut_by_run(visit: Visit) -> None:
    visit.page.select_option("#pair", "1")
    body = visit.page.locator("#unanswered tbody tr")
    assert body.count() == 1
    assert body.locator("td").all_inner_texts() == ["Hindi", "–", "–", "–", "3 cut", "3 cut"]


def test_the_forest_answers_to_pointer_and_keys(visit: Visit) -> None:
    page = visit.page
    chart = page.locator("#forest svg")
    chart.scroll_into_view_if_needed()
    chart.focus()
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#tip").startswith("Mean of targets")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#tip").startswith("English (anchor)")
    assert "smallest that could be shown" in page.inner_text("#tip")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.locator("#forest g.row").nth(2).hover()
    assert page.locator("#tip").is_visible()


def test_theme_can_be_switched_and_paper_is_light(visit: Visit) -> None:
    page = visit.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.evaluate(ground) != light
    page.emulate_media(media="print")
    page.wait_for_selector('html[data-theme="light"]')
    assert page.locator("nav.bar").is_hidden()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_needs_no_sideways_scrolling(browser: Browser, page_file: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=True, is_mobile=True)
    visit = Visit(context.new_page(), page_file.as_uri())
    visit.page.wait_for_selector("html[data-ready]")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.errors == []
    context.close()


def test_many_languages_and_long_labels_stay_readable(browser: Browser, tmp_path: Path) -> None:
    rng, codes = np.random.default_rng(1), ["eng_Latn", *list(CODES)[:30]]
    base = {("mmlu", code): answers(rng, 200, 0.3) for code in codes}
    after = {key: changed(rng, scores, lost=0.0, won=0.5) for key, scores in base.items()}
    folders = [write_scores(tmp_path / name, one, label=name * 60) for name, one in (("a", base), ("b", after))]
    write_page(compare_runs(folders, replicates=200, permutations=199), tmp_path / "many.html")
    context = browser.new_context(viewport={"width": 320, "height": 700}, has_touch=True, is_mobile=True)
    visit = Visit(context.new_page(), (tmp_path / "many.html").as_uri())
    visit.page.wait_for_selector("html[data-ready]")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 320
    assert visit.page.locator("#forest g.row").count() == 32
    assert visit.page.locator("#words li").count() == 11
    assert "22 more findings" in visit.page.locator("#words li").last.inner_text()
    assert visit.errors == []
    context.close()


def test_every_control_has_a_name(visit: Visit) -> None:
    nameless = visit.page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, svg[tabindex]')].filter((node) => !(
            node.getAttribute('aria-label') || node.textContent.trim() || (node.labels && node.labels.length)
        )).map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
