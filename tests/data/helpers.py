"""A tiny panoptic data set, drawn by plain numpy, and configs to load it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
from detectron2.config import get_cfg
from PIL import Image

from ldmseg_d2.config import add_ldmseg_config

CATEGORIES = [
    {"id": 7, "name": "ground", "isthing": 0, "color": [90, 60, 30]},
    {"id": 3, "name": "box", "isthing": 1, "color": [200, 40, 40]},
    {"id": 90, "name": "dot", "isthing": 1, "color": [40, 40, 200]},
]
# Contiguous classes, in the order of CATEGORIES.
GROUND, BOX, DOT = 0, 1, 2
# Ids over one, two and three bytes.
IDS = {"ground": 5, "box": 70000, "other_box": 300, "dot": 16777215, "crowd": 65536}


def tiny_config(*, train="tiny", size=24, resize="square", batch=4, workers=0, flip="horizontal"):
    cfg = get_cfg()
    add_ldmseg_config(cfg)
    cfg.DATASETS.TRAIN = (train,)
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.INPUT.LDMSEG.IMAGE_SIZE = size
    cfg.INPUT.LDMSEG.RESIZE = resize
    cfg.INPUT.LDMSEG.MIN_SEGMENT_AREA = 1
    cfg.INPUT.RANDOM_FLIP = flip
    cfg.SOLVER.IMS_PER_BATCH = batch
    return cfg


def write_png(path, array):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def id2rgb(ids):
    """As panopticapi's, written anew: the code under test must not check itself."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def tiny_ids(index, height=24, width=32):
    """Ids HxW: void rows on top, ground below, two boxes, a dot of 2x2 and a crowd."""
    ids = np.zeros((height, width), dtype=np.int64)
    ids[4:] = IDS["ground"]
    x = 2 + index % 4
    ids[6:14, x : x + 6] = IDS["box"]
    ids[6:14, 16:22] = IDS["other_box"]
    ids[18:20, 8:10] = IDS["dot"]
    ids[16:22, 24:30] = IDS["crowd"]
    return ids


def tiny_photo(ids, index):
    """A photo whose every pixel differs, so that flips and crops show."""
    photo = np.random.default_rng(index).integers(0, 255, (*ids.shape, 3))
    photo[..., 0] = ids % 251
    return photo.astype(np.uint8)


def tiny_segments(ids):
    """The JSON's segments_info, with the data set's own category ids."""
    categories = {"ground": 7, "box": 3, "other_box": 3, "dot": 90, "crowd": 3}
    return [
        {
            "id": IDS[name],
            "category_id": category,
            "area": int((ids == IDS[name]).sum()),
            "iscrowd": int(name == "crowd"),
        }
        for name, category in categories.items()
    ]


def write_tiny(root, num_images=5):
    """Writes photos, id PNGs, depth PNGs (value 256 x row + 1; column 0 invalid) and the JSON."""
    root = Path(root)
    images, annotations = [], []
    for index in range(num_images):
        ids = tiny_ids(index)
        name = f"{index:03d}.png"
        write_png(root / "photos" / name, tiny_photo(ids, index))
        write_png(root / "panoptic" / name, id2rgb(ids))
        depth = np.repeat(np.arange(ids.shape[0])[:, None] * 256 + 1, ids.shape[1], axis=1)
        depth[:, 0] = 0
        write_png(root / "depth" / name, depth.astype(np.uint16))
        images.append(
            {"id": index, "file_name": name, "height": ids.shape[0], "width": ids.shape[1]}
        )
        annotations.append(
            {"image_id": index, "file_name": name, "segments_info": tiny_segments(ids)}
        )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "panoptic.json").write_text(json.dumps(content))
    return root


def run_tool(*args):
    """Runs tools/prepare_dataset.py; returns its exit status."""
    path = Path(__file__).parents[2] / "tools" / "prepare_dataset.py"
    spec = importlib.util.spec_from_file_location("prepare_dataset", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(list(map(str, args)))


def same_partition(a, b):
    """Whether two id maps group pixels in the same way (0 is a group like any other)."""
    pairs = set(zip(np.asarray(a).ravel().tolist(), np.asarray(b).ravel().tolist()))
    return len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})
