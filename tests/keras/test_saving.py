"""`.keras` and `.weights.h5` files, and the program an exporter gets."""

import keras
import numpy as np
import pytest
from keras import layers

from tfn.compiler.compile import compile_function
from tfn.compiler.errors import TfnError
from tfn.compiler.ir.evaluator import evaluate
from tfn.export.bundle import Runner, read_bundle
from tfn.keras.export import trace_inference


def convolutional():
    model = keras.Sequential([
        keras.Input((8, 8, 2), name="image"), layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.BatchNormalization(), layers.MaxPooling2D(2), layers.Dropout(0.5), layers.Flatten(),
        layers.Dense(5, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.fixture
def trained(rng):
    model = convolutional()
    x = rng.standard_normal((20, 8, 8, 2)).astype("float32")
    model.fit(x, rng.integers(0, 5, 20), epochs=2, verbose=0)
    return model, x


def test_keras_files_bring_the_model_back(trained, tmp_path):
    model, x = trained
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    for a, b in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weight_files_bring_the_weights_back(trained, tmp_path):
    model, x = trained
    model.save_weights(tmp_path / "m.weights.h5")
    again = convolutional()
    again.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_weights_that_do_not_match_are_refused(trained, tmp_path):
    model, _ = trained
    model.save_weights(tmp_path / "m.weights.h5")
    other = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(7, 3), layers.Flatten()])
    with pytest.raises(ValueError, match=r"shape|layer|variable"):
        other.load_weights(tmp_path / "m.weights.h5")


@pytest.mark.parametrize("batch", [1, 7, 20])
def test_the_inference_program_is_the_model_for_any_batch(trained, batch):
    model, x = trained
    program = trace_inference(model)
    assert program.inputs[0][0] == "image"
    assert [str(d) for d in program.outputs[0][2]] == ["batch", "5"]
    arguments = [*program.weights.values(), x[:batch]]
    expected = model.predict(x[:batch], verbose=0)
    for run in (compile_function(program.function), lambda *a: evaluate(program.function, a)):
        np.testing.assert_allclose(run(*arguments)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_model_without_known_inputs_cannot_be_exported():
    with pytest.raises(TfnError, match="has no known inputs"):
        trace_inference(keras.Sequential([layers.Dense(2)]))


def test_unknown_dims_other_than_the_batch_are_refused():
    model = keras.Sequential([keras.Input((None, 3)), layers.Dense(2)])
    with pytest.raises(TfnError, match="only the batch may be unknown"):
        trace_inference(model)


def test_export_knows_the_formats_of_tfn(tmp_path):
    """`model.export` needs nothing but `import keras`; a format that is not tfn's is Keras's matter."""
    model = keras.Sequential([keras.Input((3,), name="row"), keras.layers.Dense(2)], name="small")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    folder = model.export(tmp_path, format="bundle")
    assert folder == tmp_path / "small" / "1"
    found = Runner(read_bundle(folder)).run({"row": x})["output_0"]
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-6)
    with pytest.raises(ValueError, match="floppy"):
        model.export(tmp_path, format="floppy")
