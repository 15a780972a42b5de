"""`tfn compile`, `inspect` and `doctor`."""

import json
import subprocess

import pytest

from tfn.compiler.passes import PIPELINE

PROGRAM = """
module {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %0 = stablehlo.add %x, %x : tensor<4xf32>
    %1 = stablehlo.add %x, %x : tensor<4xf32>
    %2 = stablehlo.multiply %0, %1 : tensor<4xf32>
    return %2 : tensor<4xf32>
  }
}
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "square.mlir"
    path.write_text(PROGRAM)
    return path


class TestCompile:
    def test_an_object(self, cli, program, tmp_path):
        result = cli("compile", program, "--json")
        assert result.code == 0
        image = (tmp_path / "square.o").read_bytes()
        assert image[:4] == b"\x7fELF"
        assert result.json["bytes"] == len(image)
        assert result.json["entries"][0]["arguments"] == ["tensor<4xf32>"]

    def test_another_machine(self, cli, program, tmp_path):
        assert cli("compile", program, "--target", "aarch64", "--out", "a.o").code == 0
        # e_machine of AArch64 is 183.
        assert (tmp_path / "a.o").read_bytes()[18] == 183

    @pytest.mark.outside("gcc")
    def test_it_runs(self, cli, program, tmp_path, outside_program):
        assert cli("compile", program).code == 0
        (tmp_path / "m.c").write_text(
            "#include <stdio.h>\n#include <stdint.h>\n"
            "void main_(const int64_t*, const void*const*, void*const*, void*) __asm__(\"main\");\n")
        (tmp_path / "m.c").write_text(
            "#include <stdio.h>\n#include <stdint.h>\nvoid square(const int64_t *, const void *const"
            " *, void *const *, void *);\nint main(void) { float x[4] = {1, 2, 3, 4}, y[4];\n"
            "static char arena[4096] __attribute__((aligned(64))); const void *a[] = {x}; void *r[] ="
            " {y}; square(0, a, r, arena); for (int i = 0; i < 4; i++) printf(\"%g \", y[i]);"
            " return 0; }\n")
        program.write_text(PROGRAM.replace("@main", "@square"))
        assert cli("compile", program).code == 0
        subprocess.run([outside_program("gcc"), "m.c", "square.o", "-o", "m"], cwd=tmp_path,
                       check=True)
        found = subprocess.run(["./m"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert found.stdout.split() == ["4", "16", "36", "64"]

    def test_an_unknown_target(self, cli, program):
        cli("compile", program, "--target", "pdp11").mistake("pdp11")

    def test_malformed_text(self, cli, program):
        program.write_text(PROGRAM.replace("%2 = stablehlo", "%2 = = stablehlo"))
        cli("compile", program).mistake(f"{program}:6", "column")

    def test_an_unknown_op(self, cli, program):
        program.write_text(PROGRAM.replace("stablehlo.multiply", "stablehlo.teleport"))
        cli("compile", program).mistake(f"{program}:6", "stablehlo.teleport", "not supported")

    def test_no_such_function(self, cli, program):
        cli("compile", program, "--function", "nope").mistake("nope", "main")

    def test_not_text(self, cli, tmp_path):
        (tmp_path / "b.mlir").write_bytes(b"ML\xefR\x00\xff\xfe")
        cli("compile", "b.mlir").mistake("b.mlir", "UTF-8")

    def test_a_missing_file(self, cli):
        cli("compile", "nowhere.mlir").mistake("nowhere.mlir")


class TestInspect:
    def test_stages(self, cli, program):
        assert cli("inspect", program, "--stage", "parse").out.count("stablehlo.add") == 2
        assert cli("inspect", program, "--stage", "cse").out.count("stablehlo.add") == 1
        assert cli("inspect", program, "--stage", "plan").code == 0

    def test_every_stage_that_is_listed(self, cli, program):
        stages = cli("inspect", "--stage", "list", "--json").json
        assert list(stages) == ["parse", *(name for name, _ in PIPELINE), "plan", "profile"]
        assert all(len(text) > 10 for text in stages.values())
        assert "square.mlir" in cli("inspect", program, "--stage", "profile").out
        for stage in list(stages)[:-1]:
            assert "main" in cli("inspect", program, "--stage", stage).out
        assert "layout" in cli("inspect", "--stage", "list").out

    def test_a_dumped_kernel(self, cli, program, tmp_path, monkeypatch):
        monkeypatch.setenv("TFN_DUMP", str(tmp_path / "dump"))
        assert cli("compile", program).code == 0
        monkeypatch.delenv("TFN_DUMP")
        (kernel,) = (tmp_path / "dump" / "kernels").glob("*.ll")
        result = cli("inspect", kernel, "--json")
        assert result.json["ops"] == ["stablehlo.add", "stablehlo.multiply"]
        assert result.json["error"] == 0
        assert kernel.stem in cli("inspect", kernel).out

    def test_without_a_path(self, cli):
        cli("inspect").mistake("needs a path: of a bundle")

    def test_an_unknown_stage(self, cli, program):
        cli("inspect", program, "--stage", "dreaming").mistake("dreaming", "cse")

    def test_a_bundle(self, cli, bundle):
        result = cli("inspect", bundle, "--json")
        assert result.code == 0
        assert "serving_default" in json.dumps(result.json)

    def test_a_run(self, cli, trained):
        assert cli("inspect", trained).code == 0

    def test_nothing(self, cli):
        cli("inspect", "nowhere").mistake("nowhere")


class TestDoctor:
    def test_json(self, cli):
        result = cli("doctor", "--json")
        assert result.code == 0
        text = json.dumps(result.json)
        for name in ("keras", "llvmlite", "mpi4py", "g++"):
            assert name in text

    def test_table(self, cli):
        result = cli("doctor")
        assert result.code == 0
        assert "keras" in result.out


class TestLaunch:
    def test_a_missing_script(self, cli):
        cli("launch", "nowhere.py").mistake("nowhere.py")
