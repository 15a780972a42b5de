"""`.keras` files that are damaged, or that ask for what no model needs: refused with one sentence."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tfn.keras.loading import KerasFileError, load
from tfn.tools.cli import run

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


@keras.saving.register_keras_serializable("test_loading")
class Doubling(layers.Layer):
    def call(self, x):
        return x * 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`(file, its entries)` of a model."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="wide"), layers.Dense(2)])
    file = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(file)
    with zipfile.ZipFile(file) as archive:
        return file, {name: archive.read(name) for name in archive.namelist()}


def written(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def configured(entries, **changes):
    """The entries with other values in the config of the first Dense layer."""
    config = json.loads(entries["config.json"])
    dense = next(la for la in config["config"]["layers"] if la["config"]["name"] == "wide")
    dense["config"].update(changes)
    return {**entries, "config.json": json.dumps(config).encode()}


def weights(entries, edit):
    """The entries with an edited weights file."""
    file = io.BytesIO(entries["model.weights.h5"])
    with h5py.File(file, "r+") as weights:
        edit(weights)
    return {**entries, "model.weights.h5": file.getvalue()}


def _huge_dataset(file):
    group = file["layers/dense/vars"] if "layers/dense/vars" in file else file["layers/wide/vars"]
    del group["0"]
    group.create_dataset("0", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1024, 1024))


def _elsewhere(file):
    group = file["layers/dense/vars"]
    del group["0"]
    group["0"] = h5py.ExternalLink("/etc/passwd", "/")


def _lambda(entries):
    config = json.loads(entries["config.json"])
    dense = next(la for la in config["config"]["layers"] if la["config"]["name"] == "wide")
    made = layers.Lambda(lambda x: x, name="wide")
    dense.update(json.loads(json.dumps(keras.saving.serialize_keras_object(made))))
    return {**entries, "config.json": json.dumps(config).encode()}


def _module(entries):
    config = json.loads(entries["config.json"])
    dense = next(la for la in config["config"]["layers"] if la["config"]["name"] == "wide")
    dense.update(module="os", class_name="system", registered_name="os>system")
    return {**entries, "config.json": json.dumps(config).encode()}


BAD = {
    "leaves its folder": (lambda e: {**e, "../evil.txt": b"x"}, "written outside of its folder"),
    "absolute": (lambda e: {**e, "/tmp/evil.txt": b"x"}, "written outside of its folder"),
    "backslashes": (lambda e: {**e, "assets\\..\\..\\evil": b"x"}, "written outside of its folder"),
    "blows up": (lambda e: {**e, "assets/big": bytes(200 << 20)}, "when they are unpacked"),
    "no config": (lambda e: {k: v for k, v in e.items() if k != "config.json"}, "has no config.json"),
    "no weights": (lambda e: {k: v for k, v in e.items() if "weights" not in k}, "has no weights"),
    "config cut off": (lambda e: {**e, "config.json": e["config.json"][:40]}, "config.json is damaged"),
    "config of brackets": (lambda e: {**e, "config.json": b"[" * 100_000}, "config.json is damaged"),
    "config of a list": (lambda e: {**e, "config.json": b"[1]"}, "describes no model"),
    "many units": (lambda e: configured(e, units=1 << 33), "more than the"),
    "more than an integer": (lambda e: configured(e, units=1 << 70), "cannot be loaded"),
    "other weights": (lambda e: configured(e, units=5), "cannot be loaded"),
    "weights that are not there": (lambda e: weights(e, _huge_dataset), "cannot be loaded"),
    "weights elsewhere": (lambda e: weights(e, _elsewhere), "cannot be loaded"),
    "weights cut off": (lambda e: {**e, "model.weights.h5": e["model.weights.h5"][:500]},
                        "cannot be loaded"),
    "a lambda": (_lambda, "lambda"),
    "another module": (_module, "Could not locate"),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD.keys())
def test_bad_models(tmp_path, capsys, saved, make, words):
    file = written(tmp_path / "model.keras", make(saved[1]), zipfile.ZIP_DEFLATED)
    with pytest.raises(KerasFileError, match=r"model\.keras") as caught:
        load(file)
    assert words in str(caught.value)
    assert run(["inspect", str(file)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and "Traceback" not in shown
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.keras"]


@pytest.mark.parametrize(("data", "words"), {
    b"": "no .keras file", b"not a zip": "no .keras file", None: "only a part of one"}.items())
def test_no_archives(tmp_path, saved, data, words):
    file = tmp_path / "model.keras"
    file.write_bytes(saved[0].read_bytes()[:3000] if data is None else data)
    with pytest.raises(KerasFileError, match=words):
        load(file)
    assert run(["inspect", str(file)]) == 2


def test_a_flipped_bit_is_seen(tmp_path, saved):
    data = bytearray(saved[0].read_bytes())
    place = data.index(saved[1]["config.json"][:20]) + 30
    data[place] ^= 1
    (tmp_path / "model.keras").write_bytes(data)
    with pytest.raises(KerasFileError, match="Bad CRC"):
        load(tmp_path / "model.keras")


def test_a_missing_file():
    with pytest.raises(FileNotFoundError):
        load("no.keras")
    assert run(["inspect", "no.keras"]) == 2


def test_good_models_load(tmp_path, saved):
    model = load(saved[0])
    again = keras.models.load_model(saved[0])
    np.testing.assert_array_equal(model.predict(X, verbose=0), again.predict(X, verbose=0))
    mine = keras.Sequential([keras.Input((3,)), Doubling(), layers.Dense(1)])
    mine.compile("adam", "mse")
    mine.fit(X, X[:, :1], verbose=0)
    mine.save(tmp_path / "mine.keras")
    loaded = load(tmp_path / "mine.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), mine.predict(X, verbose=0))
    for a, b in zip(loaded.optimizer.variables, mine.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    # The limit is that file's alone: other models may be larger.
    assert layers.Dense(4096).build((None, 8192)) is None
