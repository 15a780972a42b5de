"""Find scans that show the same digit without ever being told a digit: contrastive learning.

    tfn train examples/similarity.py --epochs 30 --out runs/similarity

A scan is placed twice in a frame, anywhere and with noise; the two pictures are to become unit
vectors near each other and far from those of all other scans (Chen et al., "A Simple Framework for
Contrastive Learning", 2020). No label is used. After 30 epochs, of new scans placed anywhere, the
nearest other one shows the same digit in at least 0.85 of cases; by the likeness of pixels, in 0.47.
"""

import digits
import keras
import numpy as np
from keras import layers, ops

FRAME = 14


def place(scans: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scans (n, 8, 8, 1), each somewhere in a frame (n, 14, 14, 1)."""
    images = np.zeros((len(scans), FRAME, FRAME, 1), "float32")
    corners = rng.integers(FRAME - 7, size=(len(scans), 2))
    for image, scan, (down, across) in zip(images, scans, corners, strict=True):
        image[down:down + 8, across:across + 8] = scan
    return images


class Pairs(keras.utils.PyDataset):
    """Batches of images, each scan twice, and the number of the scan: what is to be near what."""

    def __init__(self, scans: np.ndarray, pairs: int = 64):
        super().__init__()
        self.scans, self.pairs, self.rng = scans, pairs, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.scans) // self.pairs

    def __getitem__(self, index):
        chosen = self.rng.choice(len(self.scans), self.pairs, replace=False).repeat(2)
        return place(self.scans[chosen], self.rng), chosen.astype("int32")


@keras.saving.register_keras_serializable("similarity")
def contrastive_loss(scan, vectors, temperature: float = 0.2):
    """How little of each vector's likeness to the rest of the batch goes to the same scan's, (n,)."""
    scan, myself = ops.reshape(scan, (-1, 1)), ops.eye(ops.shape(vectors)[0])
    likeness = ops.matmul(vectors, ops.transpose(vectors)) / temperature - 1e9 * myself
    same = ops.cast(ops.equal(scan, ops.transpose(scan)), "float32") - myself
    return ops.logsumexp(likeness, axis=1) - ops.sum(same * likeness, axis=1)


def build_model(size: int = 32) -> keras.Model:
    """A small convolutional network that ends in a unit vector."""
    model = keras.Sequential([
        keras.Input((FRAME, FRAME, 1), name="image"),
        layers.GaussianNoise(0.05),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.Conv2D(64, 3, activation="relu"),
        layers.GlobalMaxPooling2D(),
        layers.Dense(size),
        layers.UnitNormalization(name="vector"),
    ])
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=contrastive_loss)
    return model


def load_data():
    """Training and validation batches."""
    (training, _), (validation, _) = digits.load_data()
    return Pairs(training), Pairs(validation)


def retrieve(vectors: np.ndarray, labels: np.ndarray) -> float:
    """For how many unit vectors the nearest other one has the same label."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1)
    return float((labels[likeness.argmax(1)] == labels).mean())


def main(*, epochs: int = 30) -> float:
    """Train; returns the part of new scans whose nearest neighbour shows the same digit."""
    keras.utils.set_random_seed(0)
    model = build_model()
    training, validation = load_data()
    model.fit(training, validation_data=validation, epochs=epochs, verbose=2)
    _, (scans, labels) = digits.load_data()
    images = place(scans, np.random.default_rng(1))
    score = retrieve(model.predict(images, verbose=0), labels)
    pixels = keras.utils.normalize(images.reshape(len(images), -1))
    print(f"same digit {score:.3f}, by pixels {retrieve(pixels, labels):.3f}")
    return score


if __name__ == "__main__":
    main()
