"""One drawn picture in every format that people export, written by hand."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from .helpers import id2rgb, write_png

REPO = Path(__file__).parents[2]
HEIGHT, WIDTH = 20, 24
CLASSES = "sky,stuff\ncar,thing\nboat,thing\n"
SKY, CAR, BOAT = 0, 1, 2
# Boxes (x0, y0, x1, y1), in the order of drawing; the second car covers a part of the first.
BOXES = [("sky", (0, 0, 24, 6)), ("car", (2, 8, 10, 15)), ("car", (7, 10, 16, 17))]


def box_mask(box, size=(HEIGHT, WIDTH)):
    mask = np.zeros(size, bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def drawn_ids(boxes=BOXES, size=(HEIGHT, WIDTH)):
    """Ids 1, 2, ... as painted one over the other."""
    ids = np.zeros(size, np.int64)
    for number, (_, box) in enumerate(boxes, start=1):
        ids[box_mask(box, size)] = number
    return ids


def corners(box):
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def photo(size=(HEIGHT, WIDTH), seed=0):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)


def write_photos(root, names=("a.png", "b.png"), size=(HEIGHT, WIDTH)):
    for seed, name in enumerate(names):
        write_png(root / name, photo(size, seed))
    return root


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def row_runs(mask):
    """Run lengths row by row, naively, beginning with background."""
    runs, value, length = [], False, 0
    for pixel in mask.ravel().tolist():
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    return [*runs, length]


def pack_words(words, word_bits=8, sizes=(3, 4, 8, 16), single=0):
    """thi.ng's rle-pack as its README describes it, by strings of digits.

    `single`: so many words at a time go into chunks of single words, before every run.
    """
    text = f"{len(words):032b}{word_bits - 1:05b}" + "".join(f"{s - 1:04b}" for s in sizes)
    position = 0
    while position < len(words):
        chunk = words[position : position + single]
        if chunk:
            text += "0" + number(len(chunk), sizes)
            text += "".join(f"{w:0{word_bits}b}" for w in chunk)
            position += len(chunk)
        if position == len(words):
            break
        end = position
        while end < len(words) and words[end] == words[position] and end - position < 2 ** sizes[3]:
            end += 1
        text += "1" + number(end - position, sizes) + f"{words[position]:0{word_bits}b}"
        position = end
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def number(count, sizes):
    """Two bits for the smallest size that holds count - 1, and count - 1."""
    choice = next(i for i, s in enumerate(sizes) if count - 1 < 2**s)
    return f"{choice:02b}{count - 1:0{sizes[choice]}b}"


def brush(mask):
    """Label Studio's rle of a mask: colour in R, G, B; 255 in alpha."""
    rgba = np.where(mask[..., None], [10, 200, 30, 255], 0)
    return pack_words(rgba.ravel().tolist(), single=3)


# Every writer: (folder) -> arguments of the tool, for photos a.png and b.png with BOXES.


def id_masks(root):
    photos = write_photos(root / "photos")
    for stem in "ab":
        write_png(root / "masks" / f"{stem}.png", (drawn_ids() * 300).astype(np.uint16))
        names = {"300": "sky", "600": "car", "900": "car"}
        dump(root / "masks" / f"{stem}.json", names)
    return photos, root / "masks", "--class-from", "sidecar"


def divisor_masks(root):
    photos = write_photos(root / "photos")
    table = np.array([0, 1000, 2001, 2070])
    for stem in "ab":
        write_png(root / "masks" / f"{stem}.png", id2rgb(table[drawn_ids()]))
    (root / "numbered.txt").write_text("1,sky,stuff\n2,car,thing\n3,boat,thing\n")
    return photos, root / "masks", "--class-from", "divisor", "--classes", root / "numbered.txt"


def binary_masks(root):
    photos = write_photos(root / "photos")
    for k, (_, box) in enumerate(BOXES, start=9):  # 9, 10, 11: numbers, not words, are sorted
        write_png(root / "masks" / f"a_{k}.png", box_mask(box).astype(np.uint8) * 255)
        write_png(root / "masks" / "b" / f"{k}.png", box_mask(box).astype(np.uint8))
    for stem in "ab":
        dump(root / "masks" / f"{stem}.json", {"9": "sky", "10": "car", "11": "car"})
    return photos, root / "masks", "--class-from", "sidecar"


def coco(root):
    """Polygon, list of runs and compressed runs."""
    photos = write_photos(root / "photos")
    mask = np.asfortranarray(box_mask(BOXES[2][1]))
    compressed = coco_mask.encode(mask.astype(np.uint8))["counts"].decode()
    segmentations = [
        [corners(BOXES[0][1])],
        {"size": [HEIGHT, WIDTH], "counts": row_runs(box_mask(BOXES[1][1]).T)},
        {"size": [HEIGHT, WIDTH], "counts": compressed},
    ]
    ids = {"sky": 4, "car": 9, "boat": 2}
    annotations = [
        {"id": 10 * image + k, "image_id": image, "category_id": ids[name], "segmentation": seg}
        for image in (5, 6)
        for k, ((name, _), seg) in enumerate(zip(BOXES, segmentations))
    ]
    images = [
        {"id": i, "file_name": f"{stem}.png", "height": HEIGHT, "width": WIDTH}
        for i, stem in ((5, "a"), (6, "b"))
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
    }
    return photos, dump(root / "instances.json", content)


def coco_panoptic(root):
    photos = write_photos(root / "photos")
    table = np.array([0, 7, 70000, 16777215])
    ids = {"sky": 4, "car": 9, "boat": 2}
    images, annotations = [], []
    for image_id, stem in enumerate("ab"):
        write_png(root / "panoptic" / f"{stem}.png", id2rgb(table[drawn_ids()]))
        images.append(
            {"id": image_id, "file_name": f"{stem}.png", "height": HEIGHT, "width": WIDTH}
        )
        segments = [
            {"id": int(i), "category_id": ids[name], "iscrowd": 0}
            for i, (name, _) in zip(table[1:], BOXES)
        ]
        annotations.append(
            {"image_id": image_id, "file_name": f"{stem}.png", "segments_info": segments}
        )
    categories = [{"id": ids[n], "name": n, "isthing": int(n != "sky")} for n in ids]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return photos, dump(root / "panoptic.json", content)


def label_studio(root):
    """A rectangle, a brush and a polygon; names as Label Studio gives them to uploads."""
    photos = write_photos(root / "photos")

    def result(key, kind, value):
        size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
        return {"id": key, "type": kind, "from_name": "x", "to_name": "image", **size, **value}

    x0, y0, x1, y1 = BOXES[0][1]
    points = np.array(corners(BOXES[2][1])).reshape(-1, 2) * [100 / WIDTH, 100 / HEIGHT]
    rectangle = {
        "x": 100 * x0 / WIDTH,
        "y": 100 * y0 / HEIGHT,
        "width": 100 * (x1 - x0) / WIDTH,
        "height": 100 * (y1 - y0) / HEIGHT,
        "rotation": 0,
        "rectanglelabels": ["sky"],
    }
    mask = {"format": "rle", "rle": brush(box_mask(BOXES[1][1]))}
    results = [
        result("r1", "rectanglelabels", {"value": rectangle}),
        # <Brush> with <Labels>: one region, two results.
        result("r2", "brush", {"value": mask}),
        result("r2", "labels", {"value": {**mask, "labels": ["car"]}}),
        result(
            "r3",
            "polygonlabels",
            {"value": {"points": points.tolist(), "closed": True, "polygonlabels": ["car"]}},
        ),
        {"type": "relation", "from_id": "r2", "to_id": "r3", "direction": "right"},
    ]
    images = ["/data/upload/3/0a1b2c3d-a.png", "/data/local-files/?d=some/where/b.png"]
    tasks = [
        {"id": 7 + i, "data": {"image": image}, "annotations": [{"id": 1, "result": results}]}
        for i, image in enumerate(images)
    ]
    return photos, dump(root / "export.json", tasks), "--stuff", "sky"


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels>
    <label><name>sky</name><color>#0000ff</color></label>
    <label><name>car</name><color>#ff0000</color></label>
    <label><name>boat</name><color>#00ff00</color></label>
  </labels></task></meta>
{images}
</annotations>
"""


def cvat_image(index, name, shapes=None):
    """The car on top has the higher z-order, and stands first."""
    x0, y0, x1, y1 = BOXES[1][1]
    runs = row_runs(box_mask(BOXES[1][1])[y0 - 1 : y1 + 1, x0 : x1 + 3])
    points = corners(BOXES[2][1])
    pairs = ";".join(f"{x}.00,{y}.00" for x, y in zip(points[0::2], points[1::2]))
    box = BOXES[0][1]
    shapes = shapes or [
        f'<polygon label="car" z_order="3" points="{pairs}"></polygon>',
        f'<box label="sky" xtl="{box[0]}" ytl="{box[1]}" xbr="{box[2]}" ybr="{box[3]}"></box>',
        f'<mask label="car" rle="{", ".join(map(str, runs))}" left="{x0}" top="{y0 - 1}" '
        f'width="{x1 - x0 + 3}" height="{y1 - y0 + 2}" z_order="1"></mask>',
    ]
    inner = "\n".join(shapes)
    return (
        f'<image id="{index}" name="{name}" width="{WIDTH}" height="{HEIGHT}">\n{inner}\n</image>'
    )


def cvat(root, images=None):
    photos = write_photos(root / "photos")
    images = images or [cvat_image(0, "a.png"), cvat_image(1, "b.png")]
    path = root / "annotations.xml"
    path.write_text(CVAT.format(images="\n".join(images)))
    return photos, path, "--stuff", "sky"


EXPORTS = {
    "id-masks": id_masks,
    "id-masks by divisor": divisor_masks,
    "binary-masks": binary_masks,
    "coco": coco,
    "coco-panoptic": coco_panoptic,
    "label-studio": label_studio,
    "cvat": cvat,
}


def run_tool(*args):
    """The tool's exit status and its report (None: it made none)."""
    spec = importlib.util.spec_from_file_location(
        "prepare_custom", REPO / "tools" / "prepare_custom.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run, reports = module.prepare, [None]

    def recorded(job):
        reports.append(run(job))
        return reports[-1]

    module.prepare = recorded
    return module.main(list(map(str, args))), reports[-1]


def prepare(root, kind, export, *args):
    """Runs the tool on what a writer made; returns its status and its report."""
    photos, annotations, *options = export
    return run_tool(
        "--format", kind, "--photos", photos, "--annotations", annotations, *options,
        "--min-area", 1, *args,
    )  # fmt: skip


def tree(folder):
    """Every file's content, by path."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }
