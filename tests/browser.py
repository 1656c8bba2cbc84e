"""A real browser for the tests of pages: a Chromium that is there already, driven by Playwright.

`INNERLINGUA_CHROMIUM` names the program; without it a chromium on PATH is taken. Where there is none, tests skip with a
sentence, except under `make browser` (`pytest -m browser`), where they fail: somebody asked for the browser.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium(config: pytest.Config) -> str:
    """The path of a Chromium; skips, or under `-m browser` fails, where there is none."""
    named = os.environ.get("INNERLINGUA_CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        sentence = f"no browser: set INNERLINGUA_CHROMIUM to a Chromium (now {named!r}), or put chromium on PATH"
        if config.getoption("markexpr") == "browser":
            pytest.fail(sentence, pytrace=False)
        pytest.skip(sentence)
    return found


@contextmanager
def running(config: pytest.Config) -> Iterator[Browser]:
    """A headless Chromium with a profile of its own, closed when left."""
    path = chromium(config)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Visit:
    """A page together with what went wrong on it: errors of its scripts and requests beyond its own file."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.errors, self.requests = page, [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type in ("error", "warning") else None)
        page.on("request", lambda request: None if request.url == address else self.requests.append(request.url))
        page.goto(address)

    errors: list[str]
    requests: list[str]
