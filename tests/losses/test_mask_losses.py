import torch

from ldmseg_d2.losses import mask_bce, mask_dice


def test_mask_losses_against_a_naive_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 10, generator=generator)
    masks = torch.rand(3, 10, generator=generator) > 0.5
    p = logits.sigmoid()
    bce = dice = 0.0
    for k in range(3):
        bce -= sum(float((p[k, i] if masks[k, i] else 1 - p[k, i]).log()) for i in range(10)) / 30
        overlap = float(p[k][masks[k]].sum())
        dice += (1 - (2 * overlap + 1) / (float(p[k].sum()) + int(masks[k].sum()) + 1)) / 3
    torch.testing.assert_close(float(mask_bce(logits, masks)), bce, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(float(mask_dice(logits, masks)), dice, rtol=1e-4, atol=1e-5)


def test_no_segment_gives_zero_with_a_gradient():
    for loss in (mask_bce, mask_dice):
        logits = torch.zeros(0, 10, requires_grad=True)
        value = loss(logits, torch.zeros(0, 10, dtype=torch.bool))
        value.backward()
        assert float(value.detach()) == 0 and logits.grad is not None
