"""`tfn export`, `predict` and `serve` at their border: what they write, refuse and never overwrite."""

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

X = np.random.default_rng(1).normal(size=(5, 8)).astype("float32")


@pytest.fixture
def copied(bundle, tmp_path):
    """A bundle that may be damaged."""
    base = tmp_path / "copied" / bundle.parent.name
    shutil.copytree(bundle.parent, base)
    return base / bundle.name


def expected(trained):
    import keras

    return keras.models.load_model(trained / "model.keras").predict(X, verbose=0)


class TestExport:
    def test_a_bundle(self, cli, trained):
        result = cli("export", trained, "--format", "bundle", "--out", "out", "--json")
        assert result.code == 0
        assert os.path.exists("out/tiny/1/bundle.json")
        assert os.path.exists("out/tiny/1/weights.safetensors")

    def test_versions_count_up(self, cli, trained):
        for version in (1, 2):
            assert cli("export", trained, "--format", "bundle", "--out", "out").code == 0
            assert os.path.exists(f"out/tiny/{version}/bundle.json")

    def test_a_version_is_never_overwritten(self, cli, trained):
        arguments = ("export", trained, "--format", "bundle", "--out", "out", "--version", "3")
        assert cli(*arguments).code == 0
        before = Path("out/tiny/3/bundle.json").read_text()
        cli(*arguments).mistake("out/tiny/3")
        assert Path("out/tiny/3/bundle.json").read_text() == before

    @pytest.mark.outside("g++")
    def test_cpp(self, cli, trained):
        result = cli("export", trained, "--format", "cpp", "--out", "out", "--json")
        assert result.code == 0
        (report,) = [json.loads(Path(d, f).read_text())
                     for d, _, files in os.walk("out") for f in files if f == "report.json"]
        assert report["ok"] is True

    @pytest.mark.outside("ai_edge_litert")
    def test_tflite(self, cli, trained):
        assert cli("export", trained, "--format", "tflite", "--out", "out").code == 0
        assert [f for _, _, files in os.walk("out") for f in files if f.endswith(".tflite")]

    def test_an_unknown_format(self, cli, trained):
        cli("export", trained, "--format", "floppy", "--out", "out").mistake("floppy", "tflite")

    def test_an_unknown_target(self, cli, trained):
        cli("export", trained, "--format", "cpp", "--target", "pdp11", "--out", "out").mistake(
            "pdp11")

    def test_nothing_to_export(self, cli):
        cli("export", "nowhere").mistake("nowhere")


class TestPredict:
    def test_npy(self, cli, bundle, trained, tmp_path):
        np.save(tmp_path / "x.npy", X)
        result = cli("predict", bundle, "x.npy", "--out", "y.npz", "--json")
        assert result.code == 0
        (found,) = np.load("y.npz").values()
        np.testing.assert_allclose(found, expected(trained), rtol=1e-5, atol=1e-6)

    def test_json(self, cli, bundle, trained, tmp_path):
        (tmp_path / "x.json").write_text(json.dumps(X.tolist()))
        result = cli("predict", bundle, "x.json", "--json")
        assert result.code == 0
        np.testing.assert_allclose(next(iter(result.json.values())), expected(trained), rtol=1e-4,
                                   atol=1e-6)

    def test_the_wrong_shape(self, cli, bundle, tmp_path):
        np.save(tmp_path / "x.npy", X[:, :7])
        cli("predict", bundle, "x.npy").mistake("8", "7")

    def test_pickled_data_is_refused(self, cli, bundle, tmp_path):
        np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        cli("predict", bundle, "x.npy").mistake("x.npy")

    def test_no_such_signature(self, cli, bundle, tmp_path):
        np.save(tmp_path / "x.npy", X)
        cli("predict", bundle, "x.npy", "--signature", "nope").mistake("nope", "serving_default")

    def test_a_missing_file(self, cli, bundle):
        cli("predict", bundle, "nowhere.npy").mistake("nowhere.npy")


class TestDamage:
    def inspect(self, cli, folder, tmp_path, *parts):
        np.save(tmp_path / "x.npy", X)
        cli("predict", folder, "x.npy").mistake(*parts)

    def test_truncated_weights(self, cli, copied, tmp_path):
        weights = copied / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-8])
        self.inspect(cli, copied, tmp_path, "weights.safetensors")

    def test_a_hand_edited_program(self, cli, copied, tmp_path):
        module = copied / "module.mlir"
        module.write_text(module.read_text().replace("maximum", "minimum"))
        self.inspect(cli, copied, tmp_path, "module.mlir")

    def test_a_hand_edited_description(self, cli, copied, tmp_path):
        description = json.loads((copied / "bundle.json").read_text())
        description["signatures"] = 3
        (copied / "bundle.json").write_text(json.dumps(description))
        self.inspect(cli, copied, tmp_path, "bundle.json")

    def test_missing_weights(self, cli, copied, tmp_path):
        (copied / "weights.safetensors").unlink()
        self.inspect(cli, copied, tmp_path, "weights.safetensors")


class TestServe:
    def test_a_port_in_use(self, cli, bundle):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            cli("serve", bundle.parent, "--port", port).mistake(str(port), "in use")

    def test_nothing_to_serve(self, cli):
        cli("serve", "nowhere", "--port", "0").mistake("nowhere")

    def test_a_name_for_two_models(self, cli, bundle, trained):
        cli("serve", bundle.parent, trained, "--name", "both", "--port", "0").mistake("--name")

    def test_two_models_of_one_name(self, cli, bundle, trained):
        cli("serve", bundle.parent, trained, "--port", "0").mistake("two models are named tiny")
