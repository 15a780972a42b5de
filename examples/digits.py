"""Recognise handwritten digits: a small convolutional network on 8x8 scans.

    tfn train examples/digits.py --epochs 12 --out runs/digits

A recipe has two functions: `build_model()` returns a compiled `keras.Model`, `load_data()` the training
and validation data. The data is described in DIGITS.md.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers


def build_model(dropout: float = 0.25) -> keras.Model:
    """Two convolutions and two dense layers; about 38,000 weights."""
    model = keras.Sequential([
        keras.Input((8, 8, 1), name="image"),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dropout(dropout),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ])
    model.compile(optimizer=keras.optimizers.Adam(2e-3),
                  loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_data():
    """`((images, labels), (images, labels))`: 1,437 to train on, 360 to validate.

    Images are float32 of shape (n, 8, 8, 1) in 0..1, labels int32.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as data:
        images = data["images"].astype("float32")[..., None] / 16
        labels = data["labels"].astype("int32")
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])
