"""A session's steps, its history, and the brush."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ldmseg_d2.app.brush import stroke_mask
from ldmseg_d2.app.history import MAX_UNDO
from ldmseg_d2.app.session import FILL_EMPTY, REDRAW_UNKEPT, Category, Session, SessionError

CATEGORIES = [Category(3, "car"), Category(8, "sky", isthing=False)]


@pytest.fixture
def session():
    """12 x 16 pixels: segment 1 left, 2 right, row 0 empty; 2 is a car."""
    session = Session(np.zeros((12, 16, 3), np.uint8), "photo", CATEGORIES)
    ids = np.ones((12, 16), np.int64)
    ids[:, 8:] = 2
    ids[0] = 0
    session.take_result(ids, {2: 0}, fresh=True)
    return session


def box(top, left, bottom, right):
    mask = np.zeros((12, 16), bool)
    mask[top:bottom, left:right] = True
    return mask


def state(session):
    return (
        session.ids.tobytes(),
        session.given.tobytes(),
        dict(session.classes),
        session.selected,
        None if session.uncertainty is None else session.uncertainty.tobytes(),
    )


def test_points_lead_to_segments(session):
    assert session.segment_at(3.9, 5) == 1 and session.segment_at(8, 11.99) == 2
    for x, y, message in ((3, 0.5, "no segment here"), (16, 3, "outside"), (3, -0.1, "outside")):
        with pytest.raises(SessionError, match=message):
            session.segment_at(x, y)


def test_names_and_rows(session):
    session.keep_pixels(box(0, 0, 12, 4))
    first, second = session.rows()
    assert (first.id, first.name, first.area, first.share) == (1, "segment 1", 88, 88 / 192)
    assert first.kept == 0.5 and second.kept == 0 and second.name == "car 2"


def test_keeping_is_switched_by_click_and_added_by_brush(session):
    assert session.toggle_kept(1)
    assert (session.given == (session.ids == 1)).all()
    assert not session.toggle_kept(1) and not session.given.any()
    assert session.keep_pixels(box(0, 0, 2, 16)) == 16  # the empty row is not kept
    assert not session.given[0].any() and session.given[1].all()
    assert session.toggle_kept(1)  # kept in part: now as a whole
    with pytest.raises(SessionError, match="no segment to keep"):
        session.keep_pixels(box(0, 0, 1, 16))


def test_erasing_empties_and_forgets(session):
    session.toggle_kept(2)
    session.select(2)
    session.erase_segment(2)
    assert session.segment_ids() == [1] and session.classes == {} and session.selected is None
    assert not session.given.any()
    assert session.erase_pixels(box(0, 0, 3, 3)) == 6
    with pytest.raises(SessionError, match="nothing to erase"):
        session.erase_pixels(box(0, 0, 3, 3))
    with pytest.raises(SessionError, match="no segment 2 any more"):
        session.toggle_kept(2)


def test_the_brush_begins_a_segment_and_extends_it(session):
    assert session.paint(box(2, 2, 4, 4), category=1) == 3
    assert session.segment_name(3) == "sky 3" and session.selected == 3
    session.paint(box(4, 2, 6, 4), category=0)  # of the selected one: its class stays
    assert ((session.ids == 3) == box(2, 2, 6, 4)).all() and session.given[box(2, 2, 6, 4)].all()
    assert session.segment_name(3) == "sky 3"
    session.select(None)
    session.erase_segment(1)
    assert session.paint(box(0, 0, 1, 1)) == 1  # the smallest free id, without a class
    assert session.segment_name(1) == "segment 1"
    with pytest.raises(SessionError, match="class number 2"):
        session.select(None)
        session.paint(box(0, 0, 1, 1), category=2)


def test_classes_can_be_changed(session):
    session.set_class(1, 1)
    session.set_class(2, None)
    assert [session.segment_name(i) for i in (1, 2)] == ["sky 1", "segment 2"]
    before = session.history.depth
    session.set_class(2, None)
    assert session.history.depth == before  # nothing changed: nothing to undo


def test_what_the_model_is_given(session):
    known = session.known(FILL_EMPTY)
    assert (known["known_ids"] == session.ids).all() and known["known_classes"] == {2: 0}
    assert (known["known_mask"] == (session.ids != 0)).all()
    session.toggle_kept(1)
    known = session.known(REDRAW_UNKEPT)
    assert (known["known_ids"] == np.where(session.ids == 1, 1, 0)).all()
    assert known["known_classes"] == {} and known["known_ids"].dtype == np.int64
    session.paint(np.ones((12, 16), bool))
    for redraw, message in ((FILL_EMPTY, "No area is empty"), (REDRAW_UNKEPT, "All pixels are")):
        with pytest.raises(SessionError, match=message):
            session.known(redraw)


def test_results_keep_marks_and_classes_of_what_was_given(session):
    session.toggle_kept(2)
    result = session.ids.copy()
    result[0] = 2
    result[5:8, 2:5] = 4
    uncertainty = np.full(result.shape, 0.25, np.float32)
    session.take_result(result, {2: 1, 4: 1, 1: 7}, uncertainty)
    assert (session.ids == result).all() and session.uncertainty is uncertainty
    # 2 stays a car; 4 is what the model says; 7 is no class that there is.
    assert session.classes == {2: 0, 4: 1}
    assert not session.given[0].any() and session.given[1:, 8:].all()
    session.take_result(result, {}, fresh=True)
    assert session.classes == {} and not session.given.any() and session.uncertainty is None
    with pytest.raises(ValueError, match="for a photo of"):
        session.take_result(result[1:], {})


STEPS = st.lists(
    st.tuples(st.sampled_from(["keep", "erase", "paint", "class"]), st.integers(0, 11)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_undo_and_redo_lead_to_the_same_states(steps):
    session = Session(np.zeros((12, 16, 3), np.uint8), "photo", CATEGORIES)
    session.take_result(np.arange(192).reshape(12, 16) // 48 + 1, {1: 0}, fresh=True)
    states = [state(session)]
    for what, where in steps:
        mask = box(where, 0, where + 2, 10)
        try:
            if what == "keep":
                session.keep_pixels(mask)
            elif what == "erase":
                session.erase_pixels(mask)
            elif what == "paint":
                session.paint(mask, category=where % 2)
            else:
                session.set_class(session.segment_at(12, where), where % 2)
        except SessionError:
            assert state(session) == states[-1]  # what fails changes nothing
            continue
        if session.history.depth[0] == len(states) + 1:
            states.append(state(session))
    for expected in states[-2::-1]:
        session.undo()
        assert state(session) == expected
    for expected in states[1:]:
        session.redo()
        assert state(session) == expected
    with pytest.raises(SessionError, match="nothing to redo"):
        session.redo()


def test_history_ends_and_a_new_step_forgets_what_was_undone(session):
    for i in range(MAX_UNDO + 20):
        session.toggle_kept(1 + i % 2)
    for _ in range(MAX_UNDO):
        session.undo()
    with pytest.raises(SessionError, match="nothing to undo"):
        session.undo()
    assert session.history.depth == (0, MAX_UNDO)
    session.erase_segment(1)
    assert session.history.depth == (1, 0)


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


@pytest.mark.parametrize("points", [[], [(1, 2, 3)], [(0, float("nan"))], "nonsense"])
def test_strokes_that_are_none(points):
    with pytest.raises(ValueError):
        stroke_mask((4, 4), points, 2)
