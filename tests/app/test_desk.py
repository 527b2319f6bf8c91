"""The model behind the page, and what a tab does with it and with files."""

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
from ldmseg_d2.app.uploads import Limits
from ldmseg_d2.data import PanopticDatasetMapper

STEPS_SEED_SAMPLES = (2, 0, 1)
BLACK = np.zeros((24, 32, 3), np.uint8)


class Halves(nn.Module):
    """Keeps what is given and draws the rest as a left half, id 40, and a right half, id 50."""

    num_inference_steps = 7

    def forward(self, batched_inputs):
        (self.seen,) = batched_inputs
        shape = self.seen["height"], self.seen["width"]
        drawn = torch.full(shape, 40)
        drawn[:, shape[1] // 2 :] = 50
        known = self.seen.get("known_ids", torch.zeros(shape, dtype=torch.int64))
        ids = torch.where(known != 0, known, drawn)
        segments = [{"id": i, "category_id": int(i == 50)} for i in ids.unique().tolist()]
        output = {"panoptic_seg": (ids.int(), segments)}
        if self.seen.get("num_samples", 1) > 1:
            output["uncertainty"] = torch.linspace(0, 1, shape[1]).expand(shape)
        return [output]


@pytest.fixture
def predictor():
    return Predictor(
        model=Halves(),
        mapper=PanopticDatasetMapper(augmentations=[], with_annotations=False),
        categories=[Category(1, "<b>cat</b>"), Category(2, "dog")],
        with_classes=True,
        title="halves",
        num_steps=7,
        seed=0,
    )


@pytest.fixture
def desk(predictor):
    desk, file = Desk(predictor, Limits()), io.BytesIO()
    Image.effect_noise((32, 24), 60).save(file, "PNG")
    desk.open_photo("a photo.png", file.getvalue())
    return desk


def test_the_model_gets_consecutive_ids_and_the_page_gets_its_own_back(predictor):
    known = np.zeros((24, 32), np.int64)
    known[:4], known[4:8] = 70_000, 2
    ids, classes, uncertainty = predictor.complete(
        BLACK, known_ids=known, known_classes={70_000: 1}, steps=3, seed=5, num_samples=4
    )
    seen = predictor.model.seen
    assert seen["known_ids"].dtype == torch.int64
    assert seen["known_ids"].unique().tolist() == [0, 1, 2]
    assert seen["known_classes"] == {2: 1} and seen["num_samples"] == 4 and seen["seed"] == 5
    assert (ids[:8] == known[:8]).all() and set(np.unique(ids[8:])) == {1, 3}  # the smallest free
    assert classes[3] == 1 and classes[1] == 0
    assert uncertainty.shape == (24, 32) and uncertainty.dtype == np.float32
    assert predictor.model.num_inference_steps == 3
    predictor.with_classes = False
    _, classes, uncertainty = predictor.complete(
        BLACK, known_ids=known, known_classes={2: 0}, steps=1, seed=0
    )
    assert "known_classes" not in predictor.model.seen and classes == {} and uncertainty is None


def test_segment_erase_complete_undo(desk):
    assert "2 segments" in desk.draw(None, *STEPS_SEED_SAMPLES)
    session = desk.opened
    assert session.segment_name(2) == "dog 2"
    with pytest.raises(SessionError, match="no seed"):
        desk.draw(None, 2, None, 1)
    session.click(2, "erase")
    assert "Completed" in desk.draw(FILL_EMPTY, *STEPS_SEED_SAMPLES)
    # Given segments, and what the model drew in the gap under another id.
    assert (session.ids[:, :16] == 1).all() and (session.ids[:, 16:] == 2).all()
    for expected in ([1], [1, 2]):
        session.undo()
        assert session.segment_ids() == expected
    session.click(1, "keep")
    desk.draw(REDRAW_UNKEPT, *STEPS_SEED_SAMPLES)
    given = desk._predictor.model.seen["known_ids"]
    assert (given[:, :16] == 1).all() and not given[:, 16:].any()


def test_pictures_show_what_they_should(desk):
    session = desk.opened
    photo, colors = draw_session(session)
    assert colors == {} and photo.shape == (24 * 22, 32 * 22, 3)  # about 720 pixels
    desk.draw(None, 2, 0, 3)
    segments, colors = draw_session(session, SEGMENTS, opacity=1.0, names=False)
    assert sorted(colors) == [1, 2] and len(set(colors.values())) == 2
    for x, segment in ((4, 1), (27, 2)):
        drawn = segments[12 * 22, x * 22].tolist()
        assert "#{:02x}{:02x}{:02x}".format(*drawn) == colors[segment]
    assert (draw_session(session, PHOTO)[0] == photo).all()
    assert (draw_session(session, opacity=1.0)[0] != segments).any()  # names
    heat, _ = draw_session(session, UNCERTAINTY, opacity=1.0)
    assert heat[0, 0].sum() < 20 and heat[0, -1].sum() > 600  # black where samples agree
    session.click(1, "keep")
    session.keep(np.eye(24, 32, 16, dtype=bool))
    html = list_segments(session, colors)
    assert 'data-id="1"' in html and "✓" in html and "◐" in html and "50.0%" in html
    assert "&lt;b&gt;cat" in html and "<b>cat" not in html  # names cannot bring HTML along


def test_the_shipped_model_leaves_given_pixels_as_they_are():
    shipped = load_predictor()
    assert shipped.with_classes and "ldmseg_multitask_scenes64.safetensors" in shipped.title
    assert shipped.categories[0] == Category(1, "person") and len(shipped.categories) == 11
    with pytest.raises(ValueError, match="needs a diffusion model"):
        load_predictor("configs/scenes/autoencoder_scenes64.yaml")
    desk = Desk(shipped, Limits())
    desk.open_example()
    session = desk.opened
    desk.draw(None, 4, 1, 1)
    assert 3 <= len(session.segment_ids()) <= 30
    # A partition that the photo does not suggest, and a hole in it.
    given = 1 + np.add(*np.indices(session.ids.shape)) // 24
    session.take_result(given, {}, kept=np.ones(given.shape, bool))
    session.stroke([(20, 20), (44, 44)], True, "erase", 20, -1)
    kept = session.ids != 0
    desk.draw(FILL_EMPTY, 4, 0, 1)
    assert not kept.all() and (session.ids[kept] == given[kept]).all()
