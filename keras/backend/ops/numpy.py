"""`keras.ops.numpy` on tfn: thin over `tfn.numpy`, with Keras's dtype rules.

Keras promotes as JAX does (int32 with float32 is float32) and computes float functions of integers
in `floatx`. Tables say which rule a function follows; the rest are written out below them.
"""

from __future__ import annotations

from typing import Any

from keras.src.backend import config
from keras.src.backend.common import standardize_dtype
from keras.src.backend.common.dtypes import result_type

from ....compiler import numpy as tnp
from ....compiler.trace.core import Array
from ..missing import missing
from .core import convert_to_tensor, held


def _named(name: str, function, doc: str):
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _dtype(x: Any) -> Any:
    return getattr(x, "dtype", type(x))


def _float(x: Any) -> Any:
    """`x` as a tensor; integers and booleans in `floatx`."""
    x = convert_to_tensor(x)
    if x.dtype.kind in "iub":
        return x.astype(config.floatx())
    return x


def _together(*xs: Any) -> list:
    """Tensors of the dtype Keras gives their combination."""
    tensors = [held(x) for x in xs]
    if {type(x) for x in tensors} == {Array} and len({x.dtype for x in tensors}) == 1:
        return tensors
    dtype = result_type(*[_dtype(x) for x in xs])
    return [convert_to_tensor(x, dtype) for x in xs]


FLOAT = (
    "exp exp2 expm1 log log10 log1p log2 sqrt sin cos tan sinh cosh tanh arcsin arccos arctan"
    " arcsinh arccosh arctanh sinc i0 cbrt deg2rad rad2deg mean var std median"
).split()
"""Float functions of their first argument: integers are computed in `floatx`."""

TOGETHER = (
    "add subtract multiply maximum minimum mod floor_divide arctan2 logaddexp logaddexp2 fmax fmin"
    " fmod hypot heaviside power equal not_equal greater greater_equal less less_equal isclose"
    " allclose bitwise_and bitwise_or bitwise_xor left_shift right_shift bitwise_left_shift"
    " bitwise_right_shift gcd lcm nextafter ldexp copysign matmul dot inner outer vdot tensordot"
    " kron cross append"
).split()
"""Functions of two tensors that first take a common dtype."""

PLAIN = (
    "abs absolute all amax amin angle any argmax argmin argpartition argsort array_split bincount"
    " bitwise_invert bitwise_not broadcast_to ceil clip conj conjugate copy corrcoef correlate"
    " count_nonzero cumprod cumsum diag diagflat diagonal diff digitize expand_dims fabs flip"
    " fliplr flipud floor full_like histogram imag isfinite isin isinf isnan isneginf isposinf"
    " isreal logical_not max meshgrid min moveaxis nan_to_num nanargmax nanargmin nancumprod"
    " nancumsum nanmax nanmean nanmedian nanmin nanpercentile nanprod nanquantile nanstd nansum"
    " nanvar negative nonzero ones_like percentile prod ptp quantile ravel real reciprocal repeat"
    " reshape roll rot90 round searchsorted sign signbit sort square squeeze swapaxes take"
    " take_along_axis tile trace transpose trapezoid tril triu trunc unique unravel_index vander"
    " view zeros_like divide_no_nan empty_like"
).split()
"""Functions passed on as they are, their tensors converted."""

SEQUENCE = "concatenate stack hstack vstack dstack".split()
"""Functions of a list of tensors, which take a common dtype."""

WINDOWS = "bartlett blackman hamming hanning kaiser".split()


def _declare() -> None:
    """Make the functions of the tables."""

    def float_function(name):
        target = getattr(tnp, name)
        return lambda x, *args, **kwargs: target(_float(x), *args, **kwargs)

    def together(name):
        target = getattr(tnp, name)
        return lambda x1, x2, *args, **kwargs: target(*_together(x1, x2), *args, **kwargs)

    def plain(name):
        target = getattr(tnp, name)
        return lambda x, *args, **kwargs: target(convert_to_tensor(x), *args, **kwargs)

    def sequence(name):
        target = getattr(tnp, name)
        return lambda xs, *args, **kwargs: target(_together(*xs), *args, **kwargs)

    def window(name):
        target = getattr(tnp, name)
        return lambda *args, **kwargs: target(*args, **kwargs)

    tables = ((FLOAT, float_function), (TOGETHER, together), (PLAIN, plain),
              (SEQUENCE, sequence), (WINDOWS, window))
    for names, make in tables:
        for name in names:
            function = make(name) if hasattr(tnp, name) else missing(name)
            globals()[name] = _named(name, function, f"`keras.ops.{name}`.")


_declare()

# -- creation -------------------------------------------------------------------------------------


def array(x, dtype=None):
    return convert_to_tensor(x, dtype)


def zeros(shape, dtype=None):
    return tnp.zeros(shape, dtype=dtype or config.floatx())


def ones(shape, dtype=None):
    return tnp.ones(shape, dtype=dtype or config.floatx())


def empty(shape, dtype=None):
    return zeros(shape, dtype)


def full(shape, fill_value, dtype=None):
    return tnp.broadcast_to(convert_to_tensor(fill_value, dtype or config.floatx()), shape)


def eye(N, M=None, k=0, dtype=None):
    return tnp.eye(N, M, k=k, dtype=dtype or config.floatx())


def identity(n, dtype=None):
    return eye(n, dtype=dtype)


def tri(N, M=None, k=0, dtype=None):
    return tnp.tri(N, M, k=k, dtype=dtype or config.floatx())


def arange(start, stop=None, step=None, dtype=None):
    if dtype is None:
        dtype = result_type(*[_dtype(v) for v in (start, stop, step) if v is not None])
    return tnp.arange(start, stop, step, dtype=standardize_dtype(dtype))


def linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0):
    dtype = dtype or result_type(_dtype(start), _dtype(stop), float)
    return tnp.linspace(start, stop, num=num, endpoint=endpoint, retstep=retstep, dtype=dtype,
                        axis=axis)


def logspace(start, stop, num=50, endpoint=True, base=10, dtype=None, axis=0):
    dtype = dtype or result_type(_dtype(start), _dtype(stop), float)
    return tnp.logspace(start, stop, num=num, endpoint=endpoint, base=base, dtype=dtype, axis=axis)


def geomspace(start, stop, num=50, endpoint=True, dtype=None, axis=0):
    dtype = dtype or result_type(_dtype(start), _dtype(stop), float)
    return tnp.geomspace(start, stop, num=num, endpoint=endpoint, dtype=dtype, axis=axis)


# -- arithmetic with rules of its own ---------------------------------------------------------------

def divide(x1, x2):
    dtype = result_type(_dtype(x1), _dtype(x2), float)
    return tnp.divide(convert_to_tensor(x1, dtype), convert_to_tensor(x2, dtype))


def true_divide(x1, x2):
    return divide(x1, x2)


def logical_and(x1, x2):
    return tnp.logical_and(convert_to_tensor(x1, "bool"), convert_to_tensor(x2, "bool"))


def logical_or(x1, x2):
    return tnp.logical_or(convert_to_tensor(x1, "bool"), convert_to_tensor(x2, "bool"))


def logical_xor(x1, x2):
    return tnp.logical_xor(convert_to_tensor(x1, "bool"), convert_to_tensor(x2, "bool"))


def sum(x, axis=None, keepdims=False):
    x = convert_to_tensor(x)
    narrow = {"bool": "int32", "int8": "int32", "int16": "int32", "uint8": "uint32",
              "uint16": "uint32"}
    name = standardize_dtype(x.dtype)
    return tnp.sum(x.astype(narrow[name]) if name in narrow else x, axis=axis, keepdims=keepdims)


def average(x, axis=None, weights=None):
    x = _float(x)
    if weights is None:
        return tnp.mean(x, axis=axis)
    weights = convert_to_tensor(weights, x.dtype)
    if weights.ndim != x.ndim:
        weights = tnp.reshape(weights, [-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])
    weights = tnp.broadcast_to(weights, x.shape)
    return tnp.sum(x * weights, axis=axis) / tnp.sum(weights, axis=axis)


def einsum(subscripts, *operands, **kwargs):
    return tnp.einsum(subscripts, *_together(*operands))


def where(condition, x1=None, x2=None):
    condition = convert_to_tensor(condition, "bool")
    if x1 is None or x2 is None:
        return tnp.where(condition)
    return tnp.where(condition, *_together(x1, x2))


def select(condlist, choicelist, default=0):
    return tnp.select(condlist, choicelist, default=default)


def pad(x, pad_width, mode="constant", constant_values=None):
    extra = {} if constant_values is None else {"constant_values": constant_values}
    return tnp.pad(convert_to_tensor(x), pad_width, mode=mode, **extra)


def ndim(x):
    return convert_to_tensor(x).ndim


def size(x):
    return convert_to_tensor(x).size


def split(x, indices_or_sections, axis=0):
    sections = indices_or_sections
    if not isinstance(sections, int):
        sections = [int(i) for i in sections]
    return tnp.split(convert_to_tensor(x), sections, axis=axis)


def hsplit(x, indices_or_sections):
    x = convert_to_tensor(x)
    return split(x, indices_or_sections, axis=0 if x.ndim == 1 else 1)


def vsplit(x, indices_or_sections):
    return split(x, indices_or_sections, axis=0)


def dsplit(x, indices_or_sections):
    return split(x, indices_or_sections, axis=2)


def slogdet(x):
    return tnp.linalg.slogdet(_float(x))


vectorize = missing("vectorize")

