"""Sizes and places of pictures in a layout, and pictures of bits and latents."""

import numpy as np
import pytest
import torch

from ldmseg_d2.visualization import (
    denoising_strip,
    draw_bits,
    draw_latents,
    fit,
    grid,
    shrink,
    side_by_side,
)


def solid(height, width, value=0):
    return np.full((height, width, 3), value, np.uint8)


def test_side_by_side_centres_what_is_lower():
    picture = side_by_side([solid(10, 20), solid(4, 8, 9)], pad=2)
    assert picture.shape == (14, 34, 3)
    assert (picture[2:12, 2:22] == 0).all()
    assert (picture[5:9, 24:32] == 9).all()
    assert (picture[:5, 22:] == 255).all() and (picture[9:, 22:] == 255).all()


def test_only_a_wide_picture_shrinks_and_keeps_its_shape():
    picture = np.random.default_rng(0).integers(0, 256, (30, 80, 3), dtype=np.uint8)
    assert shrink(picture, 80) is picture
    small = shrink(picture, 40)
    assert small.shape == (15, 40, 3)
    means = picture.reshape(15, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 1


def test_grid_aligns_columns_and_takes_short_rows():
    rows = [[solid(10, 20), solid(10, 30, 7)], [solid(6, 12, 5)]]
    picture = grid(rows, pad=1)
    assert picture.shape == (10 + 6 + 3, 20 + 30 + 3, 3)
    assert (picture[12:18, 5:17] == 5).all() and (picture[1:11, 22:52] == 7).all()


def test_titles_add_a_bar_with_text_that_fits():
    plain = side_by_side([solid(50, 100), solid(50, 100)], pad=0)
    titled = side_by_side([solid(50, 100), solid(50, 100)], ["photo", "x" * 200], pad=0)
    bar = titled[: titled.shape[0] - 50]
    assert titled.shape[1] == plain.shape[1] and 10 < bar.shape[0] < 40
    assert bar[:, :100].min() < 120 and bar[:, 100:].min() < 120
    strip = denoising_strip([solid(64, 64)] * 3, [999, 500, 19])
    assert strip.shape[0] > 64 and strip.shape[1] == 3 * 64 + 4 * 6


def test_fit_only_shrinks():
    assert fit(solid(100, 400), 200).shape == (50, 200, 3)
    assert fit(solid(100, 400), 500).shape == (100, 400, 3)
    assert fit(solid(1, 4000), 100).shape == (1, 100, 3)


def test_layout_errors():
    with pytest.raises(ValueError, match="at least one"):
        side_by_side([])
    with pytest.raises(ValueError, match="float"):
        side_by_side([solid(2, 2) / 2.0])
    with pytest.raises(ValueError, match="as many titles"):
        side_by_side([solid(2, 2)], ["a", "b"])


def test_bits_are_black_grey_and_white():
    bits = torch.ones(7, 16, 16)
    bits[:, :8], bits[:, 8:, 8:] = -1, 0
    picture = draw_bits(bits, scale=2)
    assert picture.shape == (2 * 32 + 3 * 6, 4 * 32 + 5 * 6, 3)
    first = picture[6 : 6 + 32, 6 : 6 + 32]
    assert (first[:16] == 0).all() and (first[16:, :16] == 255).all()
    assert (first[16:, 16:] == 128).all()
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        draw_bits(torch.zeros(2, 3))


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_latents_use_the_whole_range(channels):
    generator = torch.Generator().manual_seed(0)
    latents = 50 * torch.randn(channels, 8, 6, generator=generator)
    picture = draw_latents(latents, scale=4)
    assert picture.shape == (32, 24, 3)
    assert picture.min() == 0 and picture.max() == 255
    assert np.isfinite(draw_latents(torch.zeros(4, 2, 2))).all()
    with pytest.raises(ValueError, match="latents"):
        draw_latents(torch.zeros(0, 2, 2))
