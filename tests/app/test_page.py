"""The page in a browser: what an annotator does, from the first click to a file that evaluates."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from panopticapi.utils import rgb2id
from PIL import Image

from ldmseg_d2.data.datasets.register_panoptic import register_panoptic_dataset
from ldmseg_d2.data.datasets.scenes import register_scenes, write_scenes
from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator

pytest.importorskip("gradio", reason="no Gradio: bash tools/install.sh --extras=app")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright: bash tools/install.sh --extras=browser-tests"
)

REPOSITORY = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(BROWSERS)}"),
]
SECONDS = 1000


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The page as users start it, taking files up to 0.2 MB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("app") / "log.txt"
    command = [sys.executable, str(REPOSITORY / "tools" / "app.py"), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    with open(log, "w") as output:
        server = subprocess.Popen(
            [*command, "--max-upload-mb", "0.2"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        while "The page is at" not in log.read_text():
            assert server.poll() is None and time.monotonic() - start < 300, log.read_text()
            time.sleep(0.1)
        print(f"served after {time.monotonic() - start:.1f} s")
        yield f"http://127.0.0.1:{port}"
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def browser():
    # Ubuntu's chromium-browser may be a script that only says where to get one.
    if subprocess.run([BROWSER, "--version"], capture_output=True).returncode != 0:
        pytest.skip(f"{BROWSER} does not run")
    with playwright.sync_playwright() as tool:
        # Root, as in containers, has no sandbox.
        browser = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A browser tab with the page, driven as a person would."""

    def __init__(self, browser, url):
        self.page = browser.new_page(viewport={"width": 1440, "height": 900})
        self.page.set_default_timeout(30 * SECONDS)
        self.errors, self.hosts = [], set()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.goto(url)
        self.says("Open a photo, or an example.")

    def says(self, pattern):
        """Wait until the page says something like it; returns whether it is an error."""
        message = self.page.locator("#message p")
        playwright.expect(message).to_have_text(re.compile(pattern), timeout=60 * SECONDS)
        return "error" in (message.get_attribute("class") or "")

    def upload(self, button, *files):
        with self.page.expect_file_chooser() as chooser:
            self.page.click(button)
        chooser.value.set_files([str(file) for file in files])

    def point(self, x, y, to=None):
        """Click on the photo, or drag from there; in shares of its sides."""
        box = self.page.locator("#canvas canvas").bounding_box()
        place = [
            (box["x"] + u * box["width"], box["y"] + v * box["height"])
            for u, v in [(x, y), *([to] if to else [])]
        ]
        self.page.mouse.move(*place[0])
        self.page.mouse.down()
        for other in place[1:]:
            self.page.mouse.move(*other, steps=5)
        self.page.mouse.up()

    def save(self):
        """Press Save; returns the downloaded bytes."""
        with self.page.expect_download() as download:
            self.page.click("#save")
        return Path(download.value.path()).read_bytes()

    def count(self):
        return self.page.locator("#list li[data-id]").count()


@pytest.fixture
def tab(browser, url):
    tab = Tab(browser, url)
    yield tab
    tab.page.close()
    assert tab.errors == []
    assert {host.split(":")[0] for host in tab.hosts} == {"127.0.0.1"}


def read_ids(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = [n for n in archive.namelist() if n.startswith("panoptic/")]
        return rgb2id(np.asarray(Image.open(io.BytesIO(archive.read(name)))))


def middle(mask):
    """The innermost pixel of a mask, as shares (x, y) of its sides."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return (x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0]


def test_segment_erase_complete_save_evaluate(tab, tmp_path, catalogs):
    write_scenes(tmp_path / "scenes_app", "val", num_images=1, seed=0)
    tab.upload("#photo", tmp_path / "scenes_app" / "val" / "000000000000.png")
    assert not tab.says(r"000000000000.png: 64 x 64 pixels")
    tab.page.click("#segment")
    assert not tab.says(r"Segmented in .* s: \d+ segments")
    before = read_ids(tab.save())
    labels, areas = np.unique(before[before != 0], return_counts=True)
    assert tab.count() == len(labels) >= 3
    largest = labels[areas.argmax()]

    tab.page.click("#tool label:has-text('Erase')")
    tab.point(*middle(before == largest))
    assert not tab.says(rf"Erased \w+ {largest}")
    assert (read_ids(tab.save()) == np.where(before == largest, 0, before)).all()
    tab.page.click("#complete")
    assert not tab.says("Completed in")
    content = tab.save()
    assert not tab.says(r"Saved \d+ segments as 000000000000_panoptic.zip")
    after = read_ids(content)
    assert (after[before == largest] != 0).mean() > 0.5
    assert set(np.unique(after)) - {0} == {
        int(i)
        for i in tab.page.locator("#list li[data-id]").evaluate_all(
            "rows => rows.map((row) => row.dataset.id)"
        )
    }

    # What was saved is a data set, of which everything is found again ...
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(tmp_path)
    register_panoptic_dataset(
        "app_saved",
        categories=json.loads((tmp_path / "panoptic.json").read_text())["categories"],
        image_root=str(tmp_path / "images"),
        panoptic_root=str(tmp_path / "panoptic"),
        panoptic_json=str(tmp_path / "panoptic.json"),
        evaluator_type="class_agnostic_panoptic",
        how_to_make="press Save",
    )
    assert quality("app_saved", after)["PQ"] == pytest.approx(100)
    # ... and a prediction that can be measured against the scene's own labels.
    register_scenes(str(tmp_path), name="scenes_app")
    assert 20 < quality("scenes_app_val", after)["PQ"] < 100


def quality(dataset, ids):
    (record,) = DatasetCatalog.get(dataset)
    evaluator = ClassAgnosticPanopticEvaluator(dataset)
    segments = [{"id": i} for i in np.unique(ids).tolist() if i]
    panoptic_seg = (torch.from_numpy(ids.astype(np.int32)), segments)
    evaluator.process([{"image_id": record["image_id"]}], [{"panoptic_seg": panoptic_seg}])
    return evaluator.evaluate()["panoptic_class_agnostic"]


def test_brush_keyboard_undo_and_reload(tab, tmp_path):
    tab.page.click("#example")
    tab.says("Generated scene 0")
    for key, said in (("g", "Segmented in"), ("n", "begins a new segment")):
        tab.page.keyboard.press(key)
        assert not tab.says(said)
    segmented = tab.count()
    tab.page.keyboard.press("b")
    tab.point(0.3, 0.5, to=(0.7, 0.5))
    tab.says("Painted segment")
    painted = read_ids(tab.save())
    tab.page.keyboard.press("e")
    tab.point(0.4, 0.5, to=(0.6, 0.5))
    tab.says(r"Erased \d+ pixels")
    content = tab.save()
    assert tab.save() == content  # the same again is a download again
    erased = read_ids(content)
    gone = (painted != 0) & (erased == 0)
    assert gone[32, 28:36].all() and not gone[:26].any() and not gone[38:].any()
    tab.page.keyboard.press("Control+z")
    tab.says("Undone")
    tab.page.click("#undo")
    playwright.expect(tab.page.locator("#list li[data-id]")).to_have_count(segmented)

    (tmp_path / "mine.zip").write_bytes(content)
    tab.upload("#load", tmp_path / "mine.zip")
    assert not tab.says("Loaded .* segments of scene_0")
    reloaded = read_ids(tab.save())
    pairs = set(zip(erased.reshape(-1).tolist(), reloaded.reshape(-1).tolist()))
    assert len(pairs) == len(np.unique(erased)) == len(np.unique(reloaded)) and (0, 0) in pairs
    # A click in the list selects; the class is the selected segment's.
    tab.page.locator("#list li[data-id]").first.click()
    assert not tab.says("Selected ")
    tab.page.click("#class input")
    tab.page.click("[role=option]:has-text('balloon')")
    assert not tab.says("It is balloon")
    tab.page.click("#view label:has-text('Uncertainty')")
    playwright.expect(tab.page.locator("#legend")).to_contain_text("two samples or more")


def test_mistakes_are_told_in_words(tab, tmp_path):
    tab.page.click("#segment")
    assert tab.says("Open a photo first")
    (tmp_path / "text.png").write_text("no picture")
    tab.upload("#photo", tmp_path / "text.png")
    assert tab.says("text.png cannot be read as JPEG")
    tab.upload("#load", tmp_path / "text.png")
    assert tab.says("Load the zip that Save makes")
    tab.page.click("#example")
    tab.says("Generated scene")
    tab.page.click("#save")
    assert tab.says("no segments to save")
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    tab.upload("#photo", tmp_path / "large.png")
    # Gradio refuses it before it is sent; the photo that was open stays.
    refusal = tab.page.get_by_text(re.compile("exceed|too large|maximum", re.IGNORECASE))
    playwright.expect(refusal.first).to_be_visible()
    tab.page.click("#segment")
    assert not tab.says("Segmented in")


def test_it_listens_to_this_machine_only(url):
    # On Linux a server on all interfaces answers at every 127.x.x.x; one on 127.0.0.1 does not.
    port = int(url.rsplit(":", 1)[1])
    for address, answers in (("127.0.0.1", True), ("127.0.0.2", False)):
        with socket.socket() as client:
            client.settimeout(5)
            assert (client.connect_ex((address, port)) == 0) is answers
