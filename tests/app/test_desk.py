"""The model behind the page, and what buttons and strokes do."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ldmseg_d2.app.annotation_session import FILL_EMPTY, REDRAW_UNKEPT, Category, SessionError
from ldmseg_d2.app.desk import Desk
from ldmseg_d2.app.drawing import PHOTO, SEGMENTS, UNCERTAINTY, draw_session, list_segments
from ldmseg_d2.app.predictor import Predictor, load_predictor
from ldmseg_d2.app.uploads import Limits, UploadError
from ldmseg_d2.data import PanopticDatasetMapper
from ldmseg_d2.data.datasets.scenes import generate_scene, split_seed
from ldmseg_d2.engine import ConfigError

SAMPLING = {"steps": 2, "seed": 0, "num_samples": 1}


class Halves(nn.Module):
    """Keeps what is given and draws the rest as a left half, id 40, and a right half, id 50."""

    num_inference_steps = 7

    def forward(self, batched_inputs):
        (self.seen,) = batched_inputs
        self.steps_seen = self.num_inference_steps
        if self.seen["seed"] == 13:
            raise ValueError("13 brings bad luck")
        shape = self.seen["height"], self.seen["width"]
        drawn = torch.full(shape, 40)
        drawn[:, shape[1] // 2 :] = 50
        known = self.seen.get("known_ids", torch.zeros(shape, dtype=torch.int64))
        ids = torch.where(self.seen.get("known_mask", known != 0), known, drawn)
        present = [i for i in ids.unique().tolist() if i]
        segments = [{"id": i, "category_id": int(i == 50), "isthing": True} for i in present]
        output = {"panoptic_seg": (ids.int(), segments)}
        if self.seen.get("num_samples", 1) > 1:
            output["uncertainty"] = torch.linspace(0, 1, shape[1]).expand(shape)
        return [output]


@pytest.fixture
def predictor():
    return Predictor(
        model=Halves(),
        mapper=PanopticDatasetMapper(augmentations=[], with_annotations=False),
        categories=[Category(1, "cat"), Category(2, "dog")],
        with_classes=True,
        title="halves",
        num_steps=7,
        seed=0,
    )


@pytest.fixture
def desk(predictor):
    desk = Desk(predictor, Limits(max_side=100))
    with io.BytesIO() as file:
        Image.effect_noise((32, 24), 60).convert("RGB").save(file, "PNG")
        desk.open_photo("a photo.png", file.getvalue())
    return desk


@pytest.fixture(scope="module")
def shipped():
    return load_predictor()


def click(desk, tool, x, y):
    return desk.stroke([(x, y)], drag=False, tool=tool, brush=5)


def test_the_model_gets_consecutive_ids_and_the_page_gets_its_own_back(predictor):
    photo = np.zeros((24, 32, 3), np.uint8)
    known = np.zeros((24, 32), np.int64)
    known[:4], known[4:8] = 70_000, 2
    mask = known != 0
    mask[20:] = True  # given as void
    result = complete(
        predictor,
        photo,
        known_ids=known,
        known_mask=mask,
        known_classes={70_000: 1},
        steps=3,
        seed=5,
        num_samples=4,
    )
    seen = predictor.model.seen
    assert seen["known_ids"].dtype == torch.int64 and seen["known_mask"].dtype == torch.bool
    assert seen["known_ids"].unique().tolist() == [0, 1, 2]
    assert seen["known_classes"] == {2: 1} and seen["num_samples"] == 4 and seen["seed"] == 5
    assert seen["image"].dtype == torch.uint8 and seen["image"].shape == (3, 24, 32)
    assert (result.ids[mask] == known[mask]).all()
    assert set(np.unique(result.ids[~mask])) == {1, 3}  # the smallest that are free
    assert result.classes[3] == 1 and result.classes[1] == 0
    assert result.uncertainty.shape == (24, 32) and result.uncertainty.dtype == np.float32
    # The number of steps is the call's own.
    assert predictor.model.steps_seen == 3 and predictor.model.num_inference_steps == 7


def test_models_without_classes_are_given_none(predictor):
    predictor.with_classes = False
    known = np.ones((24, 32), np.int64)
    result = complete(
        predictor,
        np.zeros((24, 32, 3), np.uint8),
        known_ids=known,
        known_mask=known > 1,
        known_classes={1: 0},
        steps=1,
        seed=0,
    )
    assert "known_ids" not in predictor.model.seen  # nothing is given: from scratch
    assert result.classes == {} and result.uncertainty is None
    with pytest.raises(ValueError, match="bad luck"):
        complete(predictor, np.zeros((24, 32, 3), np.uint8), steps=1, seed=13)
    assert predictor.model.num_inference_steps == 7


def test_segment_erase_complete_undo(desk):
    assert "2 segments" in desk.segment(**SAMPLING)
    assert desk.opened.segment_name(2) == "dog 2"
    assert "dog 2" in click(desk, "erase", 20, 3)
    assert desk.opened.segment_ids() == [1]
    assert "2 segments" in desk.complete(**SAMPLING)
    # Given segments, and what the model drew in the gap under another id.
    assert (desk.opened.ids[:, :16] == 1).all() and (desk.opened.ids[:, 16:] == 2).all()
    for _ in range(2):
        desk.undo()
    assert desk.opened.segment_ids() == [1, 2]
    desk.redo()
    assert desk.opened.segment_ids() == [1]


def test_only_what_is_kept_stays_if_wished(desk):
    desk.segment(**SAMPLING)
    with pytest.raises(SessionError, match="Nothing is marked as kept"):
        desk.complete(redraw=REDRAW_UNKEPT, **SAMPLING)
    assert "kept" in click(desk, "keep", 2, 3)
    desk.complete(redraw=REDRAW_UNKEPT, **SAMPLING)
    assert (desk.predictor.model.seen["known_mask"][:, :16]).all()
    assert not (desk.predictor.model.seen["known_mask"][:, 16:]).any()


def test_a_drag_is_the_brush_and_a_click_the_segment(desk):
    desk.segment(**SAMPLING)
    stroke = {"points": [(2, 2), (10, 2)], "brush": 5}
    assert "Kept" in desk.stroke(**stroke, drag=True, tool="keep")
    kept = int(desk.opened.given.sum())
    assert 9 <= kept < 60
    assert f"Erased {kept}" in desk.stroke(**stroke, drag=True, tool="erase")
    assert "cat 3" in desk.stroke(**stroke, drag=True, tool="paint", category=0)
    assert "Selected cat 1" in click(desk, "select", 2, 20)
    assert "dog 1" in desk.set_class(1)
    assert "Painted dog 1" in click(desk, "paint", 20, 20)
    assert "no longer selected" in desk.pick(1) and "new segment" in desk.begin_segment()
    assert "next painted" in desk.set_class(0)
    for tool, x, message in (("select", 99, "outside"), ("keep", -5, "outside")):
        with pytest.raises(SessionError, match=message):
            click(desk, tool, x, 3)
    with pytest.raises(SessionError, match="no segment 77"):
        desk.pick(77)


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"steps": None}, {"seed": -1}, {"num_samples": 99}, {"seed": float("nan")}],
)
def test_settings_out_of_range_are_refused(desk, settings):
    with pytest.raises(SessionError, match=f"{next(iter(settings))} is"):
        desk.segment(**{**SAMPLING, **settings})


def test_nothing_works_without_a_photo(predictor):
    desk = Desk(predictor)
    steps = (desk.save, desk.undo, desk.redo, desk.begin_segment, lambda: desk.segment(**SAMPLING))
    for step in (*steps, lambda: desk.complete(**SAMPLING), lambda: click(desk, "erase", 1, 1)):
        with pytest.raises(SessionError, match="Open a photo first"):
            step()
    with pytest.raises(UploadError, match="cannot be read"):
        desk.open_photo("a.png", b"nonsense")
    assert desk.session is None


def test_large_photos_are_reduced_and_saved_that_way(desk):
    with io.BytesIO() as file:
        Image.new("RGB", (400, 200)).save(file, "JPEG")
        assert "400 x 200 to 100 x 50" in desk.open_photo("big.jpg", file.getvalue())
    desk.segment(**SAMPLING)
    name, content, said = desk.save()
    assert name == "big_panoptic.zip" and "2 segments" in said
    assert "2 segments" in desk.load({name: content})
    assert desk.opened.ids.shape == (50, 100)


def test_pictures_show_what_they_should(desk):
    photo, colors = draw_session(desk.opened)
    assert colors == {} and photo.shape == (24 * 22, 32 * 22, 3)  # about 720 pixels
    desk.segment(**{**SAMPLING, "num_samples": 3})
    segments, colors = draw_session(desk.opened, SEGMENTS, opacity=1.0, names=False)
    assert sorted(colors) == [1, 2] and len(set(colors.values())) == 2
    for x, segment in ((4, 1), (27, 2)):
        drawn = segments[12 * 22, x * 22].tolist()
        assert "#{:02x}{:02x}{:02x}".format(*drawn) == colors[segment]
    assert (draw_session(desk.opened, PHOTO)[0] == photo).all()
    assert (
        draw_session(desk.opened, names=True)[0] != draw_session(desk.opened, names=False)[0]
    ).any()
    heat, _ = draw_session(desk.opened, UNCERTAINTY, opacity=1.0)
    assert heat[0, 0].sum() < 20 and heat[0, -1].sum() > 600  # black where samples agree
    click(desk, "keep", 2, 3)
    html = list_segments(desk.opened, colors)
    assert 'data-id="1"' in html and "cat 1" in html and "✓" in html and "50.0%" in html


def test_class_names_cannot_bring_html_along(desk):
    desk.segment(**SAMPLING)
    desk.opened.categories[0] = Category(1, "<script>alert(1)</script>")
    assert "<script>" not in list_segments(desk.opened, {})


def test_the_shipped_model_is_the_default(shipped):
    assert shipped.with_classes and "ldmseg_multitask_scenes64.safetensors" in shipped.title
    assert [c.name for c in shipped.categories][:2] == ["person", "car"]
    assert [c.id for c in shipped.categories] == list(range(1, 12))
    assert [c.isthing for c in shipped.categories] == [True] * 6 + [False] * 5
    scene = generate_scene(seed=split_seed(0, "val"), index=3)
    first, again = (complete(shipped, scene.image, steps=4, seed=1).ids for _ in range(2))
    assert (first == again).all() and 3 <= len(np.unique(first)) <= 30
    assert (first != complete(shipped, scene.image, steps=4, seed=2).ids).any()


def test_the_shipped_model_leaves_given_pixels_as_they_are(shipped):
    scene = generate_scene(seed=split_seed(0, "val"), index=3)
    desk = Desk(shipped)
    desk.open_example()
    desk.segment(steps=4, seed=0, num_samples=1)
    # A partition that the photo does not suggest, and a hole in it.
    rows, columns = np.indices(scene.segment_ids.shape)
    given = 1 + (columns + rows) // 24
    desk.opened.replace(given, {}, np.ones(given.shape, bool))
    desk.stroke([(20, 20), (44, 44)], drag=True, tool="erase", brush=20)
    kept = desk.opened.ids != 0
    desk.complete(steps=4, seed=0, num_samples=1)
    assert (desk.opened.ids[kept] == given[kept]).all()


@pytest.mark.parametrize(
    "config, opts, error, message",
    [
        ("no_such.yaml", [], FileNotFoundError, "no_such.yaml"),
        ("", ["MODEL.WEIGHT", "x"], ConfigError, "MODEL.WEIGHTS"),
        ("configs/scenes/autoencoder_scenes64.yaml", [], ValueError, "needs a diffusion model"),
    ],
)
def test_configs_that_do_not_fit(config, opts, error, message):
    with pytest.raises(error, match=message):
        load_predictor(config, opts)
