"""Where somebody speaks: Silero's voice activity detector, built in Keras and run on tfn.

    python examples/voice_activity.py silero_vad_16k.safetensors recording.wav

The weights are in the package silero-vad (`silero_vad/data/`, MIT licence; `pip install --no-deps
silero-vad`). The recording is 16-bit mono, 16000 samples a second. Prints the probability of speech for
each 32 ms, and the seconds in which somebody speaks.
"""

from __future__ import annotations

import argparse
import wave
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import tfn  # noqa: F401  (before keras)

import keras  # isort: skip
from keras import layers, ops  # isort: skip

RATE, CHUNK, CONTEXT = 16000, 512, 64
"""Samples a second, of one answer, and of what came before it."""
STRIDES = {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 1}


def build_model(weights: Path | str) -> keras.Model:
    """Chunks with their contexts, float32 [batch, chunks, 576], to probabilities, [batch, chunks].

    A spectrum of each chunk by a convolution, four more that leave one frame of it, then an LSTM over
    the chunks of a recording. The encoder takes all chunks at once.
    """
    w = load_file(weights)
    samples = keras.Input((CONTEXT + CHUNK,))
    x = ops.pad(samples, [[0, 0], [0, 64]], mode="reflect")[..., None]
    x = _convolution(w, "stft_conv", 128)(x)
    bins = x.shape[-1] // 2
    x = ops.sqrt(ops.square(x[..., :bins]) + ops.square(x[..., bins:]))
    for name, stride in STRIDES.items():
        x = _convolution(w, name, stride, "relu")(layers.ZeroPadding1D(1)(x))
    encoder = keras.Model(samples, x[:, 0], name="encoder")

    inputs = keras.Input((None, CONTEXT + CHUNK))
    recurrent = layers.LSTM(encoder.output.shape[-1], return_sequences=True)
    x = ops.relu(recurrent(layers.TimeDistributed(encoder)(inputs)))
    recurrent.set_weights([w["lstm_cell.weight_ih"].T, w["lstm_cell.weight_hh"].T,
                           w["lstm_cell.bias_ih"] + w["lstm_cell.bias_hh"]])
    final = layers.Dense(1, activation="sigmoid")
    x = final(x)[..., 0]
    final.set_weights([w["final_conv.weight"][:, :, 0].T, w["final_conv.bias"]])
    return keras.Model(inputs, x, name="voice_activity")


def _convolution(w: dict[str, np.ndarray], name: str, stride: int,
                 activation: str | None = None) -> layers.Layer:
    kernel = w[f"{name}.weight"].transpose(2, 1, 0)
    layer = layers.Conv1D(kernel.shape[-1], kernel.shape[0], strides=stride, activation=activation,
                          use_bias=f"{name}.bias" in w, name=name)
    layer.build((None, None, kernel.shape[1]))
    layer.set_weights([kernel, *(w[n] for n in [f"{name}.bias"] if n in w)])
    return layer


def chunks_of(samples: np.ndarray) -> np.ndarray:
    """`[1, chunks, 576]`: the model's input for a recording, with silence before and after it."""
    padded = np.pad(samples, (CONTEXT, -len(samples) % CHUNK)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + CHUNK)
    return windows[None, ::CHUNK].copy()


def read_wav(file: Path | str) -> np.ndarray:
    """The samples of a recording, between -1 and 1. Raises `ValueError` for another kind of file."""
    with wave.open(str(file)) as recording:
        kind = (recording.getnchannels(), recording.getsampwidth(), recording.getframerate())
        if kind != (1, 2, RATE):
            raise ValueError(f"{file} has {kind[0]} channels of {8 * kind[1]} bits at {kind[2]} Hz;"
                             f" expected 1 channel of 16 bits at {RATE} Hz")
        data = recording.readframes(recording.getnframes())
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def main() -> None:
    """Print the probabilities, and where they are above one half."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="a .safetensors file")
    parser.add_argument("recording", type=Path, help="a .wav file")
    options = parser.parse_args()

    chunks = chunks_of(read_wav(options.recording))
    speech = build_model(options.weights).predict(chunks, verbose=0)[0]
    print(" ".join(f"{p:.2f}" for p in speech))
    edges = np.flatnonzero(np.diff(np.pad(speech > 0.5, 1).astype(int))) * CHUNK / RATE
    for begin, end in edges.reshape(-1, 2):
        print(f"{begin:.2f} s to {end:.2f} s")


if __name__ == "__main__":
    main()
