"""Short-time Fourier transforms against frames taken and transformed one by one."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError

RNG = np.random.default_rng(0)
SHAPES = [(8, 2, 40, ()), (8, 8, 33, (2,)), (7, 3, 30, (2, 3)), (4, 5, 21, ())]


def frames(x, length, stride):
    starts = range(0, x.shape[-1] - length + 1, stride)
    return np.stack([x[..., s:s + length] for s in starts], -2)


@pytest.mark.parametrize(("length", "stride", "size", "batch"), SHAPES)
@pytest.mark.parametrize("n", [None, 12])
def test_stft(engine, length, stride, size, batch, n):
    x = RNG.normal(size=(*batch, size)).astype("f4")
    window = RNG.uniform(0.1, 1, length).astype("f4")
    found = engine(lambda a, w: tnp.stft(a, w, stride, n), x, window)
    np.testing.assert_allclose(found, np.fft.rfft(frames(x, length, stride) * window, n),
                               rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("length", "stride", "size", "batch"), SHAPES)
def test_overlap_add(engine, length, stride, size, batch):
    parts = RNG.normal(size=(*batch, 5, length)).astype("f4")
    expected = np.zeros((*batch, 4 * stride + length))
    for i in range(5):
        expected[..., i * stride:i * stride + length] += parts[..., i, :]
    np.testing.assert_allclose(engine(lambda p: tnp.overlap_add(p, stride), parts), expected,
                               rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("length", "stride"), [(8, 2), (8, 4), (9, 3), (12, 5)])
def test_istft_inverts_stft_where_all_frames_overlap(engine, length, stride):
    x = RNG.normal(size=(2, 60)).astype("f4")
    window = np.hanning(length + 1)[:-1].astype("f4") + 0.1
    back = engine(lambda a, w: tnp.istft(tnp.stft(a, w, stride, 16), w, stride, 16), x, window)
    inner = slice(length, back.shape[-1] - length)
    np.testing.assert_allclose(back[:, inner], x[:, inner], rtol=1e-4, atol=1e-5)


def test_a_dual_window_is_zero_where_no_frame_has_weight():
    np.testing.assert_allclose(tnp.dual_window([0.0, 2.0, 4.0, 0.0], 4), [0, 0.5, 0.25, 0])


def test_what_does_not_overlap_is_an_error():
    with pytest.raises(OpError, match=r"count, length"):
        tnp.overlap_add(np.zeros(3), 1)
