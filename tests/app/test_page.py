"""The page in a browser: what an annotator does, from the first click to a saved file."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from panopticapi.utils import rgb2id
from PIL import Image

pytest.importorskip("gradio", reason="no Gradio: bash tools/install.sh --extras=app")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright: bash tools/install.sh --extras=browser-tests"
)
REPOSITORY = Path(__file__).resolve().parents[2]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium")]
TIMEOUT = 600_000  # milliseconds


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The page as users start it, taking files up to 0.2 MB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    log = tmp_path_factory.mktemp("app") / "log.txt"
    command = [sys.executable, "tools/app.py", "--port", port, "--max-upload-mb", "0.2"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with open(log, "w") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, cwd=REPOSITORY
        )
    end = time.monotonic() + TIMEOUT / 1000
    try:
        while "The page is at" not in log.read_text():
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        server.terminate()
        server.wait(timeout=600)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tool:
        # Root, as in containers, has no sandbox.
        yield tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])


class Tab:
    """A browser tab with the page, driven as a person would."""

    def __init__(self, browser, url):
        self.page = browser.new_page(viewport={"width": 1440, "height": 900})
        self.page.set_default_timeout(TIMEOUT)
        self.rows = self.page.locator("#list li[data-id]")
        self.errors, self.hosts = [], set()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.goto(url)
        self.says("Open a photo, or an example.")

    def says(self, pattern, *, is_error=False):
        message = self.page.locator("#message p")
        playwright.expect(message).to_have_text(re.compile(pattern), timeout=TIMEOUT)
        assert (message.get_attribute("class") == "error") is is_error

    def press(self, key, said):
        self.page.keyboard.press(key)
        self.says(said)

    def upload(self, button, file):
        with self.page.expect_file_chooser() as chooser:
            self.page.click(button)
        chooser.value.set_files(str(file))

    def point(self, start, end=None):
        """Click on the photo, or drag from start to end; shares of its sides."""
        box = self.page.locator("#canvas canvas").bounding_box()
        for act, (x, y) in ((self.page.mouse.down, start), (self.page.mouse.up, end or start)):
            place = box["x"] + x * box["width"], box["y"] + y * box["height"]
            self.page.mouse.move(*place, steps=5)
            act()

    def save(self):
        """Press Save; returns the downloaded bytes and the ids in them."""
        with self.page.expect_download() as download:
            self.page.click("#save")
        content = Path(download.value.path()).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (name,) = [n for n in archive.namelist() if n.startswith("panoptic/")]
            return content, rgb2id(np.asarray(Image.open(io.BytesIO(archive.read(name)))))


@pytest.fixture
def tab(browser, url):
    tab = Tab(browser, url)
    yield tab
    tab.page.close()
    assert tab.errors == [] and {host.split(":")[0] for host in tab.hosts} == {"127.0.0.1"}


def test_segment_correct_complete_save_and_load(tab, tmp_path):
    tab.page.click("#example")
    tab.says("Generated scene 0: 64 x 64 pixels")
    tab.page.click("#segment")
    tab.says(r"Segmented in .* s: \d+ segments")
    _, before = tab.save()
    labels, areas = np.unique(before[before != 0], return_counts=True)
    assert tab.rows.count() == len(labels) >= 3
    gone = before == labels[areas.argmax()]
    tab.page.click("#tool label:has-text('Erase')")
    y, x = np.argwhere(gone)[0]
    tab.point(((x + 0.5) / 64, (y + 0.5) / 64))
    tab.says(rf"Erased \w+ {before[y, x]}")
    assert (tab.save()[1] == np.where(gone, 0, before)).all()
    tab.page.click("#complete")
    tab.says("Completed in")
    content, after = tab.save()
    tab.says(r"Saved \d+ segments as scene_0_panoptic.zip")
    assert tab.save()[0] == content  # the same again is a download again
    assert (after[gone] != 0).mean() > 0.5 and (after == before)[~gone & (before != 0)].all()
    # The brush and the keyboard.
    completed = tab.rows.count()
    tab.press("n", "begins a new segment")
    tab.page.keyboard.press("b")
    tab.point((0.3, 0.5), (0.7, 0.5))
    tab.says("Painted segment")
    painted = tab.save()[1] != after
    assert painted[32, 22:42].all() and not painted[:26].any() and not painted[38:].any()
    tab.press("Control+z", "Undone")
    playwright.expect(tab.rows).to_have_count(completed)
    (tmp_path / "mine.zip").write_bytes(content)
    tab.upload("#load", tmp_path / "mine.zip")
    tab.says("Loaded .* segments of scene_0")
    reloaded = tab.save()[1]
    assert (reloaded == np.unique(after, return_inverse=True)[1].reshape(64, 64)).all()
    # A click in the list selects; the class is the selected segment's.
    tab.rows.first.click()
    tab.says("Selected ")
    tab.page.click("#class input")
    tab.page.click("[role=option]:has-text('balloon')")
    tab.says("It is balloon")
    tab.page.click("#view label:has-text('Uncertainty')")
    playwright.expect(tab.page.locator("#legend")).to_contain_text("two samples or more")


def test_mistakes_are_told_in_words_and_tabs_are_apart(tab, browser, url, tmp_path):
    tab.page.click("#segment")
    tab.says("Open a photo first", is_error=True)
    (tmp_path / "text.png").write_text("no picture")
    tab.upload("#photo", tmp_path / "text.png")
    tab.says("text.png cannot be read as JPEG", is_error=True)
    tab.page.click("#example")
    tab.says("Generated scene")
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    tab.upload("#photo", tmp_path / "large.png")
    # Gradio refuses it before it is sent; the photo that was open stays.
    refusal = tab.page.get_by_text(re.compile("exceed|too large|maximum", re.IGNORECASE))
    playwright.expect(refusal.first).to_be_visible()
    tab.page.click("#segment")
    tab.says("Segmented in")
    other = Tab(browser, url)
    other.page.click("#segment")
    other.says("Open a photo first", is_error=True)
    Image.fromarray(noise[:60, :80]).save(tmp_path / "mine.png")
    other.upload("#photo", tmp_path / "mine.png")
    other.says("mine.png: 80 x 60 pixels")
    assert tab.save()[1].shape == (64, 64) and tab.rows.count() > 0 == other.rows.count()
    # On Linux a server on all interfaces answers at every 127.x.x.x; one on 127.0.0.1 does not.
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.2", int(url.rsplit(":", 1)[1]))) != 0
