"""`keras.ops` that have forms of their own, against NumPy."""

import keras
import numpy as np
import pytest

import tfn

RANDOM = np.random.default_rng(0)
RE, IM = (RANDOM.standard_normal((3, 4, 8)).astype("float32") for _ in range(2))


@pytest.mark.parametrize("name", ["fft", "fft2", "ifft2"])
def test_complex_transforms_take_and_give_pairs(name):
    expected = getattr(np.fft, name)(RE + 1j * IM)
    for part, right in zip(getattr(keras.ops, name)((RE, IM)), (expected.real, expected.imag),
                           strict=True):
        np.testing.assert_allclose(np.asarray(part), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [None, 6, 11])
def test_real_transforms(length):
    expected = np.fft.rfft(RE, length)
    real, imaginary = keras.ops.rfft(RE, fft_length=length)
    np.testing.assert_allclose(np.asarray(real), expected.real, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(imaginary), expected.imag, rtol=1e-4, atol=1e-5)
    back = keras.ops.irfft((real, imaginary), fft_length=length)
    np.testing.assert_allclose(np.asarray(back), np.fft.irfft(expected, length), rtol=1e-4, atol=1e-5)


def test_a_complex_tensor_is_a_pair():
    with pytest.raises(ValueError, match="pair"):
        tfn.keras.backend.ops.math.fft(RE)


def test_splits_along_the_third_axis():
    for found, right in zip(keras.ops.dsplit(RE, [3, 5]), np.dsplit(RE, [3, 5]), strict=True):
        np.testing.assert_array_equal(np.asarray(found), right)


def test_argpartition_puts_the_kth_in_its_place():
    order = np.asarray(keras.ops.argpartition(RE, 3, axis=-1))
    values = np.take_along_axis(RE, order, -1)
    np.testing.assert_array_equal(values[..., 3], np.sort(RE, -1)[..., 3])
    assert (values[..., :3] <= values[..., 3:4]).all() and (values[..., 4:] >= values[..., 3:4]).all()


@pytest.mark.parametrize("compiled", [False, True], ids=["traced", "jit"])
def test_a_gradient_of_ones_own(compiled):
    """The textbook case: log(1 + exp(x)) has no usable gradient of its own at 100."""
    @keras.ops.custom_gradient
    def log1pexp(x):
        e = keras.ops.exp(x)

        def gradient(*args, upstream=None):
            (upstream,) = args if upstream is None else (upstream,)
            return keras.ops.multiply(upstream, 1.0 - 1.0 / keras.ops.add(1, e))

        return keras.ops.log(1 + e), gradient

    slope = tfn.grad(lambda x: log1pexp(x) * 2.0)
    slope = tfn.jit(slope) if compiled else slope
    assert float(slope(keras.ops.convert_to_tensor(100.0))) == 2.0
    assert float(log1pexp(keras.ops.convert_to_tensor(0.0))) == pytest.approx(np.log(2))
