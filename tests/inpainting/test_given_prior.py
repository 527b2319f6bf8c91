import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.inpainting import given_log_prior, given_prior, random_walk
from ldmseg_d2.inpainting.given_parts import KnownParts
from ldmseg_d2.panoptic import logits_to_panoptic


def draw_seeds(seed, size, num_labels, share=0.2):
    """A photo, and seeds of which each label has at least one."""
    rng = np.random.default_rng(seed)
    photo = torch.from_numpy(rng.random((3, *size)))
    seeds = rng.integers(1, num_labels + 1, size) * (rng.random(size) < share)
    chosen = rng.permutation(seeds.size)[:num_labels]
    seeds.reshape(-1)[chosen] = np.arange(1, num_labels + 1)
    return photo, torch.from_numpy(seeds)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.sampled_from([20.0, 130.0, 400.0]))
def test_walkers_that_do_not_die_are_those_of_scikit_image(seed, num_labels, beta):
    segmentation = pytest.importorskip("skimage.segmentation")
    photo, seeds = draw_seeds(seed, (9, 13), num_labels)
    ours = random_walk(photo, seeds, beta=beta)
    theirs = segmentation.random_walker(
        photo.permute(1, 2, 0).numpy(), seeds.numpy(), beta=beta, mode="bf", tol=1e-8,
        channel_axis=-1, return_full_prob=True,
    )  # fmt: skip
    np.testing.assert_allclose(ours[:-1], theirs, atol=1e-4)
    np.testing.assert_allclose(ours[-1], 0.0, atol=1e-4)


def test_a_walker_dies_after_its_reach():
    """In one dimension and without edges: cosh((n - x) / reach) / cosh(n / reach), nearly."""
    seeds = torch.zeros(1, 200, dtype=torch.int64)
    seeds[0, 0] = 1
    chances = random_walk(torch.full((3, 1, 200), 0.4), seeds, reach=25.0)[0, 0]
    x = torch.arange(200.0)
    expected = torch.cosh((199.5 - x) / 25) / torch.cosh(torch.tensor(199.5 / 25))
    torch.testing.assert_close(chances, expected.float(), atol=2e-3, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([2.0, 30.0, np.inf]))
def test_chances_are_probabilities_and_seeds_are_certain(seed, num_labels, reach):
    photo, seeds = draw_seeds(seed, (8, 7), num_labels)
    chances = random_walk(photo, seeds, reach=reach)
    assert chances.shape == (num_labels + 1, 8, 7) and chances.dtype == torch.float32
    assert torch.all(chances >= 0)
    torch.testing.assert_close(chances.sum(0), torch.ones(8, 7), atol=1e-5, rtol=0)
    assert torch.all(chances[:, seeds > 0].argmax(0) == seeds[seeds > 0] - 1)
    assert torch.all(chances[:, seeds > 0].amax(0) == 1)
    # The same mirrored.
    mirrored = random_walk(photo.flip(-1), seeds.flip(-1), reach=reach)
    torch.testing.assert_close(mirrored.flip(-1), chances, atol=1e-4, rtol=0)


def test_an_edge_of_the_photo_keeps_the_walker_back():
    photo = torch.zeros(3, 6, 20)
    photo[:, :, 12:] = 1.0
    seeds = torch.zeros(6, 20, dtype=torch.int64)
    seeds[:, 0], seeds[:, 19] = 1, 2
    winner = random_walk(photo, seeds)[:2].argmax(0)
    assert torch.equal(winner, (torch.arange(20) >= 12).long().expand(6, 20))


def test_seeds_must_fit_and_be_there():
    with pytest.raises(ValueError, match="all of seeds is 0"):
        random_walk(torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"differ in size: \(4, 4\) and \(4, 5\)"):
        random_walk(torch.zeros(3, 4, 4), torch.ones(4, 5, dtype=torch.int64))


def known_parts(with_void):
    """Given: 40 at the left, 11 at the right, perhaps void below; the photo is all grey."""
    ids = torch.zeros(12, 16, dtype=torch.int64)
    ids[:8, :2], ids[:8, 14:] = 40, 11
    mask = ids != 0
    if with_void:
        mask[-2:] = True
    return KnownParts(ids, mask), torch.full((3, 6, 8), 90, dtype=torch.uint8)


@pytest.mark.parametrize("with_void", [False, True])
def test_rows_of_the_prior(with_void):
    known, photo = known_parts(with_void)
    prior = given_log_prior(known, photo, reach=1e6)
    assert prior.shape == (4, 12, 16)  # labels 11 and 40, void, not given
    assert torch.all(prior[1, :8, :2] == 0) and torch.all(prior[0, :8, 14:] == 0)
    assert torch.all(prior[1, :8, 2:7] > prior[0, :8, 2:7])
    nothing = float(torch.tensor(1e-3).log())
    assert torch.all(prior[3] == nothing)
    if with_void:
        assert torch.all(prior[2, -2:] == 0)
    else:
        assert torch.all(prior[2] == nothing)
    # Whoever dies has met nothing given.
    assert float(given_log_prior(known, photo, reach=0.5)[3, 4, 8]) > -0.1


def test_a_segment_lost_in_a_smaller_map_has_a_seed(monkeypatch):
    monkeypatch.setattr(given_prior, "MAX_PIXELS", 16)
    known, photo = known_parts(False)
    known.ids[5, 8], known.mask[5, 8] = 7, True
    prior = given_log_prior(known, photo, reach=1e6)
    assert prior.shape == (5, 12, 16)
    assert float(prior[0, 5, 8]) > float(prior[1:, 5, 8].max())


def test_the_reach_must_be_positive():
    known, photo = known_parts(False)
    with pytest.raises(ValueError, match="GIVEN_REACH must be above 0 pixels, got 0"):
        given_log_prior(known, photo, reach=0)


def test_prior_moves_the_choice_of_ids():
    """Two given ids in channels 5 and 2, and a new one, 7, which the logits prefer everywhere."""
    logits = torch.full((8, 1, 6), -10.0)
    logits[7], logits[5], logits[2] = 3.0, 0.0, 0.0
    prior = torch.tensor(
        [
            [-9.0, -9.0, -9.0, -9.0, -1.0, 0.0],
            [0.0, -1.0, -9.0, -9.0, -9.0, -9.0],
            [-9.0, -9.0, -9.0, -9.0, -9.0, -9.0],
            [-6.0, -6.0, -6.0, -6.0, -6.0, -6.0],
        ]
    ).unsqueeze(1)
    plain, _ = logits_to_panoptic(logits, (1, 6), count_threshold=0, overlap_threshold=0.0)
    assert plain[0].tolist() == [8] * 6
    moved, _ = logits_to_panoptic(
        logits, (1, 6), count_threshold=0, overlap_threshold=0.0, mask_threshold=0.0,
        keep_ids=[5, 2], keep_prior=prior,
    )  # fmt: skip
    assert moved[0].tolist() == [3, 3, 8, 8, 6, 6]
