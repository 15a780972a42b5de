"""`tfn.numpy` as a module: its import path, its names, what the array API standard asks of it."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tfn.compiler.numpy as tnp


def run(script, cwd):
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=cwd)


@pytest.mark.parametrize("inside", [False, True], ids=["elsewhere", "in the repository"])
def test_every_way_to_import_it(repository, tmp_path, inside):
    """One module under both names, also its parts, and NumPy stays NumPy."""
    run("""
        import tfn.numpy as tnp
        import tfn.numpy.fft as fft
        from tfn.numpy import linalg
        from tfn.numpy.linalg import solve
        import tfn.compiler.numpy as same
        import numpy, sys, tfn
        assert tfn.numpy is tnp is same is sys.modules["tfn.numpy"]
        assert fft is tnp.fft and linalg is tnp.linalg and solve is linalg.solve
        assert tnp.__spec__.name == tnp.__name__ == "tfn.compiler.numpy"
        assert numpy.__name__ == "numpy" and not hasattr(numpy, "top_k")
        import tfn.nn, tfn.random, tfn.debug
        assert tfn.nn.__name__ == "tfn.compiler.nn"
        try:
            import tfn.numpy.nothing
        except ModuleNotFoundError as error:
            assert "nothing" in str(error)
        else:
            raise AssertionError
        try:
            import tfn.jit
        except ModuleNotFoundError:
            pass
        else:
            raise AssertionError("a function is not a module")
        """, repository if inside else tmp_path)


def test_importing_tfn_stays_cheap(tmp_path):
    run("""
        import tfn, sys
        assert not {"tfn.numpy", "tfn.compiler", "llvmlite", "numpy"} & sys.modules.keys()
        """, tmp_path)


def test_names():
    """No file of the package is a public name, and star-import gives what `dir` shows."""
    assert {"fft", "linalg", "einsum", "float32", "ndarray", "pi"} <= set(tnp.__all__)
    assert not {"creation", "elementwise", "math", "operators"} & set(dir(tnp))
    assert all(hasattr(tnp, name) for name in tnp.__all__)
    assert set(tnp.__all__) <= set(dir(tnp))


def test_constants():
    for name in ("pi", "e", "inf", "euler_gamma"):
        assert getattr(tnp, name) == getattr(np, name)
    assert tnp.newaxis is None and tnp.isnan(tnp.nan)


def test_what_the_standard_asks():
    x = tnp.ones((2, 3))
    assert x.__array_namespace__() is tnp is x.__array_namespace__(api_version="2024.12")
    with pytest.raises(ValueError, match="not one of"):
        x.__array_namespace__(api_version="1999.12")
    assert tnp.__array_api_version__ == "2024.12"
    info = tnp.__array_namespace_info__()
    assert info.default_device() == x.device == "cpu" and info.devices() == ["cpu"]
    assert info.default_dtypes()["real floating"] == x.dtype == np.float32
    assert info.dtypes(kind="complex floating") == {"complex64": np.dtype("c8"),
                                                    "complex128": np.dtype("c16")}


@pytest.mark.parametrize("code", ["i1", "i2", "i4", "i8", "u1", "u8", "f2", "f4", "f8", "c8", "?"])
def test_codes_of_element_types_are_numpys(code):
    """StableHLO's i8 has 8 bits, NumPy's 8 bytes: in `tfn.numpy` it is NumPy's."""
    assert tnp.asarray([0, 1], code).dtype == np.dtype(code)
    assert tnp.zeros(2, code).dtype == np.dtype(code)
    assert tnp.ones(2).astype(code).dtype == np.dtype(code)
    assert tnp.isdtype(code, np.dtype(code))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "i8", "u8", "c16"])
def test_element_types_are_kept_beside_python_numbers(dtype):
    x = tnp.zeros(3, dtype)
    assert (x + 1).dtype == (2 * x).dtype == x.dtype == (x ** 2).dtype
    if np.dtype(dtype).kind in "fc":
        assert (x + 1.5).dtype == (x / 3).dtype == x.dtype
        assert tnp.maximum(x.real, 0.5).dtype == x.real.dtype


def test_zero_copy_from_an_aligned_array():
    x = np.arange(6.0)
    for view in (tnp.asarray(x), tnp.from_dlpack(x), tnp.frombuffer(x, "f8"), tnp.asarray(x[::2])):
        assert np.shares_memory(np.asarray(view), x)
        assert not np.asarray(view).flags.writeable
    assert not np.shares_memory(np.asarray(tnp.array(x)), x)
    assert np.shares_memory(np.from_dlpack(tnp.asarray(x)), x)
