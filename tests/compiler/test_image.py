"""`tfn.image` against definitions written out, the standard library's colours and polynomials."""

import colorsys

import numpy as np
import pytest

from tfn import image
from tfn.compiler import numpy as tnp
from tfn.compiler.errors import OpError
from tfn.compiler.trace.grad import grad

RNG = np.random.default_rng(0)
PIXELS = np.concatenate([RNG.uniform(0, 1, (12, 3)), [[0, 0, 0], [1, 1, 1], [.5, .5, .5], [1, 0, 0],
                                                      [0, 1, 0], [0, 0, 1], [1, 1, 0]]]).astype("f4")
PAD = {"nearest": "edge", "wrap": "wrap", "mirror": "reflect", "reflect": "symmetric"}


@pytest.mark.parametrize("name", ["rgb_to_hsv", "hsv_to_rgb"])
def test_colours(engine, name):
    expected = [getattr(colorsys, name)(*map(float, pixel)) for pixel in PIXELS]
    found = engine(getattr(image, name), PIXELS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    first = engine(lambda x: getattr(image, name)(x, axis=0), PIXELS.T.copy())
    np.testing.assert_array_equal(first, found.T)


def test_colours_need_three_channels():
    with pytest.raises(OpError, match="3 channels along axis -1, got \\(2, 4\\)"):
        image.rgb_to_hsv(np.zeros((2, 4), "f4"))


@pytest.mark.parametrize("mode", ["constant", *PAD])
@pytest.mark.parametrize("order", [0, 1])
def test_map_coordinates(engine, mode, order):
    """Beyond the edges is what `np.pad` puts there."""
    x = RNG.normal(size=(4, 5, 2)).astype("f4")
    places = RNG.uniform(-6, 10, (2, 7, 3)).astype("f4")
    wide = np.pad(x, ((9, 9), (9, 9), (0, 0)),
                  **({"constant_values": 2.5} if mode == "constant" else {"mode": PAD[mode]}))
    expected = np.zeros((7, 3, 2))
    for at in np.ndindex(7, 3):
        row, column = places[(slice(None), *at)]
        r, c = int(np.floor(row)), int(np.floor(column))
        if order == 0:
            expected[at] = wide[round(float(row)) + 9, round(float(column)) + 9]
            continue
        for i, wi in ((r, 1 - (row - r)), (r + 1, row - r)):
            for j, wj in ((c, 1 - (column - c)), (c + 1, column - c)):
                expected[at] += wi * wj * wide[i + 9, j + 9]
    found = engine(lambda a, p: image.map_coordinates(a, p, order, mode, 2.5), x, places)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_map_coordinates_rounds_integers_and_says_what_it_takes():
    x = np.array([0, 3, 7], "u1")
    np.testing.assert_array_equal(image.map_coordinates(x, np.float32([[0.5, 1.2, 2.0]])), [2, 4, 7])
    with pytest.raises(OpError, match="order 0 and 1"):
        image.map_coordinates(x, np.float32([[0.5]]), order=3)


@pytest.mark.parametrize("size", [(3, 9), (12, 2), (5, 7)])
def test_linear_resize_interpolates_between_centres(engine, size):
    x = RNG.normal(size=(2, 5, 7, 3)).astype("f4")
    expected = x
    for axis, wanted in zip((1, 2), size, strict=True):
        n = x.shape[axis]
        centres = (np.arange(wanted) + 0.5) * n / wanted - 0.5
        expected = np.apply_along_axis(lambda v, c=centres: np.interp(c, np.arange(len(v)), v), axis,
                                       expected)
    found = engine(lambda v: image.resize(v, (2, *size, 3), "linear", False), x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "factor"), [(12, 3), (8, 2)])
def test_nearest_and_averaging(engine, n, factor):
    x = RNG.normal(size=(n, 2)).astype("f4")
    found = engine(lambda v: image.resize(v, (n // factor, 2), "nearest"), x)
    np.testing.assert_array_equal(found, x[factor // 2::factor])
    constant = engine(lambda v: image.resize(v * 0 + 3, (n // factor, 2), "lanczos5", True), x)
    np.testing.assert_allclose(constant, 3, rtol=1e-5)


@pytest.mark.parametrize(("method", "degree"), [("linear", 1), ("cubic", 2), ("lanczos3", 0)])
def test_kernels_reproduce_polynomials(engine, method, degree):
    """Away from the edges, enlarging by 4."""
    points = np.arange(20, dtype="f4")
    x = (points / 10) ** degree
    found = engine(lambda v: image.resize(v, (80,), method), x)
    centres = (np.arange(80) + 0.5) / 4 - 0.5
    inner = slice(16, -16)
    np.testing.assert_allclose(found[inner], ((centres / 10) ** degree)[inner], rtol=1e-4)


def test_integers_are_rounded_and_saturate(engine):
    x = np.array([0, 255, 255, 0, 0, 255], "u1")
    found = engine(lambda v: image.resize(v, (24,), "cubic"), x)
    assert found.dtype == np.uint8 and found.max() == 255 and found.min() == 0


def test_scale_and_translate_moves_and_leaves_zeros(engine):
    x = np.arange(1, 7, dtype="f4")
    found = engine(lambda v, s, t: image.scale_and_translate(v, (8,), (0,), s, t), x,
                   np.float32([1]), np.float32([2]))
    np.testing.assert_allclose(found, [0, 0, 1, 2, 3, 4, 5, 6])
    with pytest.raises(OpError, match="ranks differ"):
        image.scale_and_translate(x, (8, 8), (0,), [1.0], [1.0])


def test_resizing_has_a_gradient():
    slope = grad(lambda v: tnp.sum(image.resize(v, (9,), "cubic") * 2))(np.ones(3, "f4"))
    np.testing.assert_allclose(np.sum(np.asarray(slope)), 18, rtol=1e-5)


def test_a_homography_takes_its_points_along(engine):
    start = np.float32([[[0, 0], [9, 1], [10, 8], [1, 9]], [[2, 2], [8, 2], [8, 6], [2, 6]]])
    end = np.float32([[[1, 2], [8, 1], [9, 9], [0, 8]], [[0, 0], [9, 0], [9, 9], [0, 9]]])
    found = engine(image.homography, start, end)
    for parameters, here, there in zip(found, start, end, strict=True):
        matrix = np.append(parameters, 1).reshape(3, 3)
        moved = np.c_[there, np.ones(4)] @ matrix.T
        np.testing.assert_allclose(moved[:, :2] / moved[:, 2:], here, atol=1e-3)


def test_warping_by_the_identity_and_a_shift(engine):
    x = RNG.normal(size=(2, 4, 5, 3)).astype("f4")
    transforms = np.float32([[1, 0, 0, 0, 1, 0, 0, 0], [1, 0, 1, 0, 1, 2, 0, 0]])
    for coordinates in (image.affine_coordinates, image.homography_coordinates):
        found = engine(lambda v, t, c=coordinates: image.warp(v, c(t, 4, 5)), x, transforms)
        np.testing.assert_allclose(found[0], x[0], rtol=1e-6)
        np.testing.assert_allclose(found[1, :2, :4], x[1, 2:, 1:], rtol=1e-6)
        assert not found[1, 2:].any() and not found[1, :, 4].any()


@pytest.mark.parametrize("size", [(3, 5), (4, 1)])
def test_gaussian_blur(engine, size):
    x = RNG.normal(size=(2, 6, 7, 3)).astype("f4")
    sigma = np.float32([0.8, 1.5])
    windows = []
    for n, s in zip(size, sigma, strict=True):
        weights = np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / s) ** 2)
        windows.append(weights / weights.sum())
    before = [(n - 1) // 2 for n in size]
    wide = np.pad(x, ((0, 0), *((b, n - 1 - b) for n, b in zip(size, before, strict=True)), (0, 0)))
    expected = sum(windows[0][i] * windows[1][j] * wide[:, i:i + 6, j:j + 7]
                   for i in range(size[0]) for j in range(size[1]))
    found = engine(lambda v, s: image.gaussian_blur(v, size, s), x, sigma)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sobel_edges_of_a_ramp(engine):
    rows, columns = np.indices((5, 6), dtype="f4")
    found = engine(image.sobel_edges, (3 * rows + columns)[None, :, :, None])
    np.testing.assert_allclose(found[0, 1:-1, 1:-1, 0], np.broadcast_to([24, 8], (3, 4, 2)), rtol=1e-5)
