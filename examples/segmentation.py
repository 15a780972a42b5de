"""Segment drawn shapes: a U-Net says of every pixel whether it is background, disc or square.

    tfn train examples/segmentation.py --epochs 5 --out runs/segmentation

Colours are drawn at random, so only the outline tells a disc from a square. After 5 epochs the mean
intersection over union (IoU) on new pictures is at least 0.80.
"""

import sys

import keras
import numpy as np
from keras import layers

SIZE, CLASSES = 24, 3


def block(x, channels: int):
    """Two convolutions, each with batch normalisation."""
    for _ in range(2):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    return x


def build_model(widths=(12, 24), bottom: int = 48) -> keras.Model:
    """A U-Net: down by pooling, up by transposed convolutions, with a bridge at every size."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x, bridges = image, []
    for channels in widths:
        x = block(x, channels)
        bridges.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, bottom)
    for channels, bridge in zip(reversed(widths), reversed(bridges), strict=True):
        x = layers.Conv2DTranspose(channels, 2, strides=2)(x)
        x = block(layers.Concatenate()([x, bridge]), channels)
    classes = layers.Conv2D(CLASSES, 1, activation="softmax", name="classes")(x)
    model = keras.Model(image, classes)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, 630)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy",
                  metrics=[keras.metrics.MeanIoU(CLASSES, sparse_y_pred=False, name="iou")])
    return model


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture of two shapes, which may hide each other, and the class of each pixel."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.full((SIZE, SIZE, 3), rng.uniform(size=3), "float32")
    classes = np.zeros((SIZE, SIZE), "int32")
    for shape in rng.integers(1, CLASSES, size=2):
        across, down, radius = *rng.uniform(3, SIZE - 3, size=2), rng.uniform(4, 8)
        if shape == 1:
            inside = (x - across) ** 2 + (y - down) ** 2 < radius ** 2
        else:
            inside = np.maximum(abs(x - across), abs(y - down)) < radius
        image[inside], classes[inside] = rng.uniform(size=3), shape
    return image + rng.normal(0, 0.05, image.shape).astype("float32"), classes


def load_data(examples: int = 4000):
    """`((images, classes), (images, classes))`: float32 (n, 24, 24, 3) and int32 (n, 24, 24)."""
    rng = np.random.default_rng(0)
    images, classes = map(np.stack, zip(*(draw(rng) for _ in range(examples + 400)), strict=True))
    return (images[:examples], classes[:examples]), (images[examples:], classes[examples:])


def main(picture: str | None = None, *, epochs: int = 5, examples: int = 4000) -> float:
    """Train; returns the mean IoU on new pictures, and draws some of them to the file `picture`."""
    keras.utils.set_random_seed(0)
    model = build_model()
    training, (images, classes) = load_data(examples)
    model.fit(*training, validation_data=(images, classes), epochs=epochs, verbose=2)
    score = model.evaluate(images, classes, verbose=0, return_dict=True)["iou"]
    print(f"mean IoU {score:.3f}")
    if picture:
        import matplotlib.pyplot as plt

        found = model.predict(images[:8], verbose=0).argmax(-1)
        rows = images[:8].clip(0, 1), *(plt.cm.viridis(c / 2)[..., :3] for c in (classes[:8], found))
        plt.imsave(picture, np.kron(np.vstack([np.hstack(row) for row in rows]), np.ones((3, 3, 1))))
    return score


if __name__ == "__main__":
    main(*sys.argv[1:])
