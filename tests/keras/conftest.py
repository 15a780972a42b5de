"""Fixtures of the Keras tests."""

import numpy as np
import pytest

import tfn  # noqa: F401  (before keras)

import keras  # isort: skip


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def fresh_state():
    """Names and seeds do not leak from test to test."""
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session()


@pytest.fixture(scope="session")
def digits(repository):
    """`(images, labels)` of the handwritten digits."""
    with np.load(repository / "examples" / "digits.npz") as data:
        return (data["images"].astype("float32")[..., None] / 16, data["labels"].astype("int32"))
