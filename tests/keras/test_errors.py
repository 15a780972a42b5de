"""Mistakes in Keras models: the report names the line of the user's layer, whatever Keras does with
the error on its way out, and the layer of Keras when the user's line is only `fit`."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfn
from tfn.compiler.errors import TraceError

X = np.linspace(0, 1, 24, dtype=np.float32).reshape(8, 3)
Y = np.ones((8, 2), np.float32)


class Branch(layers.Layer):
    def call(self, x):
        if ops.sum(x) > 0:  # wrong
            return x
        return -x


class NumPy(layers.Layer):
    def call(self, x):
        return np.sin(x)  # wrong


class Number(layers.Layer):
    def call(self, x):
        return x * float(ops.mean(x))  # wrong


class Product(layers.Layer):
    def build(self, shape):
        self.w = self.add_weight((5, 2))

    def call(self, x):
        return ops.matmul(x, self.w)  # wrong


class Assignment(layers.Layer):
    def call(self, x):
        x[:, 0] = 1.0  # wrong
        return x


class Logarithm(layers.Layer):
    def call(self, x):
        return ops.log(x - 2)  # wrong


class Keeping(layers.Layer):
    def call(self, x):
        self.mean = ops.mean(x)  # wrong
        return x


class Model(keras.Model):
    """A subclassed model: its first layer is built when data comes."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.last = layer, layers.Dense(2)

    def call(self, x):
        return self.last(self.first(x))


def subclassed(layer):
    return Model(layer)


def functional(layer):
    return keras.Sequential([keras.Input((3,)), layer, layers.Dense(2)])


def fitted(model, **options):
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0, **options)
    return model


def place_of(layer: type) -> str:
    """FILE:LINE of the line of `layer` that is wrong."""
    with open(__file__) as source:
        lines = source.read().splitlines()
    start = lines.index(f"class {layer.__name__}(layers.Layer):")
    line = next(i for i in range(start, len(lines)) if lines[i].endswith("# wrong"))
    return f"{__file__}:{line + 1}:"


MISTAKES = [
    (Branch, "ops.sum(x) > 0", "cond"), (NumPy, "np.sin(x)", "tfn.numpy"),
    (Number, "float(ops.mean(x))", "run_eagerly=True"),
    (Product, "ops.matmul(x, self.w)", "(3) must equal 5"),
    (Assignment, "x[:, 0]", ".at[key].set(value)"),
]


@pytest.mark.parametrize("build", [subclassed, functional])
@pytest.mark.parametrize(("layer", "underlined", "words"), MISTAKES, ids=lambda v: getattr(
    v, "__name__", ""))
def test_the_line_of_the_layer(layer, underlined, words, build):
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        fitted(build(layer()))
    report = str(caught.value)
    assert place_of(layer) in report
    assert words in report
    before, carets = report.split("\n    ", 2)[1:]
    carets = carets.split("\x1b")[0].split("\n")[0]
    assert before[carets.index("^"):carets.rindex("^") + 1] == underlined


def test_what_stands_for_an_unknown_batch_is_explained():
    with pytest.raises(ValueError, match="must equal 5") as caught:
        functional(Product())
    assert "matmul of (83, 3) and (5, 2)" in str(caught.value)
    assert "(83 stands for a size that is not known yet)" in str(caught.value)


@pytest.mark.parametrize("build", [subclassed, functional])
def test_a_nan_names_the_line_of_the_layer(build):
    with tfn.debug.check_nans(), pytest.raises(FloatingPointError) as caught:
        fitted(build(Logarithm()))
    report = str(caught.value)
    assert report.startswith(place_of(Logarithm) + " stablehlo.log made a NaN, in tensor<8x3xf32>")
    assert report.splitlines()[-1].strip() == "^" * len("ops.log(x - 2)")


def test_a_nan_of_a_layer_of_keras_names_that_layer():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, kernel_initializer="ones")])
    with tfn.debug.check_nans(infs=True), pytest.raises(FloatingPointError) as caught:
        model.predict(np.full((8, 3), 3e38, np.float32), verbose=0)
    report = str(caught.value)
    assert "stablehlo.dot_general made a NaN or an infinity" in report
    assert "(in Dense.call, keras/src/layers/core/dense.py:" in report
    assert "model.predict(" in report


def test_a_nan_in_the_data_is_called_that():
    data = X.copy()
    data[3, 1] = np.nan
    with tfn.debug.check_nans(), pytest.raises(FloatingPointError) as caught:
        model = functional(layers.Dense(3))
        model.compile("sgd", "mse")
        model.fit(data, Y, verbose=0)
    assert "the argument data[0], tensor<8x3xf32>, holds a NaN" in str(caught.value)
    assert "model.fit(data, Y, verbose=0)" in str(caught.value)


def test_a_loss_of_the_wrong_shape_names_the_loss():
    with pytest.raises(ValueError, match="operands of shapes") as caught:
        model = functional(layers.Dense(3))
        model.compile("sgd", "mse")
        model.fit(X, np.zeros((8, 5), np.float32), verbose=0)
    assert "(8, 5) and (8, 2)" in str(caught.value)
    assert "(in mean_squared_error, keras/src/losses/losses.py:" in str(caught.value)


def test_a_leaked_value_says_where_it_was_made():
    model = fitted(subclassed(Keeping()))
    with pytest.raises(TraceError, match="leaked out of the function") as caught:
        float(model.first.mean)
    assert f"it was made at {place_of(Keeping)}" in str(caught.value)


def test_printing_in_a_layer(capsys):
    class Printing(layers.Layer):
        def call(self, x):
            tfn.debug.print("mean {:.2f}", ops.mean(x))
            return x

    model = fitted(functional(Printing()), epochs=2)
    model.predict(X, verbose=0)
    assert capsys.readouterr().out.splitlines() == ["mean 0.50"] * 3


# -- arrays that others hold -----------------------------------------------------------------------

def test_an_array_somebody_holds_is_not_overwritten_by_training():
    """Training donates its state: a target network, or a value kept from before, must not follow."""
    model, target = functional(layers.Dense(3)), functional(layers.Dense(3))
    fitted(model)
    for mine, theirs in zip(target.variables, model.variables, strict=True):
        mine.assign(theirs.value)
    held = model.variables[0].value
    before, values = [w.copy() for w in target.get_weights()], np.array(held)
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(np.asarray(held), values)
    for w, old in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(w, old)
    assert not np.array_equal(model.get_weights()[0], values)


# -- training that goes wrong, and models that cannot be saved ---------------------------------------

def test_a_loss_of_nan_ends_training_where_asked():
    model = functional(Logarithm())
    model.compile("sgd", "mse")
    history = model.fit(X, Y, epochs=5, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()])
    assert len(history.epoch) == 1 and np.isnan(history.history["loss"][0])


class Scaled(layers.Layer):
    """Its argument has no form in a file."""

    def __init__(self, by, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def call(self, x):
        return x * self.by()


def test_what_cannot_be_saved_says_so_and_leaves_no_file(tmp_path):
    model = fitted(functional(Scaled(lambda: 2.0)))
    with pytest.raises(NotImplementedError, match=r"Scaled(.|\n)*get_config"):
        model.save(tmp_path / "model.keras")
    # What is exported is the program, which needs no class of Python.
    from tfn.keras import trace_inference

    assert trace_inference(model).weights


def test_a_layer_that_is_not_known_is_named(tmp_path):
    class Unknown(layers.Layer):
        def call(self, x):
            return x

    functional(Unknown()).save(tmp_path / "model.keras")
    from tfn.keras.loading import load

    with pytest.raises(ValueError, match=r"Could not locate class 'Unknown'.*register_keras_serial"):
        load(tmp_path / "model.keras")
