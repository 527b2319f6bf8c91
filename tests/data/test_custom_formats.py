"""Every export, converted and read back through the registered data set, has the masks drawn."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ldmseg_d2.data import build_train_loader, load_dataset_dicts, register_all
from ldmseg_d2.data.custom import register_custom, register_custom_folders
from ldmseg_d2.data.custom.class_list import Classes, read_classes
from ldmseg_d2.data.custom.data_checks import check_picture
from ldmseg_d2.data.custom.data_report import Report
from ldmseg_d2.data.custom.file_lookup import FileIndex
from ldmseg_d2.data.custom.pictures import Job
from ldmseg_d2.data.custom.prepare import is_validation
from ldmseg_d2.data.custom.read_masks import read_id_masks

from . import custom_exports as exports
from .helpers import id2rgb, same_partition, tiny_config, write_png
from .test_dataset_mapper import plain_mapper


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("# my classes\n" + exports.CLASSES)
    return path


def converted(tmp_path, kind, export, *args):
    """The records of the converted data set "own_train", and the report."""
    status, report = exports.prepare(tmp_path, kind, export, "--output", tmp_path / "own", *args)
    assert status == 0
    assert register_custom(tmp_path / "own")[0] == "own_train"
    return [plain_mapper()(d) for d in load_dataset_dicts(["own_train"])], report


def class_map(ids, names, order):
    """The class of every pixel, by naive lookup; 255 void."""
    table = {0: 255, **{i: order.index(name) for i, name in enumerate(names, start=1)}}
    return np.vectorize(table.get)(ids)


@pytest.mark.parametrize("name", exports.EXPORTS)
@pytest.mark.parametrize("own_classes", [False, True])
def test_export_has_the_masks_drawn(tmp_path, catalogs, classes, name, own_classes):
    export = exports.EXPORTS[name](tmp_path)
    args = []
    if own_classes and "--classes" not in export:
        export = [part for part in export if part not in ("--stuff", "sky")]
        args = ["--classes", classes]
    if not own_classes and name.startswith(("id", "binary")):
        args = ["--stuff", "sky"]
    kind = name.split()[0]
    records, report = converted(tmp_path, kind, export, *args)
    metadata = MetadataCatalog.get("own_train")
    order = metadata.thing_classes
    if args and args[0] == "--classes":
        assert order == ["sky", "car", "boat"]
    assert metadata.evaluator_type == "coco_panoptic_seg"
    expected = exports.drawn_ids()
    names = [n for n, _ in exports.BOXES]
    assert len(records) == 2
    for seed, record in enumerate(records):
        assert np.array_equal(record["image"].permute(1, 2, 0), exports.photo(seed=seed))
        assert same_partition(record["segment_ids"], expected)
        assert np.array_equal(record["sem_seg"], class_map(expected, names, order))
        found = {(order[s["category_id"]], s["isthing"]) for s in record["segments_info"]}
        is_thing = name == "coco" and not own_classes
        assert found == {("sky", is_thing), ("car", True)}
        assert len(record["segments_info"]) == 3
        semantic = np.asarray(Image.open(record["sem_seg_file_name"]))
        assert np.array_equal(semantic, record["sem_seg"])
    if kind in ("binary-masks", "coco", "label-studio", "cvat"):
        # The cars share columns 7..9 of rows 10..14, in two pictures.
        assert report.overlaps == [3 * 5] * 2 and "drawn later" in report.text()
    assert report.num_errors == 0 and report.usable == {"train": 2}


def test_smaller_on_top_by_choice(tmp_path, catalogs):
    boxes = [("car", (4, 4, 8, 8)), ("car", (2, 2, 20, 18))]
    photos = exports.write_photos(tmp_path / "photos", ["a.png"])
    for k, (_, box) in enumerate(boxes):
        write_png(tmp_path / "masks" / f"a_{k}.png", exports.box_mask(box).astype(np.uint8))
    records, report = converted(
        tmp_path, "binary-masks", (photos, tmp_path / "masks"), "--overlap", "area"
    )
    assert same_partition(records[0]["segment_ids"], exports.drawn_ids(boxes[::-1]))
    assert "smaller segments cover" in report.text() and report.num_errors == 0
    assert MetadataCatalog.get("own_train").evaluator_type == "class_agnostic_panoptic"
    assert "sem_seg_file_name" not in records[0]
    # As drawn, the first is covered: said, and no segment remains of it.
    status, report = exports.prepare(tmp_path, "binary-masks", (photos, tmp_path / "masks"))
    assert status == 0 and list(report.problems) == ["no_pixels"]
    assert [len(segments) for segments in report.segments] == [1]


def test_semantic_masks_split_things_into_parts(tmp_path, catalogs, classes):
    photos = exports.write_photos(tmp_path / "photos", ["a.png"])
    values = np.full((20, 24), 255, np.uint8)
    values[:4], values[17:] = 1, 1  # stuff in two parts is one segment
    values[6:9, 2:6], values[9:12, 6:9], values[6:9, 12:20] = 2, 2, 2  # 8-connected: two things
    picture = Image.fromarray(values)
    picture.putpalette(list(range(256)) * 3)  # as VOC and CVAT write classes
    (tmp_path / "masks").mkdir()
    picture.save(tmp_path / "masks" / "a.png")
    classes.write_text("1,sky,stuff\n2,car,thing\n")
    export = (photos, tmp_path / "masks", "--classes", classes)
    (record,), _ = converted(tmp_path, "semantic-masks", export)
    expected = np.zeros((20, 24), int)
    expected[:4], expected[17:] = 1, 1
    expected[6:9, 2:6], expected[9:12, 6:9], expected[6:9, 12:20] = 2, 2, 3
    assert same_partition(record["segment_ids"], expected)
    assert [s["isthing"] for s in record["segments_info"]] == [False, True, True]


@settings(deadline=None, max_examples=25)
@given(ids=hnp.arrays(np.int64, (7, 9), elements=st.integers(0, 70000)), colour=st.booleans())
def test_id_masks_round_trip(tmp_path_factory, ids, colour):
    root = tmp_path_factory.mktemp("ids")
    ids = ids if colour else ids % 65536
    photos = FileIndex(exports.write_photos(root / "photos", ["a.png"], size=(7, 9)))
    write_png(root / "masks" / "a.png", id2rgb(ids) if colour else ids.astype(np.uint16))
    job = Job(
        annotations=root / "masks",
        min_area=1,
        void=None,
        class_from="none",
        num_bits=16,
        depth=None,
    )
    report = Report(1, "")
    (picture,), _ = read_id_masks(job, photos, report)
    found, segments = check_picture(picture, Classes(None), job, report)
    assert report.problems.keys() <= {"empty"}
    assert same_partition(found, ids) and ((found == 0) == (ids == 0)).all()
    for segment in segments:
        ys, xs = np.nonzero(found == segment["id"])
        box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert segment["bbox"] == box and segment["area"] == len(xs)


def test_split_by_name_depth_and_folders(tmp_path, catalogs):
    names = [f"cam{k % 2}/{k:02d}.png" for k in range(40)]
    photos = exports.write_photos(tmp_path / "photos", names)
    for k, name in enumerate(names):
        write_png(tmp_path / "masks" / name, exports.drawn_ids().astype(np.uint8))
        write_png(tmp_path / "depth" / name, np.full((20, 24), 100 * k, np.uint16))
    args = ["--depth", tmp_path / "depth", "--depth-scale", 100, "--val-fraction", 0.25]
    records, report = converted(tmp_path, "id-masks", (photos, tmp_path / "masks"), *args)
    inside = [n for n in names if is_validation(n, fraction=0.25, seed=0)]
    assert report.written == {"train": 40 - len(inside), "val": len(inside)}
    assert 3 < len(inside) < 18
    # A picture stays where it is if others come or go; another seed gives another split.
    assert inside != [n for n in names if is_validation(n, fraction=0.25, seed=1)]
    assert set(inside) < {n for n in names if is_validation(n, fraction=0.5, seed=0)}
    for record in records:
        stem = record["file_name"].split("/")[-1]
        assert stem.startswith("cam") and stem.replace("__", "/") in set(names) - set(inside)
        # 100 k of 100 a metre: the number in the name is the depth.
        assert torch.all(record["depth"] == float(stem.split("__")[1][:2]))
    # The training loader takes the set by its name alone.
    cfg = tiny_config(train="own_train", batch=4)
    assert len(next(iter(build_train_loader(cfg)))) == 4


def test_registration(tmp_path, catalogs, caplog):
    exports.prepare(tmp_path, "cvat", exports.cvat(tmp_path), "--output", tmp_path / "roof")
    register_all(str(tmp_path))
    assert "roof_train" in DatasetCatalog and "roof_val" not in DatasetCatalog
    assert MetadataCatalog.get("roof_train").thing_colors[1] == [255, 0, 0]  # CVAT's own
    assert register_custom_folders(tmp_path) == [] and not caplog.records
    assert register_custom(tmp_path / "roof", name="other") == ["other_train"]
    with pytest.raises(ValueError, match="other_train.*another name"):
        register_custom(tmp_path / "roof", name="other")
    # What is damaged is named, and does not stop the import of the package.
    for folder, text in (("bad", "{"), ("foreign", '{"format": "x"}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dataset.json").write_text(text)
    assert register_custom_folders(tmp_path) == []
    assert "bad/dataset.json" in caplog.text and "foreign/dataset.json" in caplog.text
    assert register_custom_folders(tmp_path, overwrite=True) == ["roof_train"]
    # Never in the place of the package's own data sets.
    (tmp_path / "roof").rename(tmp_path / "scenes")
    register_all(str(tmp_path))
    assert MetadataCatalog.get("scenes_train").evaluator_type == "scenes_panoptic"


def test_class_files(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("7, sky , stuff\n\ncar\n# no\nboat,thing\n")
    classes = Classes(read_classes(path))
    assert [(c["id"], c["name"], c["isthing"]) for c in classes.categories] == [
        (7, "sky", 0),
        (1, "car", 1),
        (2, "boat", 1),
    ]
    assert classes.undecided == ["car"] and classes.find(7)["name"] == "sky"
    assert classes.find("boat")["id"] == 2 and classes.find("Boat") is None
    many = Classes([{"name": str(i)} for i in range(60)]).categories
    assert len({tuple(c["color"]) for c in many}) > 50
    for text, words in [
        ("sky\ncar,object\n", "line 2"),
        ("", "names no class"),
        ("car\ncar\n", "names.*car"),
        ("1,a\n1,b\n", "ids.*1"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            Classes(read_classes(path))
    with pytest.raises(ValueError, match="--stuff names"):
        Classes([{"name": "car"}], ("sea",))
