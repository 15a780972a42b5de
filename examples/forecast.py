"""Forecast the next day of an hourly series from the week before, and beat "the same as last week".

    tfn train examples/forecast.py --epochs 6 --out runs/forecast

The series is made: two years with a daily wave whose height changes from day to day, weekends, a
trend and noise. The usual yardstick, the seasonal naive forecast, repeats the hours of a week ago.
After 6 epochs the mean absolute error on the last months is at most 0.40 of the naive one.
"""

import sys

import keras
import numpy as np
from keras import layers

DAY, WEEK, HOURS = 24, 168, 24 * 7 * 104


def make_series(seed: int = 0) -> np.ndarray:
    """(17472,) float32: the load of a town, so to say; the noise has a standard deviation of 0.1."""
    rng = np.random.default_rng(seed)
    hour = np.arange(HOURS)
    # Weather: tomorrow resembles today.
    weather = np.zeros(HOURS // DAY + 1)
    for day in range(1, len(weather)):
        weather[day] = 0.9 * weather[day - 1] + rng.normal(0, 0.3)
    weather = np.interp(hour / DAY, np.arange(len(weather)), weather)
    daily = np.sin(2 * np.pi * (hour - 6) / DAY) + 0.4 * np.sin(4 * np.pi * hour / DAY)
    weekend = (hour // DAY) % 7 >= 5
    series = daily * (1 - 0.5 * weekend) * np.exp(0.3 * weather) + weather + 3e-5 * hour
    return (series + rng.normal(0, 0.1, HOURS)).astype("float32")


def build_model(width: int = 48) -> keras.Model:
    """A convolution over quarters of a day, an LSTM over the week; they add to the last hour."""
    past = keras.Input((WEEK,), name="past")
    level = past[:, -1:]
    change = past - level
    x = layers.Conv1D(width, 6, strides=6, activation="relu")(layers.Reshape((WEEK, 1))(change))
    x = layers.LSTM(width)(x)
    x = layers.Concatenate()([x, change])
    x = layers.Dense(2 * width, activation="relu")(x)
    future = layers.Add(name="future")([layers.Dense(DAY)(x), level])
    model = keras.Model(past, future)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mae")
    return model


def load_data(step: int = 3):
    """`((past, future), (past, future))`: float32 (n, 168) and (n, 24), cut every `step` hours.

    The last fifth of the series is for validation.
    """
    windows = np.lib.stride_tricks.sliding_window_view(make_series(), WEEK + DAY)
    split = len(windows) * 4 // 5
    parts = windows[:split - WEEK - DAY:step], windows[split::step]
    return tuple((part[:, :WEEK], part[:, WEEK:]) for part in parts)


def main(picture: str | None = None, *, epochs: int = 6, step: int = 3) -> float:
    """Train; returns the error as a part of the naive forecast's, and draws a forecast to `picture`."""
    keras.utils.set_random_seed(0)
    model = build_model()
    training, (past, future) = load_data(step)
    model.fit(*training, validation_data=(past, future), epochs=epochs, verbose=2)
    found = model.predict(past, verbose=0)
    error = float(np.abs(found - future).mean())
    naive = float(np.abs(past[:, :DAY] - future).mean())
    print(f"mean absolute error {error:.3f}, naive {naive:.3f}: {error / naive:.2f} of it")
    if picture:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(7, 2.5), layout="constrained")
        axes.plot(range(-2 * DAY, 0), past[40, -2 * DAY:], "k", label="past")
        axes.plot(range(DAY), future[40], "k:", label="future")
        axes.plot(range(DAY), found[40], label="forecast")
        axes.plot(range(DAY), past[40, :DAY], label="naive", alpha=0.5)
        axes.set_xlabel("hours")
        axes.legend()
        figure.savefig(picture, dpi=80)
    return error / naive


if __name__ == "__main__":
    main(*sys.argv[1:])
