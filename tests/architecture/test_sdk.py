"""`import tfn`: every public name is there, and nothing is loaded before it is asked for."""

import subprocess
import sys

import pytest

import tfn


@pytest.mark.parametrize("name", tfn.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(tfn, name) is not None
    assert name in dir(tfn)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tfn' has no attribute 'jitt'"):
        _ = tfn.jitt


def test_importing_tfn_loads_no_library() -> None:
    code = (
        "import sys, tfn; print(sorted({'numpy', 'llvmlite', 'keras', 'fastapi'} & {*sys.modules}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


def test_arrays_have_operators_without_the_numpy_module() -> None:
    code = ("import numpy, tfn; f = tfn.jit(lambda x: (x @ x).sum());"
            "print(float(f(numpy.array([[1.0, 2.0], [3.0, 4.0]]))))")
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout == "54.0\n"
