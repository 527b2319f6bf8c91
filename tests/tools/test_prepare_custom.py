"""Every kind of problem is found and named; nothing half-made is left."""

import json
import random
import re
import shutil

import numpy as np
import pytest
from data import custom_exports as exports
from data.helpers import id2rgb, same_partition, write_png
from data.test_dataset_mapper import plain_mapper

from ldmseg_d2.data import load_dataset_dicts
from ldmseg_d2.data.custom import register_custom
from ldmseg_d2.data.custom.data_report import ERRORS, WARNINGS
from ldmseg_d2.data.custom.data_writer import Writer
from ldmseg_d2.data.custom.prepare import READERS


def panoptic(root, count=4):
    """A sound COCO panoptic data set of `count` pictures, and its JSON to be damaged."""
    photos = exports.write_photos(root / "photos", [f"{k}.png" for k in range(count)])
    write_png(root / "depth" / "x.png", np.ones((2, 2), np.uint16))
    images, annotations = [], []
    for k in range(count):
        write_png(root / "panoptic" / f"{k}.png", id2rgb(exports.drawn_ids()))
        write_png(root / "depth" / f"{k}.png", np.full((20, 24), 256, np.uint16))
        images.append({"id": k, "file_name": f"{k}.png", "height": 20, "width": 24})
        segments = [{"id": i, "category_id": 1 + (i > 1)} for i in (1, 2, 3)]
        annotations.append({"image_id": k, "file_name": f"{k}.png", "segments_info": segments})
    categories = [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "car", "isthing": 1}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return photos, content


def segments(content):
    return content["annotations"][1]["segments_info"]


def photo_twice(root, content, name="1.png"):
    write_png(root / "photos" / name, exports.photo())
    content["images"].append({**content["images"][1], "id": 77, "file_name": name})
    content["annotations"].append({**content["annotations"][1], "image_id": 77})


def unsafe_name(root, content):
    shutil.copy(root / "photos" / "1.png", root / "1.png")
    content["images"][1]["file_name"] = "../1.png"


def damaged(path):
    path.write_bytes(path.read_bytes()[:60])


def empty(root, content):
    write_png(root / "panoptic" / "1.png", id2rgb(np.zeros((20, 24), int)))
    segments(content).clear()


# What damages the data set or gives an option; code of the problem, a word of its message, pictures
# that could be used.
PANOPTIC_CASES = [
    (lambda r, c: (r / "photos" / "1.png").unlink(), "photo_missing", "1.png", 3),
    (unsafe_name, "photo_missing", "../1.png", 3),
    (lambda r, c: damaged(r / "photos" / "1.png"), "photo_unreadable", "1.png", 3),
    (photo_twice, "photo_twice", "1.png", 5),
    (lambda r, c: photo_twice(r, c, "1.bmp"), "name_clash", "'1'", 5),
    (lambda r, c: c["annotations"][1].update(image_id=99), "annotation_orphan", "99", 3),
    (lambda r, c: damaged(r / "panoptic" / "1.png"), "annotation_unreadable", "1.png", 3),
    (
        lambda r, c: write_png(r / "panoptic" / "1.png", id2rgb(exports.drawn_ids().T)),
        "size_mismatch",
        "20x24, its photo 1.png 24x20; turned",
        3,
    ),
    (lambda r, c: segments(c)[1].update(id=1), "id_mismatch", "id 1", 4),
    (lambda r, c: segments(c).append({"id": 70}), "id_mismatch", "segment 70", 4),
    (lambda r, c: segments(c).pop(), "id_mismatch", "id 3", 4),
    (lambda r, c: segments(c)[2].update(category_id=55), "unknown_class", "55", 4),
    (["--num-bits", 1], "too_many_segments", "3 segments, 1 bits number 1", 4),
    (lambda r, c: (r / "depth" / "1.png").unlink(), "depth_unusable", "no depth PNG", 4),
    (
        lambda r, c: write_png(r / "depth" / "1.png", np.ones((40, 48), np.uint16)),
        "depth_unusable",
        "48x40",
        4,
    ),
    (lambda r, c: shutil.rmtree(r / "photos"), "nothing_left", "no picture", 0),
    (
        lambda r, c: write_png(r / "photos" / "alone.png", exports.photo()),
        "photo_unannotated",
        "no annotation",
        4,
    ),
    (empty, "empty", "no segment", 4),
    # The second car has 63 visible pixels, the first 41.
    (["--min-area", 50], "tiny_segment", "1 segments have fewer than 50", 4),
    (lambda r, c: c["categories"][0].pop("isthing"), "thing_stuff_undecided", "stuff?", 4),
]


@pytest.mark.parametrize(
    "damage, code, words, usable", PANOPTIC_CASES, ids=[c[1] for c in PANOPTIC_CASES]
)
def test_problem_is_named(tmp_path, catalogs, capsys, damage, code, words, usable):
    photos, content = panoptic(tmp_path)
    args = damage if isinstance(damage, list) else []
    if not args:
        damage(tmp_path, content)
        photos.mkdir(exist_ok=True)
    export = (photos, exports.dump(tmp_path / "panoptic.json", content))
    before, own = exports.tree(tmp_path), tmp_path / "own"
    args = ["--depth", tmp_path / "depth", *args, "--output", own]

    status, report = exports.prepare(tmp_path, "coco-panoptic", export, *args)
    assert any(words in message for message in report.problems[code])
    text = capsys.readouterr().out
    mend = {**ERRORS, **WARNINGS}[code]
    assert code in text and words in text and mend in text
    assert report.usable.total() == usable
    assert status == (code in ERRORS) == bool(report.num_errors)
    if status:  # with errors, nothing is written
        assert exports.tree(tmp_path) == before and "nothing was written" in text
        return
    assert report.written == {"train": 4}
    register_custom(own)
    records = [plain_mapper()(d) for d in load_dataset_dicts(["own_train"])]
    whole = [r for r in records if len(r["segments_info"]) == 3]
    assert len(whole) == (3 if damage is empty else 4)
    assert all(same_partition(r["segment_ids"], exports.drawn_ids()) for r in whole)
    assert all((r["depth"] == 1).all() for r in records)


def test_label_studio_problems(tmp_path):
    photos, path, *options = exports.label_studio(tmp_path)
    text = path.read_text()

    def problems(change):
        tasks = json.loads(text)
        change(tasks[0]["annotations"])
        exports.dump(path, tasks)
        return exports.prepare(tmp_path, "label-studio", (photos, path, *options))[1].problems

    # Rectangles are taken as they are, and said to be a poor choice.
    assert set(problems(lambda entries: None)) == {"box_as_segment"}
    unlabelled = problems(lambda entries: entries[0]["result"][2]["value"].pop("labels"))
    assert len(unlabelled["unknown_class"]) == 1
    assert problems(list.clear)["photo_unannotated"]
    assert problems(lambda entries: entries.append(entries[0]))["several_annotations"]
    cut = problems(lambda e: [r["value"].update(rle=[1, 2, 3]) for r in e[0]["result"][1:3]])
    assert "region 'r2'" in cut["bad_shape"][0]


@pytest.mark.parametrize(
    "shape, code, words",
    [
        ('<polygon label="car" points="1,1;2,2"></polygon>', "bad_shape", "shape 1"),
        ('<mask label="car" rle="9" left="0" top="0" width="2" height="2"/>', "bad_shape", "9"),
        ('<box label="car" xtl="1" ytl="1" xbr="4"/>', "bad_shape", "'ybr'"),
        ('<polyline label="car" points="1,1;2,2;3,1"/>', "shape_ignored", "<polyline>"),
        ('<polygon label="car" points="30,30;40,30;40,40"/>', "no_pixels", "no visible"),
    ],
)
def test_cvat_problems(tmp_path, shape, code, words):
    good = exports.cvat_image(1, "b.png")
    export = exports.cvat(tmp_path, [exports.cvat_image(0, "a.png", [shape]), good])
    status, report = exports.prepare(tmp_path, "cvat", export)
    (message,) = report.problems[code]
    assert words in message and "a.png" in message
    assert status == (code in ERRORS)
    assert max(map(len, report.segments)) == 3  # the other picture is whole


def test_mask_folder_problems(tmp_path):
    photos, masks, *options = exports.id_masks(tmp_path)
    write_png(photos / "a.bmp", exports.photo())
    write_png(masks / "c.png", np.ones((20, 24), np.uint8))
    (masks / "b.json").write_text('{"300": "sky",\n "600" "car"}')
    status, report = exports.prepare(tmp_path, "id-masks", (photos, masks, *options))
    assert status == 1 and report.problems["mask_unused"]
    assert "a.bmp has the same name" in report.problems["name_clash"][0]
    assert "b.json line 2 column 8" in report.problems["annotation_unreadable"][0]


def test_every_kind_of_problem_is_tested_and_documented():
    elsewhere = {"several_annotations", "shape_ignored", "box_as_segment", "bad_shape"}
    elsewhere |= {"no_pixels", "mask_unused"}
    assert {case[1] for case in PANOPTIC_CASES} | elsewhere == ERRORS.keys() | WARNINGS.keys()
    page = (exports.REPO / "docs" / "CUSTOM_DATA.md").read_text()
    errors, warnings = page.split("Errors:")[1].split("Warnings:")
    for text, kinds in ((errors, ERRORS), (warnings, WARNINGS)):
        assert set(re.findall(r"`([a-z_]+)`", text)) == kinds.keys()


def test_documented_options_exist(capsys):
    page = (exports.REPO / "docs" / "CUSTOM_DATA.md").read_text()
    with pytest.raises(SystemExit):
        exports.run_tool("--help")
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - {"--config-file"} <= known
    assert set(re.findall(r"--format ([\w-]+)", page)) == READERS.keys()


@pytest.mark.parametrize(
    "kind, text, words",
    [
        ("coco", '{"images": [],\n "annotations": [}', "line 2 column 18"),
        ("coco", '{"images": [], "annotations": 3, "categories": []}', "'annotations'"),
        ("coco", '{"images": [], "annotations": [], "categories": [{"id": 1}]}', "'name'"),
        ("coco", "[" * 100000, "no valid JSON"),
        ("label-studio", '[{"id": 1, "image": "a.png"}]', "JSON-MIN"),
        ("label-studio", '{"images": []}', "list of tasks"),
        ("cvat", "<annotations>\n<image>\n</annotations>", "line 3"),
        ("cvat", "<annotations>\n<track id='0'/></annotations>", "CVAT for video"),
        ("cvat", "<data/>", "<data>"),
        ("cvat", '<!DOCTYPE a [<!ENTITY b "ha">]>\n<annotations/>', "document type"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, capsys, kind, text, words):
    photos = exports.write_photos(tmp_path / "photos")
    path = tmp_path / "export.file"
    path.write_text(text)
    status, report = exports.prepare(tmp_path, kind, (photos, path))
    message = capsys.readouterr().err
    assert status == 1 and report is None and str(path) in message and words in message


STRANGE = [None, True, -1, 0, 10**30, 1.5, float("nan"), "x", "", [], {}, [1], {"a": 1}, "\0"]


def places(value, path=()):
    """Every place in nested lists and dicts; the first four of a list."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value[:4] if path else value)):
        if isinstance(value[key], (dict, list)):
            yield from places(value[key], (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("kind", ["coco", "coco-panoptic", "label-studio"])
def test_strange_values_anywhere_are_survived(tmp_path, kind, capsys):
    """Whatever stands in the JSON: no crash, and nothing is written after errors."""
    photos, path, *options = exports.EXPORTS[kind](tmp_path)
    text, own = path.read_text(), tmp_path / "own"
    cases = [(place, value) for place in places(json.loads(text)) for value in STRANGE]
    random.Random(0).shuffle(cases)
    for place, value in cases[:60]:
        content = inner = json.loads(text)
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        path.write_text(json.dumps(content))
        shutil.rmtree(own, ignore_errors=True)
        args = ("--output", own)
        status, report = exports.prepare(tmp_path, kind, (photos, path, *options), *args)
        assert own.exists() == (status == 0), (place, value)


@pytest.mark.parametrize("kind", ["coco", "label-studio", "cvat"])
def test_no_name_leads_out_of_the_folder(tmp_path, kind):
    """A photo beside the folder is there, and is not taken."""
    export = list(exports.EXPORTS[kind](tmp_path))
    write_png(tmp_path / "outside.png", exports.photo())
    for name in ("../outside.png", str(tmp_path / "outside.png"), "..\\outside.png"):
        text = export[1].read_text()
        for old in ("0a1b2c3d-a.png", '"a.png"'):
            new = name.replace("\\", "\\\\") if kind != "cvat" else name
            text = text.replace(old, f'"{new}"' if old.startswith('"') else f"../../{new}")
        path = tmp_path / f"changed{export[1].suffix}"
        path.write_text(text)
        status, report = exports.prepare(tmp_path, kind, (export[0], path, *export[2:]))
        assert status == 1 and report.usable == {"train": 1}
        assert report.problems["photo_missing"]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    export = exports.coco(tmp_path)
    own = tmp_path / "out" / "own"
    # What a killed run left is no hindrance.
    write_png(tmp_path / "out" / ".own.partial" / "train" / "old.png", exports.photo())
    assert exports.prepare(tmp_path, "coco", export, "--output", own)[0] == 0
    before = exports.tree(own)
    assert sorted(p.name for p in own.parent.iterdir()) == ["own"]
    assert "train/old.png" not in before

    add = Writer.add

    def interrupted(self, *args):
        add(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exports.prepare(tmp_path, "coco", export, "--output", own, "--overwrite")
    assert exports.tree(own) == before
    assert sorted(p.name for p in own.parent.iterdir()) == ["own"]


def test_output_folders_that_are_refused(tmp_path, capsys):
    export = exports.id_masks(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for output, words in [
        (tmp_path / "photos", "contain one another"),
        (tmp_path / "photos" / "new", "contain one another"),
        (tmp_path, "contain one another"),
        (tmp_path / "mine", "no data set of this tool"),
    ]:
        args = ["--output", output, "--overwrite"]
        assert exports.prepare(tmp_path, "id-masks", export, *args) == (1, None)
        assert words in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    own = ["--output", tmp_path / "own"]
    assert exports.prepare(tmp_path, "id-masks", export, *own)[0] == 0
    assert exports.prepare(tmp_path, "id-masks", export, *own) == (1, None)
    assert "--overwrite" in capsys.readouterr().err
    assert exports.prepare(tmp_path, "id-masks", export, *own, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    "args, words",
    [
        (["--stuff", "river"], "river"),
        (["--depth", "nowhere"], "nowhere"),
        (["--classes", "nowhere.txt"], "nowhere.txt"),
        (["--class-from", "divisor"], "needs --classes"),
        (["--class-from", "none", "--classes", "own"], "--class-from"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, args, words):
    export = exports.id_masks(tmp_path)
    (tmp_path / "classes.txt").write_text(exports.CLASSES)
    args = [tmp_path / "classes.txt" if a == "own" else a for a in args]
    assert exports.prepare(tmp_path, "id-masks", export, *args) == (1, None)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("args", ["--num-bits 0", "--val-fraction 1", "--depth-scale nan"])
def test_numbers_out_of_range(tmp_path, capsys, args):
    with pytest.raises(SystemExit):
        exports.prepare(tmp_path, "coco", ("photos", "instances.json"), *args.split())
    assert f"{args.split()[0]}: allowed is" in capsys.readouterr().err
