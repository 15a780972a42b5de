"""Plans kept on disk: found by what a program is, equal to those made anew, none when damaged."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import tfn
import tfn.compiler.numpy as tnp
from tfn.compiler import debug
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.digest import digest
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import BF16, F32, I32
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.runtime import disk, stored
from tfn.compiler.runtime.cache import KERNELS
from tfn.compiler.trace.core import trace

X, W = TensorType((6, 5), F32), TensorType((5, 5), F32)


def tower(x, w, scale=0.5):
    for _ in range(3):
        x = tnp.tanh(x @ w) * scale + tnp.mean(x, axis=0)
    return [x, tnp.sum(x)]


def traced(function=tower, types=(X, W), **options):
    return trace(lambda *a: function(*a, **options), types)[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(stored, "_WORTHWHILE", 1)
    return tmp_path


def planned(function, *arrays, **options):
    """The results, and whether the plan was found on disk."""
    before = KERNELS.statistics.planned
    results = compile_function(function, **options)(*arrays)
    return results, KERNELS.statistics.planned > before


def arrays(types=(X, W), **sizes):
    random = np.random.default_rng(4)
    shapes = [t.substitute(sizes).shape for t in types]
    return [random.standard_normal(s).astype(t.dtype.numpy) for s, t in zip(shapes, types, strict=True)]


def loop(x, w):
    return [tfn.while_loop(lambda s: tnp.sum(s) < 1e3, lambda s: s @ w + 7, x)]


def constants(x, w):
    table = np.array([np.nan, np.inf, -0.0, 1e-45, 0.1], np.float32)
    return [tnp.where(x > 0, table, np.float32(np.inf)) * 0.1, w + np.arange(25).reshape(5, 5)]


def half(x, w):
    return [tnp.argsort(x, axis=-1), x.astype("bfloat16") @ w.astype("bfloat16") * 0.3]


DONATING = """
func.func @main(%x: tensor<20000xf32> {tf.aliasing_output = 0 : i32}) -> tensor<20000xf32> {
  %y = stablehlo.sine %x : tensor<20000xf32>
  return %y : tensor<20000xf32>
}
"""


def test_donations_of_a_text(folder):
    for known in (False, True):
        x = np.ones(20000, np.float32)
        (y,), found = planned(parse_module(DONATING).functions["main"], x)
        assert found == known
        np.testing.assert_allclose(y, np.sin(np.float32(1)), rtol=1e-6)


@pytest.mark.parametrize("program", [tower, loop, constants, half])
def test_a_plan_from_disk_gives_the_same_bits(folder, program):
    first, found_first = planned(traced(program), *arrays())
    second, found_second = planned(traced(program), *arrays())
    assert (found_first, found_second) == (False, True)
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_a_plan_from_disk_is_the_plan(folder):
    function = traced(constants)
    made = compile_function(function).plan
    read = compile_function(function).plan
    assert [(s.places, s.extents, s.jump, s.work, s.phase) for s in read.steps] == [
        (s.places, s.extents, s.jump, s.work, s.phase) for s in made.steps]
    assert (read.arena_bytes, read.donations, read.threads) == (
        made.arena_bytes, made.donations, made.threads)
    for a, b in zip(read.kernels(), made.kernels(), strict=True):
        assert (a.name, a.scratch_bytes, a.lane_bytes, len(a.scalars)) == (
            b.name, b.scratch_bytes, b.lane_bytes, len(b.scalars))


def test_a_plan_from_disk_serves_every_size(folder):
    n = Dim.named("n")
    types = (TensorType((n, 5), F32), W)
    function = traced(lambda x, w: [tnp.exp(x) @ w, tnp.sum(x, axis=0)], types)
    planned(function, *arrays(types, n=3))
    for size in (1, 4):
        x, w = arrays(types, n=size)
        (product, sums), found = planned(function, x, w)
        assert found
        np.testing.assert_allclose(product, np.exp(x) @ w, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(sums, np.sum(x, axis=0), rtol=1e-5, atol=1e-6)


def test_donated_arguments_stay_donated(folder):
    def step():
        # A function anew: `jit` keeps what it compiled.
        return tfn.jit(lambda w, x: (w - 0.1 * tnp.tanh(x).sum(), x * 2), donate_argnums=0)

    before = KERNELS.statistics.planned
    for _ in range(2):
        w = tnp.ones((64, 64)) + 1
        step()(w, tnp.ones((4, 4)))
        with pytest.raises(tfn.compiler.errors.DonatedError):
            np.asarray(w)
    assert KERNELS.statistics.planned > before


@pytest.mark.parametrize("damage", [lambda b: b[:50], lambda b: b"", lambda b: b[:-1] + b"?"],
                         ids=["truncated", "empty", "another byte"])
def test_a_damaged_plan_is_made_again(folder, damage):
    expected, _ = planned(traced(), *arrays())
    (file,) = disk.directory().glob("p*")
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    results, found = planned(traced(), *arrays())
    assert not found and file.read_bytes() == sound
    np.testing.assert_array_equal(results[0], expected[0])


def test_nonsense_with_a_sound_checksum_is_no_plan(folder):
    planned(traced(), *arrays())
    (file,) = disk.directory().glob("p*")
    for content in (b"", b"\7", (2).to_bytes(8, "little") + b"{}", (4).to_bytes(8, "little") + b"null"):
        file.write_bytes(hashlib.sha256(content).digest() + content)
        assert stored.read(file.stem) is None


def test_a_plan_without_its_kernels_is_made_again(folder, monkeypatch):
    planned(traced(), *arrays())
    for file in disk.directory().glob("k*"):
        file.unlink()
    monkeypatch.setattr(KERNELS, "_addresses", {})
    before = KERNELS.statistics.compiled
    _, found = planned(traced(), *arrays())
    assert not found and KERNELS.statistics.compiled > before
    assert planned(traced(), *arrays())[1]


def test_what_decides_the_plan_is_in_its_name(folder, monkeypatch):
    host = Target.host()
    names = [stored.name_of(traced(), host, None), stored.name_of(traced(), host, 1 << 20),
             stored.name_of(traced(), host, None, fast_convolution=True),
             stored.name_of(traced(scale=0.25), host, None),
             stored.name_of(traced(), Target(host.triple, "other", host.features), None)]
    monkeypatch.setattr(stored, "_fingerprint", lambda: "other sources")
    names.append(stored.name_of(traced(), host, None))
    assert len(set(names)) == len(names)


def test_small_programs_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(stored, "_WORTHWHILE", 10_000)
    planned(traced(), *arrays())
    assert not list(disk.directory().glob("p*"))


def test_large_constants_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(stored, "_MAX_CONSTANTS", 8)
    planned(traced(constants), *arrays())
    assert not list(disk.directory().glob("p*"))


def test_programs_that_call_python_are_not_kept(folder):
    def program(x, w):
        debug.callback(lambda v: None, x)
        return [x @ w]

    assert digest(traced(program)) is None
    planned(traced(program), *arrays())
    assert not list(disk.directory().glob("p*"))


class TestDigest:
    def test_equal_programs(self):
        assert digest(traced()) == digest(traced()) is not None

    @pytest.mark.parametrize("other", [
        lambda x, w: [tnp.sin(x) + 1], lambda x, w: [tnp.cos(x) - 1], lambda x, w: [tnp.cos(x) + 2],
        lambda x, w: [tnp.cos(w) + 1], lambda x, w: [tnp.cos(x) + x], lambda x, w: [1 + tnp.cos(x)],
        lambda x, w: [tnp.cos(x) + 1, x], lambda x, w: [tnp.cos(x) + np.float32(-0.0)]])
    def test_other_ops_operands_constants_results(self, other):
        assert digest(traced(lambda x, w: [tnp.cos(x) + 1])) != digest(traced(other))

    @pytest.mark.parametrize("types", [(TensorType((5, 6), F32), W), (TensorType((6, 5), I32), W),
                                       (TensorType((6, 5), BF16), W), (X, X),
                                       (TensorType((Dim.named("n"), 5), F32), W),
                                       (TensorType((Dim.named("m"), 5), F32), W)])
    def test_other_types(self, types):
        def program(x, w):
            return [x * 2, w * 2]

        others = {digest(traced(program, t)) for t in ((X, W), types)}
        assert len(others) == 2

    def test_donation_counts(self):
        function, other = traced(), traced()
        other.argument_attributes[0]["tf.aliasing_output"] = 0
        assert digest(function) != digest(other)

    def test_bodies_of_composites_count(self):
        def program(axis):
            return lambda x, w: [tfn.nn.softmax(x, axis=axis)]

        assert digest(traced(program(0))) != digest(traced(program(1)))

    def test_nan_and_zeros_are_told_apart(self):
        values = [np.array(bits, np.uint32).view(np.float32)
                  for bits in (0, 0x80000000, 0x7FC00000, 0xFFC00000, 0x7FC00001)]
        found = {digest(traced(lambda x, w, v=v: [x + np.full((6, 5), v)])) for v in values}
        assert len(found) == len(values)


SCRIPT = """
import numpy as np
import tfn
from tfn import numpy as tnp
from tfn.compiler.runtime import stored
from tfn.compiler.runtime.cache import KERNELS
stored._WORTHWHILE = 20
def loss(w, x):
    for name in sorted(w):
        x = tfn.nn.softmax(tnp.tanh(x @ w[name])) + x
    return x.sum()
w = {name: tnp.ones((8, 8)) * n for n, name in enumerate("abc")}
gradients = tfn.jit(tfn.grad(loss))(w, tnp.ones((4, 8)) * 0.1)
print(np.asarray(gradients["b"]).sum(), KERNELS.statistics.compiled, KERNELS.statistics.planned)
"""


def test_a_second_process_neither_plans_nor_compiles(folder):
    (first, compiled, _), (second, none, found) = [
        subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True,
                       env={**os.environ, "PYTHONHASHSEED": seed}).stdout.split() for seed in "12"]
    assert first == second
    assert int(compiled) > 0
    assert (int(none), int(found)) == (0, 1)
