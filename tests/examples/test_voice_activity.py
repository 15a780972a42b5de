"""The example of voice activity, with random and with Silero's weights, against NumPy."""

import importlib
import importlib.util
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

RATE = 16000
SHAPES = {
    "stft_conv.weight": (258, 1, 256), "conv1.weight": (128, 129, 3), "conv1.bias": (128,),
    "conv2.weight": (64, 128, 3), "conv2.bias": (64,), "conv3.weight": (64, 64, 3), "conv3.bias": (64,),
    "conv4.weight": (128, 64, 3), "conv4.bias": (128,), "lstm_cell.weight_ih": (512, 128),
    "lstm_cell.weight_hh": (512, 128), "lstm_cell.bias_ih": (512,), "lstm_cell.bias_hh": (512,),
    "final_conv.weight": (1, 128, 1), "final_conv.bias": (1,)}


@pytest.fixture(scope="module")
def example(repository):
    sys.path.insert(0, str(repository / "examples"))
    yield importlib.import_module("voice_activity")
    sys.path.pop(0)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    from safetensors.numpy import save_file

    source = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("vad") / "weights.safetensors"
    save_file({name: (source.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("float32")
               for name, shape in SHAPES.items()}, file)
    return file


@pytest.fixture(scope="module")
def recording():
    """A second of noise, and one of a buzz with three formants, as a vowel has them."""
    t = np.arange(RATE) / RATE
    pitch = np.cumsum(110 + 15 * np.sin(2 * np.pi * 3 * t)) / RATE
    buzz = sum(np.sin(2 * np.pi * k * pitch) * sum(
        np.exp(-((k * 110 - f) / 90.0) ** 2) for f in (700, 1200, 2600)) for k in range(1, 40))
    noise = np.random.default_rng(1).standard_normal(RATE + 700) * 0.01
    return np.concatenate([noise, 0.2 * buzz * (1 + np.sin(2 * np.pi * 4 * t))]).astype("float32")


def probabilities(weights, samples):
    """Chunk by chunk, with the state of the LSTM handed on, in f64."""
    from safetensors.numpy import load_file

    w = {name: value.astype("float64") for name, value in load_file(weights).items()}

    def convolved(x, name, stride):
        kernel = w[f"{name}.weight"]
        places = range(0, x.shape[1] - kernel.shape[2] + 1, stride)
        y = np.stack([np.einsum("oik,ik->o", kernel, x[:, p:p + kernel.shape[2]]) for p in places], 1)
        return y + w[f"{name}.bias"][:, None] if f"{name}.bias" in w else y

    def sigmoid(x):
        return 0.5 + 0.5 * np.tanh(x / 2)

    samples = np.pad(samples.astype("float64"), (64, -len(samples) % 512))
    h = c = np.zeros(128)
    found = []
    for begin in range(64, len(samples), 512):
        chunk = np.pad(samples[begin - 64:begin + 512], (0, 64), mode="reflect")
        x = convolved(chunk[None], "stft_conv", 128)
        x = np.hypot(x[:129], x[129:])
        for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
            x = np.maximum(convolved(np.pad(x, ((0, 0), (1, 1))), name, stride), 0)
        gates = (w["lstm_cell.weight_ih"] @ x[:, 0] + w["lstm_cell.bias_ih"]
                 + w["lstm_cell.weight_hh"] @ h + w["lstm_cell.bias_hh"])
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        score = w["final_conv.weight"][0, :, 0] @ np.maximum(h, 0) + w["final_conv.bias"][0]
        found.append(sigmoid(score))
    return np.array(found)


def test_random_weights(example, random_weights, recording):
    found = example.build_model(random_weights).predict(example.chunks_of(recording), verbose=0)
    np.testing.assert_allclose(found[0], probabilities(random_weights, recording), atol=1e-5)


@pytest.mark.outside("silero_vad")
def test_the_real_weights_hear_a_vowel(example, recording):
    package = Path(importlib.util.find_spec("silero_vad").origin).parent
    weights = package / "data" / "silero_vad_16k.safetensors"
    found = example.build_model(weights).predict(example.chunks_of(recording), verbose=0)[0]
    np.testing.assert_allclose(found, probabilities(weights, recording), atol=1e-4)
    assert found[:30].max() < 0.2 < 0.8 < found[32:].max()


def test_the_command(repository, random_weights, recording, tmp_path):
    for name, rate in (("good.wav", RATE), ("fast.wav", 44100)):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((np.clip(recording, -1, 1) * 32767).astype("<i2").tobytes())
    script = [sys.executable, str(repository / "examples" / "voice_activity.py"), str(random_weights)]
    good = subprocess.run([*script, str(tmp_path / "good.wav")], capture_output=True, text=True,
                          timeout=120)
    assert good.returncode == 0, good.stderr
    assert len(good.stdout.splitlines()[0].split()) == -(-len(recording) // 512)
    bad = subprocess.run([*script, str(tmp_path / "fast.wav")], capture_output=True, text=True,
                         timeout=120)
    assert bad.returncode and "44100 Hz; expected 1 channel of 16 bits" in bad.stderr
