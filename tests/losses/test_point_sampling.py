import torch

from ldmseg_d2.losses import choose_uncertain_points, sample_at_points


def test_sampling_at_pixel_centres_reads_the_pixels():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    centres = torch.tensor([[[(c + 0.5) / 4, (r + 0.5) / 3] for r in range(3) for c in range(4)]])
    torch.testing.assert_close(sample_at_points(x, centres)[0, 0], torch.arange(12.0))


def test_uncertain_points_gather_where_two_ids_are_close():
    ramp = torch.linspace(-8, 8, 32).view(1, 1, 1, 32).expand(1, 1, 32, 32)
    logits = torch.cat([ramp, -ramp, torch.full_like(ramp, -20)], dim=1)  # equal at x = 0.5
    torch.manual_seed(0)
    distances = []
    for ratio in (1.0, 0.0):
        points = choose_uncertain_points(logits, 200, importance_ratio=ratio)
        assert points.shape == (1, 200, 2) and 0 <= points.min() and points.max() <= 1
        distances.append(float((points[..., 0] - 0.5).abs().mean()))
    assert distances[0] < 0.5 * distances[1]
