"""The C++ export: built by g++, run, compared; what the object needs and what the header says."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest

from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.errors import CompileError, UnsupportedError
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import C64, F16, F32, F64, I1, I32, I64
from tfn.export.bundle import Runner
from tfn.export.cpp import (
    build_example,
    check_cpp,
    identifier,
    run_example,
    runs_here,
    write_cpp,
)
from tfn.export.report import errors

BATCH = Dim.named("batch")
gpp = pytest.mark.outside("g++")


def run(bundle, inputs, folder):
    """Write, build and run; outputs by name."""
    write_cpp(bundle, folder)
    (signature,) = bundle.signatures.values()
    return run_example(build_example(bundle, folder, folder), signature, inputs, folder)


@gpp
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_models(model, tmp_path, request):
    bundle = request.getfixturevalue(model)
    check = check_cpp(bundle, write_cpp(bundle, tmp_path), engine="evaluator")
    assert check.max_rel_error <= 1e-5
    assert (check.batches, check.samples, check.runtime) == ((1, 7, 100), 108, "g++")


@gpp
def test_mlp_against_numpy(mlp, tmp_path):
    x = np.random.default_rng(5).normal(size=(33, 8)).astype(np.float32)
    w = {k: v.astype(np.float64) for k, v in mlp.weights.items()}
    logits = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    grown = np.exp(logits - logits.max(1, keepdims=True))
    got = run(mlp, {"x": x}, tmp_path)["output_0"]
    np.testing.assert_allclose(got, grown / grown.sum(1, keepdims=True), rtol=1e-5, atol=1e-7)


@gpp
def test_several_inputs_outputs_and_types(bundle_of, tmp_path):
    def apply(w, x, ids, keep, wide):
        rows = tnp.where(keep[:, None], nn.embedding(w["table"], ids) + x, 0)
        return rows, tnp.argmax(rows, -1), tnp.sum(rows, 1) > 0, wide * 2

    bundle = bundle_of(apply, {"x": ((BATCH, 4), F32), "ids": ((BATCH,), I64),
                               "keep": ((BATCH,), I1), "wide": ((3,), F64)},
                       {"table": np.arange(20, dtype=np.float32).reshape(5, 4)})
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(6, 4)).astype(np.float32), "ids": rng.integers(0, 5, 6),
              "keep": rng.integers(0, 2, 6).astype(bool), "wide": rng.normal(size=3)}
    actual = run(bundle, inputs, tmp_path)
    expected = Runner(bundle, engine="evaluator").run(inputs)
    for name, want in expected.items():
        np.testing.assert_allclose(actual[name], want, rtol=1e-6)
        assert actual[name].dtype == want.dtype


@gpp
def test_16_bit_floats_are_passed_as_bits(bundle_of, tmp_path):
    bundle = bundle_of(lambda w, x: x * 2, {"x": ((BATCH, 3), F16)}, {})
    x = np.arange(6).reshape(2, 3).astype(np.float16)
    np.testing.assert_array_equal(run(bundle, {"x": x}, tmp_path)["output_0"], x * 2)


@gpp
@pytest.mark.parametrize("target", [None, "host", "x86-64"])
def test_large_weights(bundle_of, tmp_path, target):
    """Constants of many sizes, some of them mostly or all zero, arrive in the object as they are."""
    if target == "x86-64" and not runs_here(Target.named(target)):
        pytest.skip("another architecture")
    rng = np.random.default_rng(1)
    weights = {"dense": rng.normal(size=(64, 300)).astype(np.float32),
               "zero": np.zeros((300, 40), np.float32), "sparse": np.zeros((300, 40), np.float32),
               "same": np.full((64, 300), 0.25, np.float32)}
    weights["sparse"][-1, -1] = 7

    def apply(w, x):
        hidden = tnp.matmul(x, w["dense"]) + tnp.matmul(x, w["same"])
        return tnp.matmul(hidden, w["zero"]) + tnp.matmul(hidden, w["sparse"]), hidden

    bundle = bundle_of(apply, {"x": ((BATCH, 64), F32)}, weights)
    check = check_cpp(bundle, write_cpp(bundle, tmp_path, target), engine="evaluator")
    assert check.max_rel_error <= 1e-5


@gpp
def test_fixed_shapes_need_no_batch(bundle_of, tmp_path):
    bundle = bundle_of(lambda w, x: nn.softmax(x), {"x": ((2, 3), F32)}, {})
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(run(bundle, {"x": x}, tmp_path)["output_0"], 1 / 3, rtol=1e-6)
    assert "workspace_size()" in (tmp_path / "model.h").read_text()


@gpp
def test_several_signatures(mlp, tmp_path):
    first = mlp.signature("serving_default")
    both = replace(mlp, signatures={**mlp.signatures, "score": replace(first, name="score")})
    assert check_cpp(both, write_cpp(both, tmp_path), engine="evaluator").max_rel_error <= 1e-5
    header = (tmp_path / "mlp.h").read_text()
    assert "score_workspace_size" in header
    assert "\nconstexpr std::int64_t workspace_size" not in header


@gpp
def test_awkward_names(bundle_of, tmp_path):
    bundle = bundle_of(lambda w, a, b: [a + b], {"class": ((BATCH, 2), F32),
                                                 "workspace": ((BATCH, 2), F32)}, {},
                       name="9-lives.v2")
    inputs = {"class": np.ones((3, 2), np.float32), "workspace": np.ones((3, 2), np.float32)}
    np.testing.assert_array_equal(run(bundle, inputs, tmp_path)["output_0"], 2)


@pytest.mark.parametrize("name, taken, expected", [
    ("x", (), "x"), ("my-model", (), "my_model"), ("class", (), "m_class"), ("9", (), "m_9"),
    ("dims", ("dims",), "dims_"), ("", (), "m_"), ("größe", (), "gr__e"),
])
def test_identifiers(name, taken, expected):
    assert identifier(name, taken) == expected


def test_header_is_what_a_user_includes(cnn, tmp_path):
    write_cpp(cnn, tmp_path)
    header = (tmp_path / "cnn.h").read_text()
    assert "namespace cnn {" in header
    assert "constexpr std::int64_t workspace_size(std::int64_t batch)" in header
    assert ("inline void serving_default(\n    std::int64_t batch,\n    const float* image,\n"
            "    float* output_0,\n    void* workspace)") in header
    assert "constexpr std::int64_t serving_default_image_shape[] = {-1, 8, 8, 1};" in header
    assert max(map(len, header.splitlines())) <= 100


def test_object_needs_no_library(cnn, tmp_path):
    files = write_cpp(cnn, tmp_path)
    symbols = subprocess.run(["nm", str(files[0])], capture_output=True, text=True)
    if symbols.returncode:
        pytest.skip("nm cannot read the object")
    undefined = {line.split()[-1] for line in symbols.stdout.splitlines() if " U " in line}
    assert undefined <= {"memcpy", "memset", "memmove"}
    exported = [line.split()[-1] for line in symbols.stdout.splitlines() if " T " in line]
    assert exported == ["cnn_serving_default_entry"]


def test_same_bundle_gives_same_bytes(mlp, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_cpp(mlp, tmp_path / name)
    for file in ("mlp.o", "mlp.h", "main.cc"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@gpp
def test_two_models_in_one_program(mlp, cnn, tmp_path):
    for bundle in (mlp, cnn):
        write_cpp(bundle, tmp_path)
    (tmp_path / "both.cc").write_text(
        '#include "mlp.h"\n#include "cnn.h"\n#include <vector>\n'
        "int main() {\n"
        "  std::vector<float> x(8, 1), y(4), i(64, 1), p(10);\n"
        "  std::vector<char> a(mlp::workspace_size(1)), b(cnn::workspace_size(1));\n"
        "  mlp::serving_default(1, x.data(), y.data(), a.data());\n"
        "  cnn::serving_default(1, i.data(), p.data(), b.data());\n"
        "  float sum = 0;\n"
        "  for (float v : y) sum += v;\n"
        "  for (float v : p) sum += v;\n"
        "  return sum > 1.999f && sum < 2.001f ? 0 : 1;\n}\n")
    program = tmp_path / "both"
    subprocess.run(["g++", "-std=c++11", "both.cc", "mlp.o", "cnn.o", "-o", str(program)],
                   cwd=tmp_path, check=True)
    assert subprocess.run([str(program)]).returncode == 0


@gpp
def test_threads_with_a_workspace_each(mlp, tmp_path):
    """The object keeps no state: calls from many threads give what one thread gives."""
    write_cpp(mlp, tmp_path)
    (tmp_path / "threads.cc").write_text(
        '#include "mlp.h"\n#include <thread>\n#include <vector>\n'
        "int main() {\n"
        "  std::vector<float> x(80);\n"
        "  for (int i = 0; i < 80; ++i) x[i] = i * 0.01f - 0.4f;\n"
        "  std::vector<std::vector<float>> y(8, std::vector<float>(40));\n"
        "  std::vector<std::thread> threads;\n"
        "  for (auto& out : y) threads.emplace_back([&] {\n"
        "    std::vector<char> w(mlp::workspace_size(10));\n"
        "    for (int n = 0; n < 100; ++n) mlp::serving_default(10, x.data(), out.data(), w.data());\n"
        "  });\n"
        "  for (auto& t : threads) t.join();\n"
        "  for (auto& out : y) if (out != y[0]) return 1;\n"
        "  return 0;\n}\n")
    program = tmp_path / "threads"
    subprocess.run(["g++", "-std=c++11", "-pthread", "threads.cc", "mlp.o", "-o", str(program)],
                   cwd=tmp_path, check=True)
    assert subprocess.run([str(program)]).returncode == 0


@gpp
def test_example_refuses_wrong_files(mlp, tmp_path):
    write_cpp(mlp, tmp_path)
    program = build_example(mlp, tmp_path, tmp_path)
    assert subprocess.run([str(program)], capture_output=True).returncode == 2
    (tmp_path / "short").write_bytes(b"1234")
    ran = subprocess.run([str(program), "serving_default", "1", str(tmp_path / "short"), "out"],
                         capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 1
    assert "is not a file of 32 bytes" in ran.stderr


@gpp
def test_an_example_that_does_not_build_shows_the_compiler_s_words(mlp, tmp_path):
    write_cpp(mlp, tmp_path)
    (tmp_path / "mlp.h").write_text("#error broken\n")
    with pytest.raises(CompileError, match=r"does not accept the exported mlp\.h:[\s\S]*broken"):
        build_example(mlp, tmp_path, tmp_path)


@pytest.mark.parametrize("target", ["aarch64", "x86-64", "x86-64-v4"])
def test_other_targets(mlp, tmp_path, target):
    image = write_cpp(mlp, tmp_path, target)[0].read_bytes()
    assert image[:4] == b"\x7fELF"
    assert image[18] == {"aarch64": 0xB7}.get(target, 0x3E)


def test_what_runs_here():
    host = Target.host()
    assert runs_here(host)
    other = "aarch64" if host.triple.startswith("x86") else "x86-64"
    assert not runs_here(Target.named(other))


def test_element_types_without_a_cpp_type(bundle_of, tmp_path):
    bundle = bundle_of(lambda w, x: x + x, {"x": ((BATCH, 2), C64)}, {})
    with pytest.raises(UnsupportedError, match=r"x: complex<f32>\[batch, 2\] has element type"):
        write_cpp(bundle, tmp_path)


@gpp
def test_integer_model(bundle_of, tmp_path):
    bundle = bundle_of(lambda w, a: a * 3 + w["b"], {"a": ((BATCH, 2), I32)},
                       {"b": np.array([5, 6], np.int32)})
    a = np.array([[1, 2], [3, 4]], np.int32)
    got = run(bundle, {"a": a}, tmp_path)
    assert errors(got, {"output_0": a * 3 + [5, 6]}) == (0, 0)
