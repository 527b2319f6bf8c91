"""What users upload: photos, and saved segments."""

import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from panopticapi.utils import id2rgb
from PIL import Image

from ldmseg_d2.app.annotation_files import load_annotation, save_annotation
from ldmseg_d2.app.annotation_session import Category, Session
from ldmseg_d2.app.uploads import Limits, UploadError, decode_photo
from ldmseg_d2.data.datasets.register_panoptic import register_panoptic_dataset
from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator

CATEGORIES = [Category(3, "car"), Category(8, "sky", isthing=False)]
COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def encode(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def huge_png(width, height):
    """A few bytes that say that they are a very large picture."""
    png, size = encode(COLOURS[:1, :1]), struct.pack(">II", width, height)
    header = png[12:16] + size + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def test_photos_come_out_upright_and_rgb():
    decoded, note = decode_photo(encode(COLOURS), "a.png", Limits())
    assert (decoded == COLOURS).all() and note == "" and decoded.dtype == np.uint8
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    turned, _ = decode_photo(encode(COLOURS, exif=exif), "a.png", Limits())
    assert (turned == np.rot90(COLOURS, -1)).all()
    clear = np.dstack([COLOURS, np.zeros((20, 30), np.uint8)])
    assert (decode_photo(encode(clear), "a.png", Limits())[0] == 255).all()
    deep = COLOURS[..., 0].astype(np.uint16) * 257
    assert (decode_photo(encode(deep), "a.png", Limits())[0] == COLOURS[..., :1]).all()
    wide = encode(COLOURS.repeat(15, axis=0).repeat(30, axis=1), "JPEG")
    decoded, note = decode_photo(wide, "a.jpg", Limits(max_side=300))
    assert decoded.shape == (100, 300, 3) and "900 x 300" in note and "300 x 100" in note


def test_bad_photos_are_refused_with_a_reason():
    for data, message in (
        (b"not a photo", "cannot be read as JPEG or PNG"),
        (encode(COLOURS, "JPEG")[:-200], "damaged"),
        (huge_png(8_000, 8_000), "too many pixels; at most 50 megapixels"),
        (bytes(Limits().max_bytes + 1), "20.0 MB; at most 20 MB"),
    ):
        with pytest.raises(UploadError, match=f"^upload.jpg .*{message}"):
            decode_photo(data, "upload.jpg", Limits())


def make_session(ids, classes, kept):
    session = Session(COLOURS[: ids.shape[0], : ids.shape[1]], "street", CATEGORIES)
    session.take_result(ids, classes, kept=kept)
    return session


def load(files, current=None):
    return load_annotation(files, CATEGORIES, current, Limits())


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_saved_is_loaded_again(data):
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 30)))
    ids = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 4)))
    if not ids.any():
        ids[0, 0] = 3
    kept = data.draw(hnp.arrays(bool, shape)) & (ids != 0)
    labels = [i for i in np.unique(ids).tolist() if i]
    classes = data.draw(st.dictionaries(st.sampled_from(labels), st.integers(0, 1)))
    session = make_session(ids, classes, kept)
    loaded, note = load({"saved.zip": save_annotation(session)})
    assert note == "" and loaded.name == "street"
    assert (loaded.photo == session.photo).all() and (loaded.kept == kept).all()
    # Ids are numbered anew, in the order of the old ones.
    assert (loaded.ids == np.searchsorted([0, *labels], ids)).all()
    assert loaded.classes == {1 + labels.index(i): c for i, c in classes.items()}


def test_saved_files_are_a_coco_panoptic_data_set(tmp_path, catalogs):
    ids = np.zeros((20, 30), np.int32)
    ids[2:5, 3:10] = 7
    ids[10:] = 70_000
    content = save_annotation(make_session(ids, {7: 0}, ids > 0))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(tmp_path)
    saved = json.loads((tmp_path / "panoptic.json").read_text())
    first, second = saved["annotations"][0]["segments_info"]
    assert first == {"id": 7, "category_id": 3, "area": 21, "bbox": [3, 2, 7, 3], "iscrowd": 0}
    assert second["category_id"] == 9 and second["bbox"] == [0, 10, 30, 10]
    kinds = [(c["id"], c["name"], c["isthing"]) for c in saved["categories"]]
    assert kinds == [(3, "car", 1), (8, "sky", 0), (9, "segment", 1)]
    register_panoptic_dataset(
        "app_saved",
        categories=saved["categories"],
        image_root=str(tmp_path / "images"),
        panoptic_root=str(tmp_path / "panoptic"),
        panoptic_json=str(tmp_path / "panoptic.json"),
        evaluator_type="class_agnostic_panoptic",
        how_to_make="press Save",
    )
    evaluator = ClassAgnosticPanopticEvaluator("app_saved")
    panoptic_seg = torch.from_numpy(ids), [{"id": 7}, {"id": 70_000}]
    evaluator.process(DatasetCatalog.get("app_saved"), [{"panoptic_seg": panoptic_seg}])
    assert evaluator.evaluate()["panoptic_class_agnostic"]["PQ"] == pytest.approx(100)


def test_json_and_png_of_a_data_set_load_onto_the_open_photo():
    ids = np.zeros((20, 30), np.int64)
    ids[5:9] = 123_456
    other = {"file_name": "000.png", "segments_info": []}
    mine = {"file_name": "001.png", "segments_info": [{"id": 123_456, "category_id": 55}]}
    content = {"annotations": [other, mine], "categories": [{"id": 55, "name": "zebra"}]}
    files = {"panoptic_val.json": json.dumps(content).encode(), "001.png": encode(id2rgb(ids))}
    current = make_session(np.ones((20, 30), np.int64), {}, ids > 0)
    loaded, note = load(files, current)
    assert loaded is current and "zebra" in note and loaded.classes == {}
    assert (loaded.ids == (ids != 0)).all() and loaded.kept[6].all()
    with pytest.raises(UploadError, match="no photo"):
        load(files)
    assert load({**files, "001.jpg": encode(COLOURS, "JPEG")})[0].photo.shape == (20, 30, 3)
    with pytest.raises(UploadError, match="do not belong together"):
        load(files, Session(COLOURS[:10], "other"))


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


JSON = json.dumps({"annotations": [{"file_name": "a.png", "segments_info": [{"id": 9}]}]})
ONE = encode(np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize(
    "files, message",
    [
        ({"a.zip": b"PK no zip"}, "cannot be read as a zip"),
        ({"a.zip": zipped({f"{i}.png": b"x" for i in range(17)})}, "holds 17 files"),
        ({"a.zip": zipped({"bomb.json": bytes(Limits().max_bytes + 1)})}, "at most 20 MB"),
        ({"a.json": b"{", "a.png": ONE}, "no COCO panoptic JSON"),
        ({"a.json": JSON.encode(), "b.png": ONE}, "None of the PNGs"),
        ({"a.json": JSON.encode(), "a.png": encode(COLOURS[..., 0])}, "PIL mode 'L'"),
        ({"a.json": JSON.encode(), "a.png": ONE}, "ids .9. are in segments_info but not in"),
    ],
)
def test_bad_annotations_are_refused_with_a_reason(files, message):
    with pytest.raises(UploadError, match=message):
        load(files)
