"""Draw the digit that is asked for: a diffusion model, which makes a picture out of noise step by step.

    tfn train examples/diffusion.py --epochs 30 --out runs/diffusion

The network learns to see the noise in a scan, given how much there is and which digit it was (Ho et
al., "Denoising Diffusion Probabilistic Models", 2020). From pure noise it then takes away a little, 50
times. The judge is the convolutional network of digits.py, trained on real scans: after 30 epochs it
reads at least 0.90 of the drawn digits as what was asked for. `python examples/diffusion.py drawn.png`
shows some.
"""

import sys

import digits
import keras
import numpy as np
from keras import layers

STEPS = 50
# How much of the variance is still the scan's after each step: a cosine (Nichol and Dhariwal, 2021).
KEPT = np.cos(np.linspace(0.02, 0.99, STEPS) * np.pi / 2) ** 2


class Noised(keras.utils.PyDataset):
    """Batches of ((noisy scan, step, digit), noise), with new noise each time."""

    def __init__(self, scans, labels, batch_size: int = 64, copies: int = 4):
        super().__init__()
        self.scans, self.labels = np.repeat(2 * scans - 1, copies, 0), np.repeat(labels, copies)
        self.batch_size, self.rng = batch_size, np.random.default_rng(0)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.scans) // self.batch_size

    def __getitem__(self, index):
        chosen = self.order[index * self.batch_size:(index + 1) * self.batch_size]
        step = self.rng.integers(STEPS, size=len(chosen), dtype="int32")
        noise = self.rng.normal(size=(len(chosen), 8, 8, 1)).astype("float32")
        kept = KEPT[step].reshape(-1, 1, 1, 1).astype("float32")
        noisy = np.sqrt(kept) * self.scans[chosen] + np.sqrt(1 - kept) * noise
        return {"scan": noisy, "step": step, "digit": self.labels[chosen]}, noise

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.scans))


def build_model(width: int = 256, blocks: int = 3) -> keras.Model:
    """Dense blocks with residuals; step and digit are vectors that are added in each."""
    scan = keras.Input((8, 8, 1), name="scan")
    step = keras.Input((), dtype="int32", name="step")
    digit = keras.Input((), dtype="int32", name="digit")
    known = layers.Embedding(STEPS, width)(step) + layers.Embedding(10, width)(digit)
    x = layers.Dense(width)(layers.Flatten()(scan))
    for _ in range(blocks):
        y = layers.LayerNormalization()(x + layers.Dense(width)(known))
        x += layers.Dense(width)(layers.Dense(width, activation="silu")(y))
    noise = layers.Reshape((8, 8, 1), name="noise")(layers.Dense(64)(layers.LayerNormalization()(x)))
    model = keras.Model({"scan": scan, "step": step, "digit": digit}, noise)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return model


def load_data():
    """Training and validation batches."""
    training, validation = digits.load_data()
    return Noised(*training), Noised(*validation)


def draw(model: keras.Model, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """A scan for each label, float32 (n, 8, 8, 1) in 0..1."""
    rng = np.random.default_rng(seed)
    scan = rng.normal(size=(len(labels), 8, 8, 1))
    for step in reversed(range(STEPS)):
        given = {"scan": scan.astype("float32"), "step": np.full_like(labels, step), "digit": labels}
        noise = model.predict_on_batch(given)
        kept, before = KEPT[step], KEPT[step - 1] if step else 1.0
        clean = ((scan - np.sqrt(1 - kept) * noise) / np.sqrt(kept)).clip(-1, 1)
        # The mean and variance of the step before, given this one and the scan (equations 6 and 7).
        scan = (np.sqrt(before) * (1 - kept / before) * clean
                + np.sqrt(kept / before) * (1 - before) * scan) / (1 - kept)
        scan += np.sqrt((1 - before) / (1 - kept) * (1 - kept / before)) * rng.normal(size=scan.shape)
    return ((scan + 1) / 2).clip(0, 1).astype("float32")


def main(picture: str | None = None, *, epochs: int = 30, judge_epochs: int = 12) -> float:
    """Train; returns how many drawn digits a classifier reads as what was asked for."""
    keras.utils.set_random_seed(0)
    model = build_model()
    training, validation = load_data()
    model.fit(training, validation_data=validation, epochs=epochs, verbose=2)
    judge = digits.build_model()
    judge.fit(*digits.load_data()[0], epochs=judge_epochs, verbose=0)
    labels = np.tile(np.arange(10, dtype="int32"), 30)
    drawn = draw(model, labels)
    score = judge.evaluate(drawn, labels, verbose=0, return_dict=True)["accuracy"]
    print(f"read as asked for {score:.3f}")
    if picture:
        import matplotlib.pyplot as plt

        sheet = np.pad(drawn[:80].reshape(8, 10, 8, 8), [(0, 0), (0, 0), (1, 1), (1, 1)])
        sheet = sheet.transpose(0, 2, 1, 3).reshape(80, 100)
        plt.imsave(picture, np.kron(sheet, np.ones((4, 4))), cmap="gray")
    return score


if __name__ == "__main__":
    main(*sys.argv[1:])
