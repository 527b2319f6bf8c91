import numpy as np

from ldmseg_d2.visualization import fit, grid


def solid(height, width, value=0):
    return np.full((height, width, 3), value, np.uint8)


def test_grid_centres_small_pictures_and_takes_short_rows():
    picture = grid([[solid(10, 20), solid(4, 8, 9)], [solid(10, 20, 7)]])
    assert picture.shape == (2 * 10 + 3 * 6, 2 * 20 + 3 * 6, 3)
    assert (picture[6:16, 6:26] == 0).all() and (picture[22:32, 6:26] == 7).all()
    assert (picture[9:13, 38:46] == 9).all()
    rest = picture.copy()
    rest[6:16, 6:26] = rest[22:32, 6:26] = rest[9:13, 38:46] = 255
    assert (rest == 255).all()


def test_titles_add_a_bar_with_text_that_fits():
    plain = grid([[solid(50, 100), solid(50, 100)]])
    titled = grid([[solid(50, 100), solid(50, 100)]], [["photo", "x" * 200]])
    bar = titled[6:-56]
    assert titled.shape[1] == plain.shape[1] and 10 < bar.shape[0] < 40
    assert bar[:, 6:106].min() < 120 and bar[:, 112:-6].min() < 120
    assert (bar[:, 106:112] == 255).all()


def test_fit_only_shrinks():
    picture = np.random.default_rng(0).integers(0, 256, (30, 80, 3), dtype=np.uint8)
    assert fit(picture, 80) is picture and fit(solid(1, 4000), 100).shape == (1, 100, 3)
    means = picture.reshape(15, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(fit(picture, 40) - means).max() <= 1
