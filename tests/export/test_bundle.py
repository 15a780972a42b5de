"""The bundle on disk: round trip, same bytes, every kind of damage, and running it."""

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfn.compiler import numpy as tnp
from tfn.compiler.errors import OpError
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import BF16, F32, I32
from tfn.export.bundle import (
    DESCRIPTION,
    MODULE,
    WEIGHTS,
    BundleError,
    Runner,
    TensorSpec,
    bundle_files,
    read_bundle,
    write_bundle,
)
from tfn.export.weights import pack_weights, unpack_weights

BATCH = Dim.named("batch")
RNG = np.random.default_rng(3)


def images(count):
    return RNG.normal(size=(count, 8, 8, 1)).astype(np.float32)


def run(bundle, **inputs):
    return Runner(bundle, engine="evaluator").run(inputs)


@pytest.fixture
def written(tmp_path, cnn):
    return write_bundle(tmp_path, cnn)


# -- round trip -----------------------------------------------------------------------------------

def test_layout_is_name_version_and_three_files(written, tmp_path, cnn):
    assert written == tmp_path / "cnn" / "1"
    assert sorted(os.listdir(written)) == sorted([DESCRIPTION, MODULE, WEIGHTS])
    assert os.listdir(tmp_path / "cnn") == ["1"]
    description = json.loads((written / DESCRIPTION).read_text())
    assert description["signatures"]["serving_default"]["inputs"] == [
        {"name": "image", "dtype": "f32", "shape": ["batch", 8, 8, 1]}]
    assert description["sha256"][MODULE] == sha256((written / MODULE).read_bytes()).hexdigest()


def test_what_is_read_equals_what_was_written(written, cnn):
    back = read_bundle(written)
    assert (back.name, back.version, back.provenance) == ("cnn", 1, cnn.provenance)
    assert list(back.weights) == list(cnn.weights)
    for name, array in cnn.weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
    ours, theirs = cnn.signature("serving_default"), back.signature("serving_default")
    assert (theirs.inputs, theirs.outputs, theirs.weights) == (
        ours.inputs, ours.outputs, ours.weights)
    for count in (1, 7):
        x = images(count)
        np.testing.assert_array_equal(run(back, image=x)["output_0"], run(cnn, image=x)["output_0"])


def test_same_content_gives_same_bytes(written, tmp_path, cnn):
    again = write_bundle(tmp_path / "elsewhere", cnn)
    rewritten = write_bundle(tmp_path / "third", read_bundle(written))
    for name in (DESCRIPTION, MODULE, WEIGHTS):
        assert (written / name).read_bytes() == (again / name).read_bytes()
        assert (written / name).read_bytes() == (rewritten / name).read_bytes()


def test_two_signatures_share_weights(tmp_path, mlp):
    first = mlp.signature("serving_default")
    second = replace(first, name="score", outputs=(
        TensorSpec("score", first.outputs[0].dtype, first.outputs[0].shape),))
    both = replace(mlp, signatures={**mlp.signatures, "score": second})
    back = read_bundle(write_bundle(tmp_path, both))
    x = np.ones((2, 8), np.float32)
    np.testing.assert_array_equal(Runner(back, "score", "evaluator").run({"x": x})["score"],
                                  run(back, x=x)["output_0"])


def test_several_inputs_outputs_and_dims(tmp_path, bundle_of):
    def apply(w, x, ids):
        joined = tnp.concatenate([x, tnp.take(w["table"], ids, 0)], 1)
        return joined, tnp.sum(x, 1)

    bundle = bundle_of(apply, {"x": ((BATCH, 3), F32), "ids": ((BATCH,), I32)},
                       {"table": np.arange(8, dtype=np.float32).reshape(4, 2)}, version=12)
    back = read_bundle(write_bundle(tmp_path, bundle))
    assert back.version == 12
    x, ids = np.ones((2, 3), np.float32), np.array([3, 1], np.int32)
    got = run(back, x=x, ids=ids)
    np.testing.assert_array_equal(got["output_0"], [[1, 1, 1, 6, 7], [1, 1, 1, 2, 3]])
    np.testing.assert_array_equal(got["output_1"], [3, 3])


# -- weights --------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8,
                                   np.int64, np.uint8, np.uint32, np.bool_])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_weights_of_every_type(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    back = unpack_weights(pack_weights({"w": array, "one": np.ones(1, np.int8)}))["w"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_weights_are_what_the_safetensors_package_reads(written, cnn):
    for name, array in safetensors.numpy.load((written / WEIGHTS).read_bytes()).items():
        np.testing.assert_array_equal(array, cnn.weights[name])


def test_weights_do_not_depend_on_the_order_given():
    a, b = np.ones(3, np.float32), np.ones(2, np.int64)
    assert pack_weights({"a": a, "b": b}) == pack_weights({"b": b, "a": a})


# -- versions -------------------------------------------------------------------------------------

def test_a_version_is_never_changed_unless_asked(written, tmp_path, cnn, mlp):
    before = (written / WEIGHTS).read_bytes()
    other = replace(mlp, name="cnn")
    with pytest.raises(BundleError, match="versions are never changed: write version 2"):
        write_bundle(tmp_path, other)
    assert (written / WEIGHTS).read_bytes() == before
    write_bundle(tmp_path, other, overwrite=True)
    assert read_bundle(written).weights.keys() == mlp.weights.keys()
    assert os.listdir(tmp_path / "cnn") == ["1"]


def test_a_failed_write_leaves_nothing(tmp_path, cnn):
    bad = replace(cnn, weights={**cnn.weights, "b": np.ones(10, np.complex64)})
    with pytest.raises(BundleError, match=r"weight 'b' is complex<f32>"):
        write_bundle(tmp_path, bad)
    assert not (tmp_path / "cnn" / "1").exists()


def test_weights_that_safetensors_cannot_hold(tmp_path, mlp):
    bad = replace(mlp, weights={**mlp.weights, "extra": np.ones(1, np.complex64)})
    with pytest.raises(BundleError, match="'extra' is complex<f32>, which safetensors cannot hold"):
        write_bundle(tmp_path, bad)


@pytest.mark.skipif(sys.platform != "linux", reason="directories are exchanged on Linux only")
def test_a_version_that_is_replaced_is_there_all_the_time(written, tmp_path, mlp, monkeypatch):
    """A server that looks in between would go back to the version before."""
    rename = os.rename

    def seen(source, target):
        rename(source, target)
        assert written.exists()

    monkeypatch.setattr(os, "rename", seen)
    write_bundle(tmp_path, replace(mlp, name="cnn"), overwrite=True)
    assert read_bundle(written).weights.keys() == mlp.weights.keys()
    assert os.listdir(tmp_path / "cnn") == ["1"]


@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupted_replacement_leaves_the_old_version(
        written, tmp_path, cnn, mlp, monkeypatch, number):
    """Where the system cannot exchange directories."""
    rename, calls = os.rename, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == number:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("tfn.export.bundle._exchange", lambda a, b: False)
    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path, replace(mlp, name="cnn"), overwrite=True)
    assert read_bundle(written).weights.keys() == cnn.weights.keys()
    assert os.listdir(tmp_path / "cnn") == ["1"]


def test_an_interrupted_write_leaves_the_old_version(written, tmp_path, cnn, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    before = {p.name: p.read_bytes() for p in written.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path, cnn, overwrite=True)
    assert {p.name: p.read_bytes() for p in written.iterdir()} == before
    assert os.listdir(tmp_path / "cnn") == ["1"]


def test_the_highest_version_is_read(tmp_path, mlp):
    for version in (2, 10, 9):
        write_bundle(tmp_path, replace(mlp, version=version))
    (tmp_path / "mlp" / "notes").mkdir()
    assert read_bundle(tmp_path / "mlp").version == 10
    assert read_bundle(tmp_path / "mlp" / "9").version == 9


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b"])
def test_names_that_are_no_directory_names(tmp_path, mlp, name):
    with pytest.raises(BundleError, match="cannot be called"):
        write_bundle(tmp_path, replace(mlp, name=name))


@pytest.mark.parametrize("version", [0, -1, "1", 1.5])
def test_versions_that_are_no_versions(tmp_path, mlp, version):
    with pytest.raises(BundleError, match="integer from 1 on"):
        write_bundle(tmp_path, replace(mlp, version=version))


# -- damage ---------------------------------------------------------------------------------------

def edit_description(folder, change):
    """Change bundle.json as a careless editor would."""
    file = folder / DESCRIPTION
    description = json.loads(file.read_text())
    change(description)
    file.write_text(json.dumps(description))


def rehash(folder, name):
    """Make the hash right again, so that the next check is reached."""
    digest = sha256((folder / name).read_bytes()).hexdigest()
    edit_description(folder, lambda d: d["sha256"].update({name: digest}))


@pytest.mark.parametrize("name", [DESCRIPTION, MODULE, WEIGHTS])
def test_a_missing_file_is_named(written, name):
    (written / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is damaged: it is missing\. Restore"):
        read_bundle(written)


@pytest.mark.parametrize("name", [DESCRIPTION, MODULE, WEIGHTS])
def test_a_truncated_file_is_named(written, name):
    data = (written / name).read_bytes()
    for keep in (0, 5, len(data) // 2, len(data) - 2):
        (written / name).write_bytes(data[:keep])
        with pytest.raises(BundleError, match=f"{name} is damaged"):
            read_bundle(written)


@pytest.mark.parametrize("name", [MODULE, WEIGHTS])
def test_an_edited_file_is_named(written, name):
    data = bytearray((written / name).read_bytes())
    data[-10] ^= 1
    (written / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is damaged: its SHA-256"):
        read_bundle(written)


def test_a_module_that_does_not_parse_shows_the_line(written):
    text = (written / MODULE).read_text()
    (written / MODULE).write_text(text.replace("stablehlo.add", "stablehlo.ad", 1))
    rehash(written, MODULE)
    with pytest.raises(BundleError, match=r"module.mlir is damaged: .*module.mlir:\d+"):
        read_bundle(written)


def test_a_truncated_safetensors_with_a_right_hash(written):
    data = (written / WEIGHTS).read_bytes()
    for keep in (4, 60, len(data) - 4):
        (written / WEIGHTS).write_bytes(data[:keep])
        rehash(written, WEIGHTS)
        with pytest.raises(BundleError, match=r"weights\.safetensors is damaged"):
            read_bundle(written)


def test_weights_of_another_model(written, cnn):
    other = {**cnn.weights, "w": np.ones((64, 12), np.float32)}
    (written / WEIGHTS).write_bytes(pack_weights(other))
    rehash(written, WEIGHTS)
    with pytest.raises(BundleError, match=r"do not fit together.*64x12xf32"):
        read_bundle(written)


def test_a_weight_that_is_not_there(written, cnn):
    fewer = {k: v for k, v in cnn.weights.items() if k != "k2"}
    (written / WEIGHTS).write_bytes(pack_weights(fewer))
    rehash(written, WEIGHTS)
    with pytest.raises(BundleError, match=r"weights.safetensors is damaged: it lacks the weight"
                                          " 'k2'"):
        read_bundle(written)


def test_an_input_that_the_function_does_not_take(written):
    def change(description):
        description["signatures"]["serving_default"]["inputs"][0]["shape"] = ["batch", 9, 9, 1]

    edit_description(written, change)
    with pytest.raises(BundleError, match="do not fit together: signature 'serving_default'"):
        read_bundle(written)


def test_an_output_that_the_function_does_not_return(written):
    def change(description):
        description["signatures"]["serving_default"]["outputs"][0]["shape"] = ["batch", 11]

    edit_description(written, change)
    with pytest.raises(BundleError, match=r"output 'output_0' is f32\[batch, 11\], but the function"
                                          r" returns f32\[batch, 10\]"):
        read_bundle(written)


@pytest.mark.parametrize("change, message", [
    (lambda d: d.update(format="other"), '"format" must be "tfn-bundle"'),
    (lambda d: d.update(format_version=99), "format_version 99; this tfn reads 1"),
    (lambda d: d.pop("weights"), '"weights" is missing or not a list'),
    (lambda d: d.update(sha256={}), '"sha256" has no entry for module.mlir'),
    (lambda d: d["signatures"]["serving_default"].pop("inputs"), "'serving_default' is malformed"),
    (lambda d: d["signatures"]["serving_default"].update(function="f"), "names the function 'f'"),
    (lambda d: d["signatures"]["serving_default"].update(function=[]), "malformed|names the"),
    (lambda d: d["signatures"].update(x=3), "'x' is malformed"),
    (lambda d: d["signatures"]["serving_default"]["inputs"][0].update(dtype="f33"), "malformed"),
    (lambda d: d["signatures"]["serving_default"]["inputs"][0].update(shape=[-1]), "malformed"),
    (lambda d: d["weights"].append("nowhere"), "lacks the weight 'nowhere'"),
])
def test_a_hand_edited_description(written, change, message):
    edit_description(written, change)
    with pytest.raises(BundleError, match=message):
        read_bundle(written)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00", '{"format": "tfn-bundle"}'])
def test_a_description_that_is_something_else(written, text):
    (written / DESCRIPTION).write_text(text)
    with pytest.raises(BundleError, match=DESCRIPTION):
        read_bundle(written)


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_a_bundle_error_or_harmless(written, data):
    """Bytes replaced anywhere, with the hashes made right again, never end in another error."""
    originals = {p.name: p.read_bytes() for p in written.iterdir()}
    name = data.draw(st.sampled_from(sorted(originals)))
    damaged = bytearray(originals[name])
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at:at + data.draw(st.integers(0, 40))] = data.draw(st.sampled_from(
        [b"", b"?", b"-1", b"9" * 30, b"{", b'"', b"null", b"%0", b"\xff", b"tensor<", b"\0" * 8]))
    (written / name).write_bytes(damaged)
    if name != DESCRIPTION:
        rehash(written, name)
    try:
        read_bundle(written)
    except BundleError as error:
        assert str(written) in str(error)
    finally:
        for file, content in originals.items():
            (written / file).write_bytes(content)


def test_places_without_a_bundle(tmp_path, written):
    with pytest.raises(BundleError, match="no such directory"):
        read_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match="it is a file"):
        read_bundle(written / MODULE)
    with pytest.raises(BundleError, match="expected"):
        read_bundle(tmp_path)
    shutil.copytree(written, tmp_path / "copy")
    with pytest.raises(BundleError, match="rename it to NAME/1"):
        read_bundle(tmp_path / "copy")


def test_an_unknown_signature_is_answered_with_those_there_are(mlp):
    with pytest.raises(BundleError, match="no signature 'train'; it has serving_default"):
        Runner(mlp, "train", "evaluator")


def test_a_signature_that_does_not_fit_is_not_written(tmp_path, mlp):
    wrong = replace(mlp, weights={**mlp.weights, "w2": np.ones((16, 5), np.float32)})
    with pytest.raises(BundleError, match=r"weight 'w2' is f32\[16, 5\], but the function takes"
                                          r" f32\[16, 4\]"):
        write_bundle(tmp_path, wrong)


# -- running --------------------------------------------------------------------------------------

def test_runner_takes_lists(mlp):
    got = run(mlp, x=[[1, 2, 3, 4, 5, 6, 7, 8]])["output_0"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("inputs, message", [
    ({}, r"needs the input x: f32\[batch, 8\]"),
    ({"x": np.ones((2, 8), np.float32), "y": 1}, "has no input 'y'"),
    ({"x": np.ones((2, 8))}, r"got float64; convert it with .astype\('float32'\)"),
    ({"x": np.ones((2, 9), np.float32)}, r"x: f32\[batch, 8\] got an array of shape \[2, 9\]"),
    ({"x": np.ones(8, np.float32)}, r"got an array of shape \[8\]"),
    ({"x": np.ones((0, 8), np.float32)}, r"got an array of shape \[0, 8\]"),
    ({"x": [[1, 2], [3]]}, r"x: f32\[batch, 8\] cannot be made of what was given"),
    ({"x": "text"}, "cannot be made of what was given"),
])
def test_runner_refuses_what_does_not_fit(mlp, inputs, message):
    with pytest.raises(OpError, match=message):
        Runner(mlp, engine="evaluator").run(inputs)


@pytest.mark.parametrize("count", [1, 7, 100])
def test_compiled_runner_agrees_with_the_evaluator(cnn, count):
    x = {"image": images(count)}
    np.testing.assert_allclose(Runner(cnn).run(x)["output_0"],
                               Runner(cnn, engine="evaluator").run(x)["output_0"],
                               rtol=1e-5, atol=1e-7)


def test_runner_serves_many_threads(cnn):
    runner = Runner(cnn)
    batches = [images(n) for n in (1, 2, 5, 8) for _ in range(5)]
    expected = [runner.run({"image": x})["output_0"].copy() for x in batches]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(lambda x: runner.run({"image": x})["output_0"], batches),
                                 expected, strict=True):
                np.testing.assert_array_equal(got, want)


def test_unknown_engine(mlp):
    with pytest.raises(BundleError, match="no engine 'gpu'; there are compiler, evaluator"):
        Runner(mlp, engine="gpu")


def test_runner_binds_a_dim_once_for_all_inputs(bundle_of):
    bundle = bundle_of(lambda w, a, b: a + b, {"a": ((BATCH, 2), F32), "b": ((BATCH, 2), F32)}, {})
    with pytest.raises(OpError, match=r"b: f32\[batch, 2\] got an array of shape \[3, 2\]"):
        run(bundle, a=np.ones((2, 2), np.float32), b=np.ones((3, 2), np.float32))


def test_bfloat16_weights_go_through(tmp_path, bundle_of):
    bundle = bundle_of(lambda w, x: x * w["w"], {"x": ((BATCH, 2), BF16)},
                       {"w": np.array([2, 3], ml_dtypes.bfloat16)})
    back = read_bundle(write_bundle(tmp_path, bundle))
    got = run(back, x=np.ones((1, 2), ml_dtypes.bfloat16))["output_0"]
    np.testing.assert_array_equal(got.astype(np.float32), [[2, 3]])
    assert bundle_files(back) == bundle_files(bundle)
