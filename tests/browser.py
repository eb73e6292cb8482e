"""A report as a reader's browser shows it: headless Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def opened(path: Path, *, size: dict[str, int] = DESKTOP, scheme: str = "light") -> Iterator[Any]:
    """The page at `path`; afterwards there must have been no error and no foreign request.

    Skips the test where there is no browser: `.ci/run` installs one.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    said, asked = [], []
    with playwright.sync_playwright() as driver:
        flags = [*FLAGS, *(["--no-sandbox"] if os.getuid() == 0 else [])]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport=size, color_scheme=scheme)
        page.on(
            "console",
            lambda message: said.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert said == []
    assert asked == [path.as_uri()]


def draw_everything(page: Any) -> int:
    """Bring every figure of the shown row into view and wait until it is drawn; their number."""
    plots = page.locator("section.row:not([hidden]) .plot")
    for i in range(plots.count()):
        plots.nth(i).scroll_into_view_if_needed()
        page.wait_for_function("plot => plot.dataset.ready", arg=plots.nth(i).element_handle())
    return plots.count()


def without_ink(page: Any) -> list[str]:
    """Figures of the shown row in which no mark has any extent."""
    return page.evaluate("""() => {
        const plots = [...document.querySelectorAll("section.row:not([hidden]) .plot")];
        const kinds = ["path", "text", "line"].map((kind) => `g.role-mark ${kind}`).join(", ");
        const hasExtent = (mark) => {
            const box = mark.getBBox();
            return box.width + box.height > 0;
        };
        const isEmpty = (plot) => ![...plot.querySelectorAll(kinds)].some(hasExtent);
        return plots.filter(isEmpty).map((plot) => plot.dataset.spec);
    }""")
