"""The demo's command line, with a tiny model in place of LDMSeg."""

import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from load_tool import load_tool
from panopticapi.utils import id2rgb
from PIL import Image
from torch import nn

demo = load_tool("demo")


@META_ARCH_REGISTRY.register()
class LeftAndRight(nn.Module):
    """Segments every photo into its left and its right half; void at the top."""

    def __init__(self, cfg):
        super().__init__()
        self.seed = cfg.SEED

    def forward(self, batched_inputs):
        outputs = []
        for entry in batched_inputs:
            ids = torch.ones(entry["height"], entry["width"], dtype=torch.int32)
            ids[:, entry["width"] // 2 :] = 2
            ids[: entry["height"] // 4] = 0
            info = [{"id": i, "category_id": 0, "isthing": True} for i in (1, 2)]
            output = {"panoptic_seg": (ids, info), "depth": ids.float().cumsum(1)}
            output["sem_seg"] = torch.stack([ids == 1, ids == 2]).float()
            if "return_steps" in entry and self.seed != 666:
                output["steps"] = [
                    {"timestep": 999 - 150 * i, "panoptic_seg": (ids.roll(i, 1), info)}
                    for i in range(entry["return_steps"])
                ]
            outputs.append(output)
        return outputs


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns a function that runs the tool; gives its exit code and messages."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "MODEL:\n  META_ARCHITECTURE: LeftAndRight\n  DEVICE: cpu\n"
        "INPUT:\n  LDMSEG:\n    IMAGE_SIZE: 32\n"
    )
    messages = []
    handler = logging.Handler()
    # The tool's loggers do not propagate to pytest's handler.
    monkeypatch.setattr(handler, "emit", lambda record: messages.append(record.getMessage()))
    demo.logger.addHandler(handler)
    defaults = ["--config-file", str(config), "--output", str(tmp_path / "out")]
    yield lambda *arguments: (demo.main([*defaults, *map(str, arguments)]), messages)
    demo.logger.removeHandler(handler)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a.jpg", (64, 48)), ("b.png", (300, 200)), ("overview.png", (64, 64))):
        Image.effect_noise(size, 60).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    return folder


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_a_folder_becomes_pictures_and_an_overview(run, photos, tmp_path):
    code, messages = run("--input", photos, "--steps")
    out = tmp_path / "out"
    assert code == 0 and str(out) in messages[-1]
    names = sorted(p.name for p in out.iterdir())
    assert names == ["a.png", "b.png", "overview.png", "overview_2.png"]
    # 64 x 48 is enlarged four times; six steps stand in a strip below.
    width, height = size_of(out / "a.png")
    assert width >= 6 * 256 and height > 2 * 192


def test_bad_files_are_named_and_the_others_go_on(run, photos, tmp_path):
    (photos / "c.jpg").write_bytes(b"not a photo")
    code, messages = run("--input", photos / "?.*", tmp_path / "nowhere.jpg")
    assert code == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "overview.png"}
    assert any("nowhere.jpg" in m for m in messages)
    assert any("c.jpg" in m and "cannot be read" in m for m in messages)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{photos}", "--opts", "INPUT.LDMSEG.IMAGE_SIZ", "3"], "IMAGE_SIZ"),
        (["{photos}", "--steps", "--opts", "SEED", "666"], "has no denoising steps"),
    ],
)
def test_mistakes_end_with_one_message(run, photos, arguments, message):
    code, messages = run("--input", *(a.format(photos=photos) for a in arguments))
    assert code == 1 and any(message in m for m in messages)


def test_a_registered_data_set_shows_its_ground_truth_below(run, photos, tmp_path, catalogs):
    ids = np.where(np.arange(64) < 30, 1, 70000) * np.ones((48, 1), int)
    Image.fromarray(id2rgb(ids)).save(tmp_path / "ids.png")
    info = [{"id": 1, "category_id": 0}, {"id": 70000, "category_id": 1}]
    record = {"file_name": str(photos / "a.jpg"), "pan_seg_file_name": str(tmp_path / "ids.png")}
    record |= {"segments_info": info, "image_id": 5, "height": 48, "width": 64}
    DatasetCatalog.register("demo_test_set", lambda: [record] * 3)
    MetadataCatalog.get("demo_test_set").set(stuff_classes=["wall", "box"])
    assert run("--dataset", "demo_test_set", "--num", 2)[0] == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "a_2.png", "overview.png"}
    with Image.open(tmp_path / "out" / "a.png") as image:
        picture = np.asarray(image).astype(int)
    # photo | panoptic | semantic | depth, and below nothing | panoptic | semantic | nothing.
    assert 4 * 256 < picture.shape[1] < 4 * 256 + 40
    assert 2 * 192 < picture.shape[0] < 2 * 192 + 80
    white = [(picture[-190:-20, 262 * i + 20 : 262 * i + 240] == 255).all() for i in range(4)]
    assert white == [True, False, False, True]
