"""A session's steps, its history, and the brush."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ldmseg_d2.app.annotation_session import (
    FILL_EMPTY,
    REDRAW_UNKEPT,
    Category,
    Session,
    SessionError,
    stroke_mask,
)

CATEGORIES = [Category(3, "car"), Category(8, "sky", isthing=False)]
NOTHING_KEPT = np.zeros((12, 16), bool)


@pytest.fixture
def session():
    """12 x 16 pixels: segment 1 left, 2 right, row 0 empty; 2 is a car."""
    session = Session(np.zeros((12, 16, 3), np.uint8), "photo", CATEGORIES)
    ids = np.ones((12, 16), np.int64)
    ids[:, 8:] = 2
    ids[0] = 0
    session.take_result(ids, {2: 0}, kept=NOTHING_KEPT)
    return session


def box(top, left, bottom, right):
    mask = np.zeros((12, 16), bool)
    mask[top:bottom, left:right] = True
    return mask


def state(session):
    pixels = session.ids.tobytes(), session.kept.tobytes(), session.uncertainty is None
    return pixels, dict(session.classes), session.selected


def stroke(session, tool, *points):
    return session.stroke(points, len(points) > 1, tool, 10, -1)


def test_a_click_is_a_whole_segment(session):
    assert stroke(session, "select", (3.9, 5)) == "Selected segment 1."
    assert stroke(session, "select", (8, 11.99)) == "Selected car 2."
    assert stroke(session, "select", (8, 11.99)) == "car 2 is no longer selected."
    for point, message in (((3, 0.5), "no segment"), ((16, 3), "outside"), ((3, -0.1), "outside")):
        with pytest.raises(SessionError, match=message):
            stroke(session, "select", point)
    assert "is kept" in stroke(session, "keep", (3, 5))
    assert (session.kept == (session.ids == 1)).all()
    assert "no longer kept" in session.click(1, "keep") and not session.kept.any()
    session.click(2)
    assert "Erased car 2" in stroke(session, "erase", (9, 5))
    assert session.segment_ids() == [1] and session.classes == {} and session.selected is None


def test_a_drag_is_the_brush(session):
    assert "16 pixels" in session.keep(box(0, 0, 2, 16))  # the empty row is not kept
    assert not session.kept[0].any() and session.kept[1].all()
    assert "6 pixels" in session.erase(box(0, 0, 3, 3)) and not session.ids[:3, :3].any()
    for change in (session.keep, session.erase):
        with pytest.raises(SessionError, match="no segment here"):
            change(box(0, 0, 3, 3))
    assert session.paint(box(2, 2, 4, 4), 1) == "Painted sky 3." and session.selected == 3
    session.paint(box(4, 2, 6, 4), 0)  # of the selected one: its class stays
    assert ((session.ids == 3) == box(2, 2, 6, 4)).all() and session.kept[box(2, 2, 6, 4)].all()
    session.begin_segment()
    session.click(1, "erase")
    # The smallest free id, without a class.
    assert stroke(session, "paint", (10, 3), (12, 3)) == "Painted segment 1."


def test_what_the_model_is_given(session):
    given = session.given(FILL_EMPTY)
    assert (given["known_ids"] == session.ids).all() and given["known_classes"] == {2: 0}
    session.click(1, "keep")
    given = session.given(REDRAW_UNKEPT)
    assert (given["known_ids"] == (session.ids == 1)).all() and given["known_classes"] == {}
    session.paint(np.ones((12, 16), bool))
    for redraw in (FILL_EMPTY, REDRAW_UNKEPT):
        with pytest.raises(SessionError, match="Nothing is left"):
            session.given(redraw)


def test_results_keep_marks_and_classes_of_what_was_given(session):
    session.click(2, "keep")
    result = session.ids.copy()
    result[0] = 2
    result[5:8, 2:5] = 4
    session.take_result(result, {2: 1, 4: 1, 1: 7})
    # 2 stays a car; 4 is what the model says; 7 is no class that there is.
    assert (session.ids == result).all() and session.classes == {2: 0, 4: 1}
    assert not session.kept[0].any() and session.kept[1:, 8:].all()
    session.take_result(result, {}, kept=NOTHING_KEPT)
    assert session.classes == {} and not session.kept.any()


STEP = st.tuples(st.sampled_from(["keep", "erase", "paint", "set_class"]), st.integers(0, 11))


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEP, min_size=1, max_size=12))
def test_undo_and_redo_lead_to_the_same_states(steps):
    session = Session(np.zeros((12, 16, 3), np.uint8), "photo", CATEGORIES)
    ids = np.arange(192).reshape(12, 16) // 48 + 1
    session.take_result(ids, {1: 0}, np.ones((12, 16), np.float32), kept=NOTHING_KEPT)
    states = [state(session)]
    for what, where in steps:
        try:
            if what == "set_class":
                session.set_class(where % 2)
            else:
                getattr(session, what)(box(where, 0, where + 2, 10))
        except SessionError:
            assert state(session) == states[-1]  # what fails changes nothing
        if len(session._past) == len(states) + 1:
            states.append(state(session))
    for expected in states[-2::-1]:
        session.undo()
        assert state(session) == expected
    for expected in states[1:]:
        session.redo()
        assert state(session) == expected


@settings(max_examples=40, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(-10, 70), st.floats(-10, 50)), min_size=1, max_size=4),
    diameter=st.floats(1, 20),
)
@example(points=[(0.0, -2.0), (66.0, 6.0)], diameter=2.75)
def test_a_stroke_covers_what_is_near_its_line(points, diameter):
    mask = stroke_mask((40, 60), points, diameter)
    corners = np.floor(points)
    rows, columns = np.mgrid[:40, :60]
    pixels = np.stack([columns, rows], axis=-1).astype(float)
    distance = np.full((40, 60), np.inf)
    for a, b in zip(corners, corners[1:] if len(corners) > 1 else corners):
        way = b - a
        along = ((pixels - a) @ way / max(way @ way, 1e-9)).clip(0, 1)
        offset = pixels - (a + along[..., None] * way)
        distance = np.minimum(distance, np.hypot(offset[..., 0], offset[..., 1]))
    assert mask[distance <= diameter / 2 - 1.5].all()
    assert not mask[distance > diameter / 2 + 1.5].any()
