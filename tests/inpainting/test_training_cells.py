import pytest
import torch
from bit_autoencoder import BitAutoencoder

from ldmseg_d2.diffusion import SampleRandomness
from ldmseg_d2.inpainting import draw_known_latents
from ldmseg_d2.inpainting.training_cells import draw_known_cells
from ldmseg_d2.meta_arch.task_batches import Block
from ldmseg_d2.meta_arch.tasks import InstanceTask


def seeded(count):
    return SampleRandomness([{"sample_seed": i} for i in range(count)], torch.device("cpu"))


def draw(ids, prob=1.0):
    return draw_known_cells(ids, 16, num_ids=128, prob=prob, randomness=seeded(len(ids)))


@pytest.fixture(scope="module")
def ids():
    """600 samples: a void stripe, two halves, and a square that fills no cell on its rim."""
    one = torch.ones(64, 64, dtype=torch.int64)
    one[:, 32:], one[:8], one[22:42, 22:42] = 2, 0, 3
    return one.expand(600, 64, 64)


def test_known_cells_are_whole_segments_or_groups_of_cells(ids):
    cells = ids[0].view(16, 4, 16, 4).transpose(1, 2).reshape(16, 16, 16)
    whole = {k: (cells == k).all(-1) for k in range(4)}
    segments = groups = 0
    for known in draw(ids):
        given = {k for k in (1, 2, 3) if known[whole[k]].all()}
        # A cell is given if all 16 of its pixels belong to given segments: void never does.
        naive = [[given.issuperset(cell) for cell in row] for row in cells.tolist()]
        if known.tolist() == naive:
            segments += bool(given)
            continue
        groups += bool(known.any())
    # Half of the samples give segments; of those a quarter gives none of three (the integral of
    # (1 - s)^3). Four deviations are 0.08.
    assert segments / 600 == pytest.approx(0.5 * 0.75, abs=0.08)
    assert groups / 600 == pytest.approx(0.5, abs=0.08)


def test_share_of_samples_and_of_cells(ids):
    for prob in (0.0, 0.3):
        known = draw(ids, prob).flatten(1)
        assert float(known.any(1).float().mean()) == pytest.approx(prob * 0.875, abs=0.08)
    # Of void alone only groups are left, which do not ask what is there: half of half.
    known = draw(torch.zeros(400, 64, 64, dtype=torch.int64))
    assert float(known.float().mean()) == pytest.approx(0.25, abs=0.08)


def test_only_the_segments_latents_are_given(ids):
    block = Block(InstanceTask(BitAutoencoder(7), image_size=64), [3, 1], slice(28, 56))
    like = torch.zeros(4, 56, 16, 16)
    options = {"like": like, "prob": 1.0, "randomness": seeded(4)}
    known = draw_known_latents(block, ids[:2], **options)
    cells = draw_known_cells(
        ids[:2], 16, num_ids=128, prob=1.0, randomness=seeded(4).of_samples([3, 1])
    )
    expected = torch.zeros_like(like, dtype=torch.bool)
    expected[[3, 1], 28:] = cells[:, None].expand(2, 28, 16, 16)
    assert torch.equal(known, expected) and known.any()
    assert not draw_known_latents(None, None, **options).any()
