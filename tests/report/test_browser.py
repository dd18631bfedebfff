"""The page of a run in a real browser: see tests/callbacks/test_browser.py for what it needs."""

import shutil

import pytest

from fpstab.report import open_run
from fpstab.report.pages import write_report
from tests.report.cases import write_log

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt install chromium"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_charts_are_drawn_and_nothing_is_fetched(tmp_path, scheme):
    page_file = tmp_path / "report.html"
    page_file.write_text(
        write_report([open_run(write_log(tmp_path / "a")), open_run(write_log(tmp_path / "b", scale=2.0))])
    )
    said, asked = [], []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme=scheme, viewport={"width": 1200, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        page.wait_for_function("document.body.dataset.drawn === 'yes'", timeout=60_000)
        charts = page.locator("[data-chart]").count()
        drawn = page.locator("[data-chart] svg").count()
        lines = page.locator("[data-chart] svg .mark-line path").count()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=tmp_path / "report.png", full_page=True)
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert charts == drawn > 5
    assert lines > charts
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 31)")
    assert fits
