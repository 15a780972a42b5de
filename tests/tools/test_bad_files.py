"""`tfn inspect` and `tfn compile` on files that are no program: one sentence with the place, and exit
code 2."""

import pytest

from tfn.tools.cli import run

GOOD = """func.func @main(%a: tensor<2xf32>) -> tensor<2xf32> {
  %0 = stablehlo.add %a, %a : tensor<2xf32>
  return %0 : tensor<2xf32>
}
"""
FILES = {
    "not UTF-8": (b"\xff\xfe" + GOOD.encode(), "byte 0 is not UTF-8"),
    "cut off": (GOOD[:60].encode(), ":2: expected more text, got the end of the text (column"),
    "2**62 elements": (GOOD.replace("<2x", "<4611686018427387904x").encode(), ":1: `tensor<"),
    "empty": (b"", ":1: the text defines no function"),
    "zeros": (bytes(100), "unexpected character"),
    "deep": (b"(" * 100_000, ":1: expected `func.func`, got `(`"),
    "wrong op": (GOOD.replace("stablehlo.add", "stablehlo.tan").encode(),
                 ":2: stablehlo.tan takes 1 operands, got 2"),
}


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--stage", "plan"], ["compile"]],
                         ids=" ".join)
@pytest.mark.parametrize(("data", "message"), FILES.values(), ids=FILES.keys())
def test_bad_files(tmp_path, capsys, command, data, message):
    file = tmp_path / "program.mlir"
    file.write_bytes(data)
    assert run([command[0], str(file), *command[1:]]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and "Traceback" not in shown.err
    assert message in shown.err.replace("\n", "")
    assert not file.with_suffix(".o").exists()
