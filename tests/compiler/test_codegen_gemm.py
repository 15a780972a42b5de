"""Matrix products: memory orders, tile edges, batches, one row or column, and what follows them."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, F64
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(3)
TOLERANCE = {"float32": 3e-6, "float64": 1e-13}
"""Of the largest element: sums of up to 2,100 products."""


def random(shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def check(program, reference, *arrays):
    """A jitted program of arrays against NumPy in double precision."""
    found = np.asarray(jit(program)(*[tnp.asarray(a) for a in arrays]))
    expected = reference(*[a.astype(np.float64) for a in arrays])
    assert found.shape == expected.shape
    assert found.dtype == arrays[0].dtype
    error = np.abs(found - expected).max(initial=0)
    assert error <= TOLERANCE[found.dtype.name] * max(np.abs(expected).max(initial=0), 1)


SHAPES = [(2, 449, 65), (3, 900, 130), (6, 1000, 2100), (6, 13, 5), (4, 25, 17),
          (128, 128, 128), (1, 7, 5), (33, 65, 17), (7, 1000, 10), (100, 3, 1000), (257, 449, 97),
          (12, 896, 48), (0, 5, 4), (4, 0, 5), (5, 4, 0), (1, 2048, 1000), (1, 30, 4100), (4100, 30, 1)]


@pytest.mark.parametrize("order", ["ij,jk", "ji,jk", "ij,kj", "ji,kj"])
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_memory_orders(m, k, n, order):
    sizes = {"i": m, "j": k, "k": n}
    left, right = (random([sizes[c] for c in part]) for part in order.split(","))
    spec = f"{order}->ik"
    check(lambda a, b: tnp.einsum(spec, a, b), lambda a, b: np.einsum(spec, a, b), left, right)


EINSUMS = [
    ("bij,bjk->bik", (5, 20, 30), (5, 30, 40)),
    ("bthd,bshd->bhts", (2, 33, 4, 16), (2, 21, 4, 16)),
    ("bhts,bshd->bhtd", (2, 4, 33, 21), (2, 21, 4, 16)),
    ("btc,cd->btd", (3, 40, 50), (50, 60)),
    ("btc,btd->cd", (3, 40, 50), (3, 40, 60)),
    ("btc,chd->bthd", (3, 40, 50), (50, 6, 8)),
    ("abcd,cd->ab", (3, 4, 5, 6), (5, 6)),
    ("acbd,dc->ab", (3, 5, 4, 6), (6, 5)),
    ("bhtd,chd->btc", (3, 4, 33, 16), (50, 4, 16)),
    ("bhtd,hdc->btc", (3, 4, 33, 16), (4, 16, 50)),
    ("bhtd,hdc->btc", (2, 40, 7, 16), (40, 16, 500)),
    ("bhtd,bhtc->dc", (2, 4, 7, 16), (2, 4, 7, 50)),
    ("bthd,bhtc->hdc", (2, 7, 4, 16), (2, 4, 7, 50)),
    ("ij,j->i", (70, 900), (900,)),
    ("ji,j->i", (900, 70), (900,)),
    ("ji,j->i", (11, 5000), (11,)),
    ("i,ij->j", (25,), (25, 33)),
    ("bij,bj->bi", (3, 40, 500), (3, 500)),
    ("bji,bj->bi", (3, 500, 40), (3, 500)),
    ("aib,i->ab", (7, 50, 9), (50,)),
    ("bi,bi->b", (30, 50), (30, 50)),
    ("abt,bta->", (2, 7, 4), (7, 4, 2)),
    ("ahc,ch->a", (30, 4, 5), (5, 4)),
    ("ij,j->i", (50, 70), (70,)),
    ("i,ij->j", (50,), (50, 70)),
    ("i,i->", (50,), (50,)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("spec", "left", "right"), EINSUMS)
def test_einsums(spec, left, right, dtype):
    check(lambda a, b: tnp.einsum(spec, a, b), lambda a, b: np.einsum(spec, a, b),
          random(left, dtype), random(right, dtype))


@pytest.mark.parametrize(("spec", "left", "right"), [
    ("bhtd,hdc->btc", (2, 0, 7, 16), (0, 16, 50)), ("bhtd,hdc->btc", (2, 3, 7, 0), (3, 0, 50)),
    ("bhtd,bhtc->dc", (0, 4, 7, 16), (0, 4, 7, 50)), ("ahc,ch->a", (30, 0, 5), (5, 0)),
    ("ij,jk->ik", (9, 0), (0, 40)), ("ij,j->i", (9, 0), (0,))])
def test_sums_of_nothing_are_zeros_wherever_they_are_written(spec, left, right):
    function, _ = trace(lambda a, b: [tnp.einsum(spec, a, b)],
                        [TensorType(s, F32) for s in (left, right)])
    executable = compile_function(function)
    for _ in range(4):
        (found,) = executable(np.zeros(left, np.float32), np.zeros(right, np.float32))
        assert not found.any()
        found[...] = np.nan  # Its memory is used again.
        del found


FOLLOWERS = {
    "bias and relu": (lambda t, x, w, b: t.maximum(x @ w + b, 0), (77, 65), (65, 33), (33,)),
    "one row": (lambda t, x, w, b: t.maximum(x @ w + b, 0), (1, 65), (65, 5000), (5000,)),
    "one row, transposed": (lambda t, x, w, b: t.maximum(x @ w.T + b, 0), (1, 65), (5000, 65), (5000,)),
    "few rows": (lambda t, x, w, b: t.maximum(x @ w + b, 0), (4, 600), (600, 5000), (5000,)),
    "a matrix and a vector": (lambda t, w, x, b: t.maximum(w @ x + b, 0), (500, 65), (65,), (500,)),
    "residual": (lambda t, x, w, b, r: t.tanh(x @ w + b) * 2 + r, (200, 65), (65, 300), (300,),
                 (200, 300)),
    "three dims": (lambda t, x, w, b, r: x @ w + b - r, (3, 40, 50), (50, 60), (60,), (3, 40, 60)),
    "two products": (lambda t, x, w, h, u: t.tanh(x @ w + h @ u), (20, 65), (65, 30), (20, 40),
                     (40, 30)),
    "attention scores": (lambda t, a, b: t.exp(t.einsum("bthd,bshd->bhts", a, b) * 0.1),
                         (2, 33, 4, 16), (2, 21, 4, 16)),
    "used twice": (lambda t, x, w: (x @ w) * t.tanh(x @ w), (20, 65), (65, 30)),
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_what_follows_is_done_in_the_same_kernel(name):
    program, *shapes = FOLLOWERS[name]
    arrays = [random(s) for s in shapes]
    check(lambda *a: program(tnp, *a), lambda *a: program(np, *a), *arrays)
    function, _ = trace(lambda *a: [program(tnp, *a)], [TensorType(s, F32) for s in shapes])
    kernels = compile_function(function).plan.kernels()
    assert len(kernels) == (2 if name == "two products" else 1)


def test_an_update_in_place_reads_the_old_value():
    step = jit(lambda w, x, y: w - 0.1 * (x.T @ y), donate_argnums=0)
    w, x, y = random((70, 50)), random((33, 70)), random((33, 50))
    own = jit(lambda w: w + 0)(tnp.asarray(w))
    np.testing.assert_allclose(step(own, tnp.asarray(x), tnp.asarray(y)), w - 0.1 * (x.T @ y),
                               rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_row_has_the_same_bits_anywhere_in_a_batch_of_any_size(dtype):
    rows = Dim.named("rows")
    function, _ = trace(lambda x, w: [x @ w], [TensorType((rows, 500), dtype),
                                               TensorType((500, 130), dtype)])
    executable = compile_function(function)
    x, w = random((300, 500), dtype.name.replace("f", "float")), random(
        (500, 130), dtype.name.replace("f", "float"))
    whole = executable(x, w)[0]
    for start, stop in ((0, 7), (100, 131), (290, 300), (3, 203), (5, 6), (17, 19), (294, 300)):
        assert executable(x[start:stop], w)[0].tobytes() == whole[start:stop].tobytes()


@pytest.mark.parametrize("depth", [40, 64, 300])
def test_rows_have_the_same_bits_whether_the_matrix_is_packed(depth):
    """Thousands of rows pack a matrix that fewer use where it is."""
    n = Dim.named("n")
    function, _ = trace(lambda a, b: [a @ b], [TensorType((n, depth), F32),
                                               TensorType((depth, 520), F32)])
    executable = compile_function(function)
    a, b = random((1300, depth)), random((depth, 520))
    (whole,) = executable(a, b)
    np.testing.assert_allclose(whole, a.astype("f8") @ b.astype("f8"), atol=TOLERANCE["float32"] * 200)
    for start, stop in ((0, 1), (30, 90), (200, 1224)):
        (part,) = executable(a[start:stop], b)
        assert part.tobytes() == whole[start:stop].tobytes()


@pytest.mark.parametrize(("spec", "permutation"), [("ki,kj->ij", (1, 0)), ("bki,bkj->bij", (0, 2, 1)),
                                                   ("kia,kj->iaj", (2, 0, 1))])
def test_a_transposed_product_is_made_the_other_way_round(spec, permutation):
    left, right = spec.partition("->")[0].split(",")
    sizes = {"b": 3, "k": 20, "i": 7, "j": 5, "a": 2}
    arrays = [random([sizes[c] for c in part]) for part in (left, right)]
    check(lambda a, b: tnp.transpose(tnp.einsum(spec, a, b), permutation),
          lambda a, b: np.transpose(np.einsum(spec, a, b), permutation), *arrays)
    function, _ = trace(lambda a, b: [tnp.transpose(tnp.einsum(spec, a, b), permutation)],
                        [TensorType(a.shape, F32) for a in arrays])
    assert len(compile_function(function).plan.kernels()) == 1
