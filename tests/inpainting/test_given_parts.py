"""What is given: checked, on the latents' grid, and back in the result, pixel by pixel."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import segments_of
from PIL import Image

from ldmseg_d2.inpainting import GivenParts, put_back, read_given_parts, resize_nearest
from ldmseg_d2.inpainting.given_parts import MAX_GIVEN_ID, fill_unknown, known_cells, match_given

SEEDS = st.integers(0, 10**6)
NAMES = (3, 7, 1000)


def ids_with(*values):
    ids = torch.zeros(4, 6, dtype=torch.int64)
    ids.view(-1)[: len(values)] = torch.tensor(values, dtype=torch.int64)
    return ids


def read(ids, mask=None, classes=None, **options):
    entry = {"file_name": "photo.png", "height": 4, "width": 6, "known_ids": ids}
    entry |= {"known_mask": mask, "known_classes": classes}
    return read_given_parts(entry, max_segments=3, **options)


def test_the_mask_is_where_ids_are_unless_given():
    ids = ids_with(0, 900, 7, 7)
    parts = read(ids, classes={7: 2})
    assert torch.equal(parts.mask, ids != 0) and torch.equal(parts.ids, ids)
    assert parts.labels().tolist() == [7, 900] and parts.classes == {7: 2, 900: None}
    mask = ids_with(1, 0, 1) > 0
    parts = read(ids.numpy().astype(np.int32), mask)
    assert torch.equal(parts.mask, mask)
    assert parts.ids.unique().tolist() == [0, 7]  # void is given at [0, 0]; 900 lies outside
    # Nothing is given.
    assert read(None) is read(ids_with()) is read(ids_with(5), ids_with() > 0) is None
    assert read_given_parts({}, max_segments=3, asked=False) is None


EVERYWHERE = torch.ones(4, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    "ids, mask, classes, message",
    [
        (None, EVERYWHERE, None, "'known_mask' or 'known_classes' without 'known_ids'"),
        (ids_with(1).float(), None, None, "float32, expected integers"),
        (ids_with(1) > 0, None, None, "torch.bool, expected integers"),
        (ids_with(1)[:3], None, None, r"'known_ids' is \(3, 6\).*\(4, 6\).*nearest"),
        (ids_with(1), EVERYWHERE.T, None, r"'known_mask' is \(6, 4\)"),
        (ids_with(1), EVERYWHERE.float(), None, "float32, expected bool"),
        (ids_with(-1), None, None, "span -1..0"),
        (ids_with(MAX_GIVEN_ID + 1), None, None, "number the segments anew"),
        (ids_with(1, 2, 3, 4), None, None, "4 segments, but MODEL.LDMSEG.NUM_BITS holds 3"),
        (ids_with(1), None, {1: 0, 8: 1}, r"'known_classes' has ids \[8\]"),
    ],
)
def test_wrong_input_says_what_and_how_to_mend_it(ids, mask, classes, message):
    with pytest.raises(ValueError, match=f"(?s)photo.png.*{message}"):
        read(ids, mask, classes)


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(old=SIZES, new=SIZES, seed=SEEDS)
def test_resizing_is_pils_nearest(old, new, seed):
    values = np.random.default_rng(seed).integers(0, 255, old, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(values).resize(new[::-1], Image.NEAREST))
    resized = resize_nearest(torch.from_numpy(values), new).numpy()
    # A pixel centre on the very border of two pixels goes where PIL's rounding says.
    clear = [(2 * np.arange(n) + 1) * o % (2 * n) != 0 for o, n in zip(old, new)]
    assert np.array_equal(resized[np.ix_(*clear)], expected[np.ix_(*clear)])


@given(height=st.integers(1, 16), width=st.integers(1, 16), share=st.floats(0, 1), seed=SEEDS)
def test_a_cell_is_known_where_all_its_pixels_are(height, width, share, seed):
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    cells = known_cells(mask, image_size=16, downsample_factor=4)
    for y, x in np.ndindex(4, 4):
        pixels = mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten().tolist()
        assert bool(cells[y, x]) == (all(pixels) and any(pixels))
    both = known_cells(torch.stack([mask, ~mask]), image_size=16, downsample_factor=4)
    assert torch.equal(both[0], cells) and not (both[1] & cells).any()


@given(seed=SEEDS, share=st.floats(0, 1))
def test_unknown_pixels_take_the_id_of_a_nearest_known_one(seed, share):
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((5, 7)) < share)
    ids = torch.from_numpy(rng.integers(0, 9, (5, 7)))
    filled = fill_unknown(ids, mask)
    if not mask.any():
        assert torch.equal(filled, ids)
        return
    known = torch.nonzero(mask)
    for pixel in np.ndindex(5, 7):
        distances = (known - torch.tensor(pixel)).pow(2).sum(1)
        nearest = known[distances == distances.min()]
        assert int(filled[pixel]) in {int(ids[tuple(p)]) for p in nearest.tolist()}
    assert torch.equal(filled[mask], ids[mask])


def draw_case(seed, share=0.4, num_segments=9):
    """A random result, a random given part of three segments, and codes of two of them."""
    rng = np.random.default_rng(seed)
    panoptic = torch.from_numpy(rng.integers(0, num_segments + 1, (9, 11)).astype(np.int32))
    mask = torch.from_numpy(rng.random((9, 11)) < share)
    ids = torch.tensor([0, *NAMES])[torch.from_numpy(rng.integers(0, 4, (9, 11)))] * mask
    classes = dict.fromkeys(ids.unique().tolist()[1:])
    return panoptic, GivenParts(ids, mask, classes), {2: 3, 4: 7}


@settings(max_examples=60)
@given(seed=SEEDS, share=st.floats(0, 1), min_area=st.integers(0, 20))
def test_given_pixels_and_ids_come_back_whatever_the_model_says(seed, share, min_area):
    panoptic, parts, codes = draw_case(seed, share)
    info = segments_of(panoptic, category_id=1, isthing=True)
    result, infos = put_back(panoptic, info, parts, codes=codes, min_area=min_area)
    assert torch.equal(result[parts.mask].long(), parts.ids[parts.mask])
    assert [(s["id"], s["area"]) for s in infos] == [
        (s["id"], s["area"]) for s in segments_of(result)
    ]
    matched, outside, labels = match_given(panoptic, parts, codes), ~parts.mask, set(parts.classes)
    others = []
    for old in panoptic.unique().tolist():
        rest = (panoptic == old) & outside
        if old in matched:
            assert torch.equal((result == matched[old]) & outside, rest)
        elif old and rest.any():
            (new,) = result[rest].unique().tolist()
            lost = bool(((panoptic == old) & parts.mask).any())
            assert new not in labels and (new or (lost and int(rest.sum()) < min_area))
            others.append(new)
    kept = [new for new in others if new]
    assert kept == sorted(set(kept)), "new ids keep their order"
    for segment in infos:
        inside = int((parts.ids == segment["id"]).sum())
        score = (inside + 0.5 * (segment["area"] - inside)) / segment["area"]
        assert segment["score"] == pytest.approx(score if segment["id"] in labels else 0.5)


@given(seed=SEEDS, coded=st.booleans())
def test_no_other_pairing_has_more_given_pixels(seed, coded):
    """Between as many, the pairs that the codes name decide."""
    panoptic, parts, codes = draw_case(seed, share=0.2, num_segments=4)
    codes = codes if coded else {}
    labels = list(parts.classes)

    def score(pairs):
        return sum(
            int(((panoptic == s) & (parts.ids == g)).sum()) + 0.5 * (codes.get(s) == g)
            for s, g in pairs
        )

    found = match_given(panoptic, parts, codes)
    orders = itertools.permutations((1, 2, 3, 4), len(labels))
    assert score(found.items()) == max(score(zip(order, labels)) for order in orders)
    assert len(set(found.values())) == len(found)
