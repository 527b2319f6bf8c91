import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ldmseg_d2.ids import code_matrix
from ldmseg_d2.losses import (
    choose_uncertain_points,
    factored_cross_entropy,
    id_cross_entropy,
    mask_bce,
    mask_dice,
    sample_at_points,
)


def expand(head_output):
    """Logits of all ids by the definition: void, then every code times the bit logits."""
    bits, void = head_output[:, :-1], head_output[:, -1:]
    ids = torch.einsum("kb,nbhw->nkhw", code_matrix(bits.shape[1]).to(bits), bits)
    return torch.cat([void, ids], dim=1)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_bits=st.integers(2, 8),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    void_weight=st.sampled_from([0.0, 0.3, 1.0]),
    balance=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_factored_cross_entropy_is_the_expanded_one(seed, num_bits, scale, void_weight, balance):
    generator = torch.Generator().manual_seed(seed)
    head = scale * torch.randn(2, num_bits + 1, 3, 4, generator=generator, dtype=torch.float64)
    head = head.float().requires_grad_()
    ids = torch.randint(2**num_bits, (2, 3, 4), generator=generator)
    weights = {"void_weight": void_weight, "segment_balance": balance}
    closed = factored_cross_entropy(head, ids, **weights)
    naive = id_cross_entropy(expand(head), ids, **weights)
    torch.testing.assert_close(closed, naive, atol=1e-4, rtol=1e-4)
    gradients = [torch.autograd.grad(loss, head)[0] for loss in (closed, naive)]
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)


def test_factored_cross_entropy_is_finite_where_logits_are_huge():
    for sign in (-1, 1):
        head = (sign * torch.full((1, 8, 2, 2), 80.0)).requires_grad_()
        loss = factored_cross_entropy(head, torch.tensor([[[0, 1], [127, 64]]]), void_weight=1.0)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(head.grad).all()


def test_id_cross_entropy_leaves_void_out():
    logits = torch.randn(1, 4, 2, 2)
    ids = torch.tensor([[[0, 2], [3, 0]]])
    expected = (F.cross_entropy(logits[:, :, 0, 1], ids[:, 0, 1])
                + F.cross_entropy(logits[:, :, 1, 0], ids[:, 1, 0])) / 2  # fmt: skip
    torch.testing.assert_close(id_cross_entropy(logits, ids), expected)
    assert id_cross_entropy(logits, torch.zeros_like(ids)) == 0


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_segment_balance_against_a_naive_loop(balance):
    """An id of another picture is another segment."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, generator=generator)
    ids = torch.randint(4, (2, 3, 5), generator=generator)
    total = weights = 0.0
    for b, y, x in itertools.product(range(2), range(3), range(5)):
        if ids[b, y, x] != 0:
            weight = int((ids[b] == ids[b, y, x]).sum()) ** -balance
            total -= weight * float(logits[b, :, y, x].log_softmax(0)[ids[b, y, x]])
            weights += weight
    loss = id_cross_entropy(logits, ids, segment_balance=balance)
    assert float(loss) == pytest.approx(total / weights, rel=1e-5)


def test_mask_losses_against_a_naive_loop():
    logits = torch.randn(3, 10)
    masks = torch.rand(3, 10) > 0.5
    p = logits.sigmoid()
    bce = dice = 0.0
    for k in range(3):
        bce -= sum(float((p[k, i] if masks[k, i] else 1 - p[k, i]).log()) for i in range(10)) / 30
        overlap = float(p[k][masks[k]].sum())
        dice += (1 - (2 * overlap + 1) / (float(p[k].sum()) + int(masks[k].sum()) + 1)) / 3
    torch.testing.assert_close(float(mask_bce(logits, masks)), bce, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(float(mask_dice(logits, masks)), dice, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [mask_bce, mask_dice])
def test_no_segment_gives_zero_with_a_gradient(loss):
    logits = torch.zeros(0, 10, requires_grad=True)
    value = loss(logits, torch.zeros(0, 10, dtype=torch.bool))
    value.backward()
    assert float(value.detach()) == 0


def test_sampling_at_pixel_centres_reads_the_pixels():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    centres = torch.tensor([[[(c + 0.5) / 4, (r + 0.5) / 3] for r in range(3) for c in range(4)]])
    torch.testing.assert_close(sample_at_points(x, centres)[0, 0], torch.arange(12.0))


def test_uncertain_points_gather_where_two_ids_are_close():
    ramp = torch.linspace(-8, 8, 32).view(1, 1, 1, 32).expand(1, 1, 32, 32)
    logits = torch.cat([ramp, -ramp, torch.full_like(ramp, -20)], dim=1)  # equal at x = 0.5
    torch.manual_seed(0)
    points = choose_uncertain_points(logits, 200, importance_ratio=1.0)
    uniform = choose_uncertain_points(logits, 200, importance_ratio=0.0)
    assert points.shape == (1, 200, 2) and 0 <= points.min() and points.max() <= 1
    distance = lambda p: float((p[..., 0] - 0.5).abs().mean())  # noqa: E731
    assert distance(points) < 0.5 * distance(uniform)
