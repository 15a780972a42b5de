"""Arrays in files and as text; NumPy reads what is written and writes what is read."""

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.trace.jit import jit


@pytest.mark.parametrize("dtype", ["?", "i1", "u8", "f2", "f4", "c16"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_one_array(tmp_path, shape, dtype):
    x = np.ones(shape, dtype)
    tnp.save(tmp_path / "x.npy", tnp.asarray(x))
    read = np.load(tmp_path / "x.npy")
    assert read.dtype == x.dtype and read.shape == shape
    np.save(tmp_path / "y.npy", x)
    back = tnp.load(tmp_path / "y.npy")
    assert isinstance(back, tnp.Array) and back.dtype == x.dtype
    np.testing.assert_array_equal(back, x)


def test_several_arrays(tmp_path):
    tnp.savez(tmp_path / "x.npz", tnp.ones(2), weights=tnp.zeros((1, 2)))
    with np.load(tmp_path / "x.npz") as read:
        assert sorted(read.files) == ["arr_0", "weights"] and read["weights"].shape == (1, 2)
    assert tnp.load(tmp_path / "x.npz")["arr_0"].tolist() == [1, 1]


def test_bfloat16_survives(tmp_path):
    x = np.array([1.5, -2, np.inf]).astype(ml_dtypes.bfloat16)
    tnp.save(tmp_path / "x.npy", x)
    back = tnp.load(tmp_path / "x.npy")
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back, x)
    with pytest.raises(OpError, match="save cannot store elements of float8_e4m3fn"):
        tnp.save(tmp_path / "y.npy", x.astype(ml_dtypes.float8_e4m3fn))


def test_objects_are_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        tnp.load(tmp_path / "x.npy")


def test_a_traced_array_cannot_be_written(tmp_path):
    with pytest.raises(UnsupportedError, match="save of a traced array"):
        jit(lambda v: tnp.save(tmp_path / "x.npy", v))(np.ones(2))


def test_numbers_from_bytes_text_and_iterables(tmp_path):
    np.arange(4, dtype="f4").tofile(tmp_path / "raw")
    assert tnp.fromfile(tmp_path / "raw").tolist() == [0, 1, 2, 3]
    assert tnp.fromfile(tmp_path / "raw", "u1", count=2).dtype == np.uint8
    assert tnp.fromstring("1, 2.5", sep=",").dtype == np.float32
    assert tnp.fromstring("1 2 3", dtype=int, sep=" ").tolist() == [1, 2, 3]
    assert tnp.fromiter((i * i for i in range(4)), "i8").tolist() == [0, 1, 4, 9]
    assert tnp.fromiter(range(9), int, 2).dtype == np.int32


def test_text():
    x = tnp.asarray([1.0, 2.123456789, 1e-9])
    shown = tnp.array_repr(x, precision=2, suppress_small=True)
    assert shown == "Array([1.  , 2.12, 0.  ], dtype=float32)"
    assert tnp.array_str(x, precision=2) == np.array_str(np.asarray(x), precision=2)
    assert tnp.array_repr(x) == repr(x)
    with tnp.printoptions(precision=1):
        assert repr(x).startswith("Array([1.0e+00, 2.1e+00")
    assert tnp.get_printoptions() == np.get_printoptions()
