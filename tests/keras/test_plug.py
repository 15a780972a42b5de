"""The plug: Keras loads on tfn, and what it does not know fails loudly."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfn
from tfn.compiler.trace.core import Array
from tfn.keras import plug
from tfn.keras.backend.missing import MissingOp, missing


def run(code, python=sys.executable, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, env=env,
                          timeout=120)


@pytest.fixture
def beside_jax(jax_python, repository, tmp_path):
    """Run code where Keras can choose jax, with tfn importable from its sources."""
    (tmp_path / "tfn").symlink_to(repository)
    return lambda code: run(code, jax_python, KERAS_BACKEND="jax", PYTHONPATH=str(tmp_path))


def test_keras_is_upstreams_on_our_backend():
    assert keras.backend.backend() == "tfn"
    assert keras.__version__.startswith("3.15")
    assert isinstance(keras.ops.ones((2,)), Array)


@pytest.mark.parametrize("module", plug.GRAFTS)
def test_every_graft_applies_to_the_installed_keras(module):
    source = importlib.util.find_spec(module).loader.get_source(module)
    assert "tfn" in {node.value for node in plug.ast.walk(plug.graft(module, source))
                     if isinstance(node, plug.ast.Constant)}


@pytest.mark.parametrize("source", ["x = 1", "if backend() == 'a':\n    pass\nelse:\n    pass"])
def test_an_unknown_layout_of_keras_is_refused(source):
    with pytest.raises(ImportError, match=r"does not support this version of Keras.*install"):
        plug.graft("keras.src.backend", source)


@pytest.mark.parametrize("version", ["3.14.1", "3.16.0", "2.15.0"])
def test_another_version_of_keras_is_refused(version, tmp_path):
    """By what stands first on the path: a Keras of that version, as far as it has to be read."""
    source = tmp_path / "keras" / "src"
    (source / "backend").mkdir(parents=True)
    (tmp_path / "keras" / "__init__.py").write_text("from keras.src import backend\n")
    (source / "__init__.py").write_text("")
    (source / "version.py").write_text(f'__version__ = "{version}"\n')
    original = importlib.util.find_spec("keras.src.backend").loader.get_source("keras.src.backend")
    (source / "backend" / "__init__.py").write_text(original)
    done = run(f"import sys, tfn; sys.path.insert(0, {str(tmp_path)!r}); import keras")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: tfn runs Keras 3.15, and Keras {version} is installed: pip install"
        " 'keras==3.15.*'")


@pytest.mark.outside("jax")
def test_keras_first_is_refused(beside_jax):
    done = beside_jax("import keras; import tfn; tfn.keras.layers")
    assert done.returncode == 1
    assert "put `import tfn` first" in done.stderr


@pytest.mark.outside("jax")
@pytest.mark.parametrize("imports", ["keras, tfn", "tfn, keras"])
def test_other_backends_are_left_alone(beside_jax, imports):
    done = beside_jax(f"import {imports}; print(keras.backend.backend(), keras.ops.ones(2).sum())")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["jax", "2.0"]


def test_no_other_framework_is_loaded():
    done = run("import tfn, keras, sys; print(sorted({'jax', 'torch', 'tensorflow', 'scipy'}"
               " & set(sys.modules)))", KERAS_BACKEND="tfn")
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_keras_loads_no_code_generator():
    """It is half of the time that tfn adds; what runs eagerly needs none."""
    done = run("import tfn, keras, sys; keras.ops.ones(2); print(sorted(m for m in sys.modules if m"
               ".startswith(('llvmlite', 'tfn.compiler.codegen', 'tfn.compiler.passes',"
               " 'tfn.compiler.compile', 'tfn.distributed.partition', 'mpi4py'))))",
               KERAS_BACKEND="tfn")
    assert done.stdout.strip() == "[]", done.stderr


def test_dynamic_backend_reaches_ours():
    from keras.src.utils.backend_utils import DynamicBackend

    dynamic = DynamicBackend()
    assert isinstance(dynamic.numpy.ones((1,)), Array)
    dynamic.set_backend("tfn")
    assert dynamic.name == "tfn"


def test_a_missing_op_is_both_kinds_of_error():
    with pytest.raises(MissingOp, match=r"test_plug.py:\d+: the Keras op `dance`") as caught:
        missing("dance")(1)
    assert isinstance(caught.value, NotImplementedError)
    assert isinstance(caught.value, AttributeError)


def test_a_layer_whose_shapes_depend_on_values_goes_the_way_it_has_for_jax():
    """Inside of a program a histogram of unknown length could not be."""
    images = np.random.default_rng(0).integers(0, 200, (2, 8, 8, 3)).astype("uint8")
    layer = keras.layers.Equalization(value_range=(0, 255))
    traced = tfn.jit(lambda x: layer(x))(images)
    np.testing.assert_array_equal(np.asarray(traced), np.asarray(layer(images)))
    assert np.asarray(traced).max() == 255


def test_a_quantised_embedding_takes_lora():
    layer = keras.layers.Embedding(10, 16)
    layer.build()
    layer.quantize("int4")
    layer.enable_lora(2)
    assert len(layer.trainable_variables) == 2
    assert layer(np.int32([[1, 2]])).shape == (1, 2, 16)
