"""Matched ids that positions pull: between the matching alone and the positions alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.ids import PositionPull, assign_ids, match_ids
from ldmseg_d2.ids.id_maps import positional_codes, segment_centroids
from ldmseg_d2.ids.matching import predicted_id_table
from ldmseg_d2.inpainting.given_parts import given_id_table

NUM_BITS = 5
SCENES = {"seed": st.integers(0, 999), "count": st.integers(1, 9)}


def scene(seed, count):
    """(1, 16, 16) map of boxes with ids 1..K, and a prediction (1, 2^NUM_BITS, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(1, 16, 16, dtype=torch.int64)
    for k in range(count):
        y, x = torch.randint(0, 12, (2,), generator=generator).tolist()
        ids[0, y : y + 4, x : x + 4] = k + 1
    ids = torch.unique(torch.cat([torch.zeros(1).long(), ids.flatten()]), return_inverse=True)[1]
    return ids[1:].view(1, 16, 16), torch.randn(1, 2**NUM_BITS, 16, 16, generator=generator)


@settings(max_examples=30)
@given(**SCENES)
def test_without_weight_the_prediction_alone_decides(seed, count):
    ids, predicted = scene(seed, count)
    pulled = match_ids(ids, predicted, lambda x: x, PositionPull(0.0))
    assert torch.equal(pulled, match_ids(ids, predicted, lambda x: x))


@settings(max_examples=60)
@given(**SCENES)
def test_a_very_large_weight_gives_positional_ids(seed, count):
    ids, predicted = scene(seed, count)
    centroids = segment_centroids(ids[0], int(ids.max()))
    wanted = positional_codes(centroids, NUM_BITS, (), ()).tolist()
    pulled = match_ids(ids, predicted, lambda x: x, PositionPull(1e6))
    if len(set(wanted)) == len(wanted) and 0 not in wanted:
        assert torch.equal(pulled, assign_ids(ids, num_bits=NUM_BITS, method="positional"))
    # Where codes collide, no naming is nearer to them in all than this one.
    given_codes = [int(pulled[ids == k][0]) for k in range(1, len(wanted) + 1)]
    assert len(set(given_codes)) == len(wanted) and 0 not in given_codes
    distance = sum((a ^ b).bit_count() for a, b in zip(given_codes, wanted, strict=True))
    table = assign_ids(ids, num_bits=NUM_BITS, method="positional")
    greedy = [int(table[ids == k][0]) for k in range(1, len(wanted) + 1)]
    assert distance <= sum((a ^ b).bit_count() for a, b in zip(greedy, wanted, strict=True))


def test_a_bit_of_distance_costs_the_weight():
    """One segment in the upper left corner, whose code is 0, which void has: distances by hand."""
    ids = torch.zeros(16, 16, dtype=torch.int64)
    ids[:3, :3] = 1
    logits = torch.zeros(8)  # 3 bits; 1, 2 and 4 are one bit away, 3, 5 and 6 two, 7 three
    logits[2], logits[3], logits[7] = 1.0, 2.5, 3.5
    predicted = logits.view(-1, 1, 1).expand(-1, 16, 16)
    for weight, expected in ((0.0, 7), (0.9, 7), (1.3, 3), (1.6, 2)):
        table = predicted_id_table(ids, 1, predicted, lambda x: x, PositionPull(weight))
        assert table.tolist() == [0, expected]


@settings(max_examples=20)
@given(**SCENES)
def test_given_parts_are_named_alike(seed, count):
    ids, predicted = scene(seed, count)
    num_segments = int(ids.max())
    table = given_id_table(
        ids[0], num_segments, method="matched_positional", num_bits=NUM_BITS,
        predicted=predicted[0], expand=lambda x: x, position_weight=0.7,
    )  # fmt: skip
    pulled = match_ids(ids, predicted, lambda x: x, PositionPull(0.7))
    assert torch.equal(table[ids], pulled)
