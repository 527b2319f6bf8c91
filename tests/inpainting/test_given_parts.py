import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldmseg_d2.ids import code_matrix
from ldmseg_d2.inpainting.given_parts import (
    MAX_KNOWN_ID,
    check_known_parts,
    fill_unknown,
    given_id_table,
    known_cells,
    resize_nearest,
)

LIMITS = {"size": (4, 6), "max_segments": 3, "name": "photo.png"}


def ids_with(*values):
    ids = torch.zeros(4, 6, dtype=torch.int64)
    for position, value in enumerate(values):
        ids.view(-1)[position] = value
    return ids


def test_the_mask_is_where_ids_are_unless_given():
    ids = ids_with(0, 900, 7, 7)
    parts = check_known_parts(ids, **LIMITS)
    assert torch.equal(parts.mask, ids != 0) and torch.equal(parts.ids, ids)
    assert parts.labels().tolist() == [7, 900]
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0, 0] = mask[0, 2] = True
    parts = check_known_parts(ids.numpy().astype(np.int32), mask, **LIMITS)
    assert torch.equal(parts.mask, mask)
    assert parts.ids.unique().tolist() == [0, 7]  # void is given at [0, 0]; 900 lies outside


def test_nothing_given_is_none():
    assert check_known_parts(None, **LIMITS) is None
    assert check_known_parts(ids_with(), **LIMITS) is None
    nowhere = torch.zeros(4, 6, dtype=torch.bool)
    assert check_known_parts(ids_with(5, 6), nowhere, **LIMITS) is None


@pytest.mark.parametrize(
    "ids,mask,message",
    [
        (None, torch.ones(4, 6, dtype=torch.bool), "'known_mask' without 'known_ids'"),
        (ids_with(1).float(), None, r"float32, expected integers"),
        (ids_with(1) > 0, None, r"torch.bool, expected integers"),
        (ids_with(1)[:3], None, r"'known_ids' is \(3, 6\).*\(4, 6\).*nearest"),
        (ids_with(1), torch.ones(6, 4, dtype=torch.bool), r"'known_mask' is \(6, 4\)"),
        (ids_with(1), torch.ones(4, 6), "float32, expected bool"),
        (ids_with(-1), None, "span -1..0"),
        (ids_with(MAX_KNOWN_ID + 1), None, "number the segments anew"),
        (ids_with(1, 2, 3, 4), None, "4 segments, but MODEL.LDMSEG.NUM_BITS holds 3"),
    ],
)
def test_wrong_input_says_what_and_how_to_mend_it(ids, mask, message):
    with pytest.raises(ValueError, match=f"(?s)photo.png.*{message}"):
        check_known_parts(ids, mask, **LIMITS)


@settings(max_examples=40, deadline=None)
@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_resize_is_pils_nearest(old, new, seed):
    values = np.random.default_rng(seed).integers(0, 255, old, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(values).resize(new[::-1], Image.NEAREST))
    resized = resize_nearest(torch.from_numpy(values), new).numpy()
    # A pixel centre on the very border of two pixels goes where PIL's rounding says.
    clear = [(2 * np.arange(n) + 1) * o % (2 * n) != 0 for o, n in zip(old, new)]
    assert np.array_equal(resized[np.ix_(*clear)], expected[np.ix_(*clear)])


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 16), width=st.integers(1, 16), share=st.floats(0, 1),
    seed=st.integers(0, 99), rule=st.sampled_from(("all", "most", "any")),
)  # fmt: skip
def test_cells_against_a_loop(height, width, share, seed, rule):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(height, width, generator=generator) < share
    cells = known_cells(mask, image_size=16, downsample_factor=4, rule=rule)
    assert cells.shape == (4, 4)
    for y in range(4):
        for x in range(4):
            pixels = mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten().tolist()
            least = {"all": len(pixels), "most": len(pixels) / 2, "any": 1}[rule]
            expected = any(pixels) and sum(pixels) >= least
            assert bool(cells[y, x]) == expected


def test_unknown_pixels_take_the_nearest_known_id():
    ids = torch.zeros(5, 7, dtype=torch.int64)
    ids[2, 0], ids[2, 6] = 3, 8
    mask = ids != 0
    filled = fill_unknown(ids, mask)
    assert torch.equal(filled[:, :3], torch.full((5, 3), 3))
    assert torch.equal(filled[:, 4:], torch.full((5, 3), 8))
    assert torch.equal(fill_unknown(ids, torch.zeros_like(mask)), ids)
    assert torch.equal(fill_unknown(ids, torch.ones_like(mask)), ids)


def scattered(seed, count):
    ids = np.random.default_rng(seed).integers(0, count + 1, (8, 8))
    return torch.from_numpy(ids)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    count=st.integers(0, 15),
    method=st.sampled_from(("random", "ordered", "positional", "matched", "matched_positional")),
)
def test_codes_are_distinct_and_never_void(seed, count, method):
    generator = torch.Generator().manual_seed(seed)
    table = given_id_table(
        scattered(seed, count), count, method=method, num_bits=4, generator=generator,
        predicted=torch.randn(16, 8, 8, generator=generator), expand=lambda x: x,
    )  # fmt: skip
    assert table[0] == 0 and len(table) == count + 1
    assert len(set(table[1:].tolist())) == count
    assert count == 0 or (table[1:].min() >= 1 and table[1:].max() <= 15)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), method=st.sampled_from(("ordered", "matched")))
def test_codes_do_not_depend_on_what_the_given_ids_are_called(seed, method):
    ids, order = scattered(seed, 6), torch.randperm(6, generator=torch.Generator().manual_seed(9))
    renamed = torch.cat([torch.zeros(1, dtype=torch.int64), order + 1])[ids]
    predicted = torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(seed))
    arguments = {"method": method, "num_bits": 4, "predicted": predicted, "expand": lambda x: x}
    codes = given_id_table(ids, 6, **arguments)[ids]
    assert torch.equal(codes, given_id_table(renamed, 6, **arguments)[renamed])


def test_matched_codes_are_what_the_network_predicts_there():
    """A factored head: bits of the predicted codes 5 and 9, in the given parts alone."""
    ids = torch.zeros(8, 8, dtype=torch.int64)
    ids[:2], ids[6:] = 1, 2
    predicted = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    codes = code_matrix(4)
    predicted[:, :2], predicted[:, 6:] = codes[4].view(4, 1, 1), codes[8].view(4, 1, 1)

    def expand(bits):
        logits = torch.einsum("kb,nbhw->nkhw", codes, bits)
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)

    table = given_id_table(ids, 2, method="matched", num_bits=4, predicted=predicted, expand=expand)
    assert table.tolist() == [0, 5, 9]


def test_ordered_and_positional_codes_go_by_the_centroid_of_the_given_part():
    ids = torch.zeros(16, 16, dtype=torch.int64)
    ids[12:, :4], ids[:4, 12:], ids[:4, :4] = 1, 2, 3
    assert given_id_table(ids, 3, method="ordered", num_bits=4).tolist() == [0, 3, 2, 1]
    # 2 bits of y in the high bits, 2 of x: bins 3 -> Gray 2, 0 -> 0; void's code 0 is never given.
    codes = given_id_table(ids, 3, method="positional", num_bits=4).tolist()
    assert codes[1] == 0b1000 and codes[2] == 0b0010
    assert codes[3] == 0b0001  # the nearest that is free, the smallest of several


def test_codes_refuse_what_they_cannot_name():
    ids = torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="ID_ASSIGNMENT is 'best'"):
        given_id_table(ids, 1, method="best", num_bits=4)
    with pytest.raises(ValueError, match="need the decoded prediction"):
        given_id_table(ids, 1, method="matched", num_bits=4)
    with pytest.raises(ValueError, match="16 given segments"):
        given_id_table(ids, 16, method="random", num_bits=4)
    with pytest.raises(ValueError, match="allowed: all, most, any"):
        known_cells(ids > 0, image_size=4, downsample_factor=2, rule="some")
