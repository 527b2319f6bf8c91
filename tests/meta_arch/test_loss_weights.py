"""Which cells count for how much in the losses."""

import numpy as np
import torch
from detectron2.modeling import build_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CLASSES, JOINT, tiny_config, tiny_multitask_batch

from ldmseg_d2.ids import pixel_areas
from ldmseg_d2.meta_arch.tasks.instance import balanced_cells

DIFFUSION = "MODEL.LDMSEG.DIFFUSION"


def maps(seed: int, count: int = 2) -> torch.Tensor:
    """(count, 8, 8) int64 maps of at most six ids, void included."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 6, (count, 8, 8)))


def losses(*opts):
    torch.manual_seed(0)
    model = build_model(tiny_config(JOINT, *CLASSES, *opts)).train()
    batch = [dict(entry, sample_seed=i) for i, entry in enumerate(tiny_multitask_batch())]
    return {name: float(loss.detach()) for name, loss in model(batch).items()}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_pixel_areas_against_a_naive_count(seed):
    ids = maps(seed)
    areas = pixel_areas(ids)
    for b, y, x in np.ndindex(*ids.shape):
        assert areas[b, y, x] == sum(int(i) == int(ids[b, y, x]) for i in ids[b].flatten())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), balance=st.floats(0, 1))
def test_cells_weigh_by_area_whatever_the_ids_are_called(seed, balance):
    ids = maps(seed)
    weights = balanced_cells(ids, 4, balance)
    assert weights.shape == (2, 1, 4, 4)
    torch.testing.assert_close(weights.mean(dim=(1, 2, 3)), torch.ones(2))
    renamed = torch.tensor([0, 5, 3, 1, 2, 4])[ids]
    torch.testing.assert_close(balanced_cells(renamed, 4, balance), weights)
    # Naively: each cell is the mean of its four pixels.
    for b in range(2):
        each = [[0.0] * 4 for _ in range(4)]
        largest = max((int((ids[b] == k).sum()) for k in range(1, 6)), default=1)
        for y, x in np.ndindex(8, 8):
            area = int((ids[b] == ids[b, y, x]).sum()) if ids[b, y, x] else largest
            each[y // 2][x // 2] += area**-balance / 4
        each = torch.tensor(each)
        torch.testing.assert_close(weights[b, 0], each / each.mean(), rtol=1e-4, atol=1e-5)


def test_at_balance_1_every_segment_counts_the_same_and_void_little():
    ids = torch.zeros(1, 8, 8, dtype=torch.int64)
    ids[0, :2, :2], ids[0, 4:, 4:], ids[0, 4:, :4] = 1, 2, 3  # whole cells of 2 pixels
    weights = balanced_cells(ids, 4, 1.0)[0, 0]
    cells = ids[0, ::2, ::2]
    totals = torch.stack([weights[cells == k].sum() for k in (1, 2, 3)])
    torch.testing.assert_close(totals, totals.mean().expand(3))
    assert weights[cells == 0].unique() == weights[cells == 2].unique()
    void = torch.zeros_like(ids)
    torch.testing.assert_close(balanced_cells(void, 4, 1.0), torch.ones(1, 1, 4, 4))


def test_the_balance_reaches_the_losses_of_id_maps_alone():
    plain, balanced = losses(), losses(f"{DIFFUSION}.SEGMENT_BALANCE", 1.0)
    assert plain["loss_depth"] == balanced["loss_depth"]
    for name in ("loss_instance", "loss_semantic"):
        assert plain[name] != balanced[name] > 0
