"""`tfn.numpy.fft` against NumPy: lengths, axes, norms, dtypes, gradients."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError
from tfn.compiler.trace.core import Array
from tfn.compiler.trace.grad import grad
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(3, 4, 5))
COMPLEX = REAL + 1j * RNG.normal(size=(3, 4, 5))


@pytest.mark.parametrize("norm", [None, "backward", "ortho", "forward"])
@pytest.mark.parametrize("n, axis", [(None, -1), (7, 1), (3, 0), (1, 2)])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_one_axis(name, n, axis, norm):
    x = REAL if name in ("rfft", "ihfft") else COMPLEX
    found = getattr(tnp.fft, name)(x, n, axis, norm)
    np.testing.assert_allclose(found, getattr(np.fft, name)(x, n, axis, norm), atol=1e-12)


@pytest.mark.parametrize("s, axes", [(None, None), (None, (0, 2)), ((4, 6), (2, 0)),
                                     ((2, 8), (-2, -1)), (None, (1,))])
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_several_axes(name, s, axes):
    x = REAL if name == "rfftn" else COMPLEX
    found = getattr(tnp.fft, name)(x, s, axes, "ortho")
    np.testing.assert_allclose(found, getattr(np.fft, name)(x, s, axes, "ortho"), atol=1e-12)


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_more_axes_than_one_op_has(name):
    x = RNG.normal(size=(2, 3, 2, 3, 4))
    np.testing.assert_allclose(getattr(tnp.fft, name)(x), getattr(np.fft, name)(x), atol=1e-12)


@pytest.mark.parametrize("name", ["fft2", "ifft2", "rfft2", "irfft2"])
def test_two_axes(name):
    np.testing.assert_allclose(getattr(tnp.fft, name)(REAL), getattr(np.fft, name)(REAL),
                               atol=1e-12)


@pytest.mark.parametrize("given, forward, back", [
    ("f4", "c8", "f4"), ("f8", "c16", "f8"), ("i4", "c8", "f4"), ("f2", "c8", "f4")])
def test_element_types(given, forward, back):
    x = np.arange(8).astype(given)
    assert tnp.fft.rfft(x).dtype == forward
    assert tnp.fft.fft(x).dtype == forward
    assert tnp.fft.irfft(x).dtype == back


@pytest.mark.parametrize("n", [5, 6])
def test_frequencies_and_shifts(n):
    np.testing.assert_allclose(tnp.fft.fftfreq(n, d=0.5), np.fft.fftfreq(n, 0.5))
    np.testing.assert_allclose(tnp.fft.rfftfreq(n, dtype="f8"), np.fft.rfftfreq(n))
    assert tnp.fft.fftfreq(n).dtype == np.float32
    for axes in (None, 1, (0, 2)):
        shifted = tnp.fft.fftshift(REAL, axes)
        np.testing.assert_array_equal(shifted, np.fft.fftshift(REAL, axes))
        np.testing.assert_array_equal(tnp.fft.ifftshift(shifted, axes), REAL)


def power(x):
    return tnp.sum(tnp.square(tnp.absolute(tnp.fft.rfft(x, norm="ortho", axis=1)))
                   * np.arange(3.0)[:, None])


def test_gradient_of_a_spectrum():
    slope = np.asarray(grad(power)(Array(REAL)))
    direction = RNG.normal(size=REAL.shape)
    ends = [float(power(Array(REAL + s * 1e-6 * direction))) for s in (1, -1)]
    np.testing.assert_allclose(np.sum(slope * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_round_trip_compiles():
    @jit
    def smooth(x):
        return tnp.fft.irfft(tnp.fft.rfft(x), n=5)

    np.testing.assert_allclose(smooth(REAL), REAL, atol=1e-12)


def test_errors():
    with pytest.raises(OpError, match=r"cannot transform axis 1 of \(3, 0\) with length 0"):
        tnp.fft.fft(np.ones((3, 0)))
    with pytest.raises(OpError, match="norm 'both' is not one of backward, ortho, forward"):
        tnp.fft.fft(REAL, norm="both")
    with pytest.raises(OpError, match="use fft"):
        tnp.fft.rfft(COMPLEX)
