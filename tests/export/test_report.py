"""Exports as a user asks for them: formats, reports, and how errors are counted."""

import json

import numpy as np
import pytest

from tfn.compiler import numpy as tnp
from tfn.compiler.errors import CompileError, UnsupportedError
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, I32
from tfn.export import FORMATS, export, write_bundle
from tfn.export import formats as formats_module
from tfn.export.formats import ExportError
from tfn.export.report import Check, Report, errors, make_samples, take_samples

BATCH = Dim.named("batch")


@pytest.mark.outside("g++", "ai_edge_litert")
def test_every_format_from_a_bundle_on_disk(cnn, tmp_path):
    path = write_bundle(tmp_path, cnn)
    images = np.random.default_rng(0).normal(size=(100, 8, 8, 1)).astype(np.float32)
    reports = export(path, out=tmp_path / "out", samples={"serving_default": {"image": images}})
    assert [r.format for r in reports] == list(FORMATS) == ["cpp", "tflite"]
    for report in reports:
        written = json.loads((tmp_path / "out" / report.format / "report.json").read_text())
        assert written == report.as_json()
        assert written["checked"] and written["ok"]
        assert written["max_rel_error"] <= 1e-5
        assert written["batches"] == [1, 7, 100]
        assert written["bytes"] == sum(
            (tmp_path / "out" / report.format / name).stat().st_size for name in written["files"])


def test_a_missing_runtime_is_reported_with_the_install_line(mlp, tmp_path, monkeypatch):
    from dataclasses import replace

    absent = replace(FORMATS["tflite"], is_installed=lambda: False)
    monkeypatch.setitem(formats_module.FORMATS, "tflite", absent)
    (report,) = export(mlp, ["tflite"], tmp_path)
    written = json.loads((tmp_path / "tflite" / "report.json").read_text())
    assert written["checked"] is False
    assert written["reason"] == "LiteRT is not installed"
    assert written["install"] == "pip install 'tfn[export]'"
    assert report.ok and (tmp_path / "tflite" / "mlp.tflite").exists()


def test_code_for_another_machine_is_written_but_not_run(mlp, tmp_path):
    import platform

    other = "x86-64" if platform.machine() in ("aarch64", "arm64") else "aarch64"
    (report,) = export(mlp, ["cpp"], tmp_path, target=other)
    assert report.check is None
    assert report.reason == f"this machine cannot run code for {other}"


def test_unknown_formats_and_targets(mlp, tmp_path):
    with pytest.raises(ExportError, match="no export format 'coreml'; there are cpp, tflite"):
        export(mlp, ["coreml"], tmp_path)
    with pytest.raises(UnsupportedError, match="no target `vax`"):
        export(mlp, ["cpp"], tmp_path, target="vax")


def test_an_unsupported_model_says_where(bundle_of, tmp_path):
    bundle = bundle_of(lambda w, x: tnp.sort(x, -1), {"x": ((BATCH, 3), F32)}, {})
    with pytest.raises(UnsupportedError, match=r"test_report\.py:\d+: stablehlo\.sort"):
        export(bundle, ["tflite"], tmp_path)


def test_a_failed_export_leaves_no_report_of_an_earlier_one(mlp, bundle_of, tmp_path):
    export(mlp, ["tflite"], tmp_path, engine="evaluator")
    assert (tmp_path / "tflite" / "report.json").exists()
    bad = bundle_of(lambda w, x: tnp.sort(x, -1), {"x": ((BATCH, 3), F32)}, {}, name="mlp")
    with pytest.raises(UnsupportedError):
        export(bad, ["tflite"], tmp_path)
    assert not (tmp_path / "tflite" / "report.json").exists()


@pytest.mark.outside("ai_edge_litert")
def test_a_file_that_the_runtime_refuses(mlp, tmp_path):
    (tmp_path / "mlp.tflite").write_bytes(b"not a model")
    with pytest.raises(CompileError, match=r"LiteRT does not accept .*mlp\.tflite"):
        FORMATS["tflite"].check(mlp, [tmp_path / "mlp.tflite"], None, "evaluator")


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize("actual, expected, absolute, relative", [
    ([1.0, 2.0], [1.0, 2.0], 0, 0),
    ([1.0, 2.5], [1.0, 2.0], 0.5, 0.25),
    ([NAN, INF, 1.0], [NAN, INF, 1.0], 0, 0),
    ([NAN, 1.0], [1.0, 1.0], INF, INF),
    ([INF, 1.0], [-INF, 1.0], INF, INF),
    ([1e-9], [0.0], 1e-9, INF),
    ([], [], 0, 0),
    ([1.0], [1.0, 2.0], INF, INF),
])
def test_errors(actual, expected, absolute, relative):
    found = errors({"y": np.array(actual)}, {"y": np.array(expected)})
    np.testing.assert_allclose(found, (absolute, relative))


def test_a_missing_output_is_an_infinite_error():
    assert errors({}, {"y": np.ones(2)}) == (INF, INF)


def test_a_large_error_is_not_ok():
    check = Check("LiteRT", "2", 1, 1.0, 1e-3)
    assert not Report("tflite", "m/1", {}, check).ok
    assert Report("tflite", "m/1", {}, check).as_json()["ok"] is False


def test_samples_are_the_same_each_time_and_fit(bundle_of):
    bundle = bundle_of(lambda w, x, i: x, {"x": ((BATCH, 3), F32), "i": ((2,), I32)}, {})
    first, second = (make_samples(bundle, 4)["serving_default"] for _ in range(2))
    assert first["x"].shape == (4, 3) and first["i"].shape == (2,)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    given = {"serving_default": {"x": np.ones((9, 3), np.float32), "i": np.zeros(2, np.int32)}}
    taken = take_samples(bundle, given, 7)["serving_default"]
    assert taken["x"].shape == (7, 3) and taken["i"].shape == (2,)
