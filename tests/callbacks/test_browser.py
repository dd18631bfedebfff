"""TensorBoard on a finished run, looked at in a real browser.

Runs where playwright and chromium are installed: pip install playwright; apt install chromium (or: playwright install
chromium), then pytest tests/callbacks/test_browser.py -m browser. Pictures of the pages are left in pytest's tmp_path.
"""

import contextlib
import re
import shutil
import subprocess
import sys

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from fpstab.callbacks import ESDMonitor, FixedPointMonitor, JacobianMonitor, LipschitzMonitor, StabilityMonitor
from tests.callbacks.toys import loaders, task, trainer

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt install chromium"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    logger = TensorBoardLogger(folder)
    monitors = [
        ESDMonitor(budget=None),
        FixedPointMonitor(map="net", size=4, max_iter=50, budget=None),
        JacobianMonitor(map="net", size=4, sigma=True, budget=None),
        LipschitzMonitor(map="net", size=4, budget=None),
        StabilityMonitor(map="net", size=4, budget=None),
    ]
    trainer(folder, monitors, logger=logger, max_epochs=3).fit(task(), *loaders())
    return folder


@contextlib.contextmanager
def tensorboard(folder):
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if "http://" in line)
            yield re.search(r"http://\S+", line).group()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def page(run):
    with tensorboard(run) as address, playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        page.address = address
        yield page
        browser.close()


def test_custom_scalars_are_grouped_by_question(page, tmp_path):
    page.goto(f"{page.address}#custom_scalars")
    for question in ("Heavy tails?", "How many attractors?", "Contracting?", "Stable when iterated?"):
        page.get_by_text(question).first.wait_for()
    chart = page.locator("tf-custom-scalar-multi-line-chart-card").first
    chart.wait_for()
    page.wait_for_timeout(3000)
    page.screenshot(path=tmp_path / "custom_scalars.png", full_page=True)
    assert page.get_by_text("exponent α of each layer's spectrum").first.is_visible()
    assert page.locator("tf-custom-scalar-multi-line-chart-card .line, svg path").count() > 0


def test_scalars_bear_their_descriptions(page, tmp_path):
    page.goto("about:blank")  # another fragment alone would not load the page anew
    page.goto(f"{page.address}?tagFilter=jacobian%2Frho_max#timeseries")
    page.locator("scalar-card").first.wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=tmp_path / "scalars.png")
    data = page.request.get(f"{page.address}data/plugin/timeseries/tags").json()["scalars"]["tagDescriptions"]
    described = data.get("fpstab/jacobian/rho_max", "")
    assert "spectral radius" in described


def test_images_are_shown(page, tmp_path):
    page.goto(f"{page.address}#images")
    page.locator("tf-image-loader img").first.wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=tmp_path / "images.png", full_page=True)
    widths = page.locator("tf-image-loader img").evaluate_all("images => images.map(each => each.naturalWidth)")
    assert widths
    assert min(widths) > 200
