"""`keras.ops.numpy` on tfn: thin over `tfn.numpy`, with Keras's dtype rules.

Tables say which rule a function follows; the rest are written out below them.
"""

from __future__ import annotations

import builtins

import numpy as np
from keras.src.backend import config
from keras.src.backend.common import standardize_dtype
from keras.src.backend.common.dtypes import result_type

from ....compiler import numpy as tnp
from ....compiler.ir.dtypes import as_dtype
from .core import convert_to_tensor, refuse_sparse, vectorized_map
from .operands import dtype_of, floating, together, together_floating
from .tables import declare

declare(globals(), "floating", tnp, """
    exp(x)
    exp2(x)
    expm1(x)
    log(x)
    log10(x)
    log1p(x)
    log2(x)
    sqrt(x)
    sin(x)
    cos(x)
    tan(x)
    sinh(x)
    cosh(x)
    tanh(x)
    arcsin(x)
    arccos(x)
    arctan(x)
    arcsinh(x)
    arccosh(x)
    arctanh(x)
    sinc(x)
    i0(x)
    cbrt(x)
    deg2rad(x)
    rad2deg(x)
    ceil(x)
    floor(x)
    fabs(x)
    corrcoef(x)
    mean(x, axis=None, keepdims=False)
    var(x, axis=None, keepdims=False)
    std(x, axis=None, keepdims=False)
    median(x, axis=None, keepdims=False)
    quantile(x, q, axis=None, method='linear', keepdims=False)
    percentile(x, q, axis=None, method='linear', keepdims=False)
    nanmean(x, axis=None, keepdims=False)
    nanvar(x, axis=None, keepdims=False)
    nanstd(x, axis=None, keepdims=False)
    nanmedian(x, axis=None, keepdims=False)
    nanquantile(x, q, axis=None, method='linear', keepdims=False)
    nanpercentile(x, q, axis=None, method='linear', keepdims=False)
""")

declare(globals(), "together", tnp, """
    add(x1, x2)
    subtract(x1, x2)
    multiply(x1, x2)
    maximum(x1, x2)
    minimum(x1, x2)
    fmax(x1, x2)
    fmin(x1, x2)
    mod(x1, x2)
    fmod(x1, x2)
    floor_divide(x1, x2)
    power(x1, x2)
    equal(x1, x2)
    not_equal(x1, x2)
    greater(x1, x2)
    greater_equal(x1, x2)
    less(x1, x2)
    less_equal(x1, x2)
    isclose(x1, x2, rtol=1e-05, atol=1e-08, equal_nan=False)
    allclose(x1, x2, rtol=1e-05, atol=1e-08, equal_nan=False)
    bitwise_and(x, y)
    bitwise_or(x, y)
    bitwise_xor(x, y)
    left_shift(x, y)
    right_shift(x, y)
    bitwise_left_shift(x, y)
    bitwise_right_shift(x, y)
    gcd(x1, x2)
    lcm(x1, x2)
    dot(x1, x2)
    inner(x1, x2)
    outer(x1, x2)
    vdot(x1, x2)
    tensordot(x1, x2, axes=2)
    kron(x1, x2)
    append(x1, x2, axis=None)
""")

declare(globals(), "together_floating", tnp, """
    divide(x1, x2)
    true_divide(x1, x2)
    divide_no_nan(x1, x2)
    arctan2(x1, x2)
    logaddexp(x1, x2)
    logaddexp2(x1, x2)
    hypot(x1, x2)
    heaviside(x1, x2)
    nextafter(x1, x2)
    correlate(x1, x2, mode='valid')
""")

declare(globals(), "tensor", tnp, """
    abs(x)
    absolute(x)
    all(x, axis=None, keepdims=False)
    any(x, axis=None, keepdims=False)
    angle(x)
    argmax(x, axis=None, keepdims=False)
    argmin(x, axis=None, keepdims=False)
    argpartition(x, kth, axis=-1)
    array_split(x, indices_or_sections, axis=0)
    bitwise_invert(x)
    bitwise_not(x)
    broadcast_to(x, shape)
    clip(x, x_min, x_max)
    conj(x)
    conjugate(x)
    copy(x)
    count_nonzero(x, axis=None)
    diag(x, k=0)
    diagflat(x, k=0)
    diagonal(x, offset=0, axis1=0, axis2=1)
    diff(a, n=1, axis=-1)
    digitize(x, bins)
    empty_like(x, dtype=None)
    expand_dims(x, axis)
    flip(x, axis=None)
    fliplr(x)
    flipud(x)
    full_like(x, fill_value, dtype=None)
    histogram(x, bins=10, range=None)
    imag(x)
    isfinite(x)
    isin(x1, x2, assume_unique=False, invert=False)
    isinf(x)
    isnan(x)
    isneginf(x)
    isposinf(x)
    isreal(x)
    logical_not(x)
    moveaxis(x, source, destination)
    nan_to_num(x, nan=0.0, posinf=None, neginf=None)
    nanmax(x, axis=None, keepdims=False)
    nanmin(x, axis=None, keepdims=False)
    nanprod(x, axis=None, keepdims=False)
    nansum(x, axis=None, keepdims=False)
    negative(x)
    nonzero(x)
    ones_like(x, dtype=None)
    prod(x, axis=None, keepdims=False, dtype=None)
    ptp(x, axis=None, keepdims=False)
    ravel(x)
    real(x)
    reciprocal(x)
    repeat(x, repeats, axis=None)
    reshape(x, newshape)
    roll(x, shift, axis=None)
    rot90(array, k=1, axes=(0, 1))
    round(x, decimals=0)
    searchsorted(sorted_sequence, values, side='left')
    sign(x)
    signbit(x)
    sort(x, axis=-1)
    sum(x, axis=None, keepdims=False)
    squeeze(x, axis=None)
    swapaxes(x, axis1, axis2)
    take(x, indices, axis=None)
    take_along_axis(x, indices, axis=None)
    tile(x, repeats)
    trace(x, offset=0, axis1=0, axis2=1)
    transpose(x, axes=None)
    trapezoid(y, x=None, dx=1.0, axis=-1)
    tril(x, k=0)
    triu(x, k=0)
    trunc(x)
    unravel_index(indices, shape)
    zeros_like(x, dtype=None)
""")

declare(globals(), "sequence", tnp, """
    concatenate(xs, axis=0)
    stack(x, axis=0)
    hstack(xs)
    vstack(xs)
    dstack(xs)
""")

declare(globals(), "plain", tnp, """
    bartlett(x)
    blackman(x)
    hamming(x)
    hanning(x)
    kaiser(x, beta)
    vectorize(pyfunc, *, excluded=None, signature=None)
""")

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
        dtype = result_type(*[dtype_of(v) for v in (start, stop, step) if v is not None])
    return tnp.arange(start, stop, step, dtype=standardize_dtype(dtype))


def linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0):
    dtype = dtype or result_type(dtype_of(start), dtype_of(stop), float)
    return tnp.linspace(start, stop, num=num, endpoint=endpoint, retstep=retstep, dtype=dtype,
                        axis=axis)


def logspace(start, stop, num=50, endpoint=True, base=10, dtype=None, axis=0):
    dtype = dtype or result_type(dtype_of(start), dtype_of(stop), float)
    return tnp.logspace(start, stop, num=num, endpoint=endpoint, base=base, dtype=dtype, axis=axis)


def geomspace(start, stop, num=50, endpoint=True, dtype=None, axis=0):
    dtype = dtype or result_type(dtype_of(start), dtype_of(stop), float)
    return tnp.geomspace(start, stop, num=num, endpoint=endpoint, dtype=dtype, axis=axis)


# -- arithmetic with rules of its own ---------------------------------------------------------------

def logical_and(x1, x2):
    return tnp.logical_and(convert_to_tensor(x1, "bool"), convert_to_tensor(x2, "bool"))


def logical_or(x1, x2):
    return tnp.logical_or(convert_to_tensor(x1, "bool"), convert_to_tensor(x2, "bool"))


def logical_xor(x1, x2):
    return tnp.logical_xor(convert_to_tensor(x1, "bool"), convert_to_tensor(x2, "bool"))


def matmul(x1, x2):
    return _int8_products(tnp.matmul, x1, x2)


def einsum(subscripts, *operands, **kwargs):
    return _int8_products(lambda *xs, **how: tnp.einsum(subscripts, *xs, **how), *operands)


def _int8_products(function, *operands):
    """`function` of tensors of one dtype; products of int8, as quantised layers make them, are
    summed in int32."""
    tensors = together(*operands)
    if tensors[0].dtype == np.int8 and builtins.all(
            standardize_dtype(dtype_of(x)) == "int8" for x in operands):
        return function(*tensors, preferred_element_type="int32")
    return function(*tensors)


def square(x):
    x = convert_to_tensor(x)
    return tnp.square(x.astype("int32") if x.dtype == np.bool_ else x)


def ldexp(x1, x2):
    return tnp.ldexp(floating(x1), convert_to_tensor(x2))


def cross(x1, x2, axisa=-1, axisb=-1, axisc=-1, axis=None):
    x1, x2 = together(x1, x2)
    if axis is not None:
        return tnp.cross(x1, x2, axis)
    return tnp.cross(x1, x2, axisa=axisa, axisb=axisb, axisc=axisc)


def average(x, axis=None, weights=None):
    if weights is None:
        return tnp.mean(floating(x), axis=axis)
    x, weights = together_floating(x, weights)
    return tnp.average(x, axis=axis, weights=weights)


def max(x, axis=None, keepdims=False, initial=None):
    return _extreme(tnp.max, x, axis, keepdims, initial)


def min(x, axis=None, keepdims=False, initial=None):
    return _extreme(tnp.min, x, axis, keepdims, initial)


def amax(x, axis=None, keepdims=False):
    return max(x, axis, keepdims)


def amin(x, axis=None, keepdims=False):
    return min(x, axis, keepdims)


def _extreme(function, x, axis, keepdims, initial):
    x = convert_to_tensor(x)
    initial = None if initial is None else convert_to_tensor(initial, x.dtype)
    return function(x, axis=axis, keepdims=keepdims, initial=initial)


def cumsum(x, axis=None, dtype=None):
    return _running(tnp.cumsum, x, axis, dtype)


def cumprod(x, axis=None, dtype=None):
    return _running(tnp.cumprod, x, axis, dtype)


def nancumsum(x, axis=None, dtype=None):
    return _running(tnp.nancumsum, x, axis, dtype)


def nancumprod(x, axis=None, dtype=None):
    return _running(tnp.nancumprod, x, axis, dtype)


def _running(function, x, axis, dtype):
    """Small integers stay what they are; booleans are counted."""
    x = convert_to_tensor(x)
    if dtype is None:
        dtype = "int32" if x.dtype == np.bool_ else x.dtype
    return function(x, axis=axis, dtype=standardize_dtype(dtype))


def nanargmax(x, axis=None, keepdims=False):
    return _nan_place(tnp.nanargmax, x, axis, keepdims)


def nanargmin(x, axis=None, keepdims=False):
    return _nan_place(tnp.nanargmin, x, axis, keepdims)


def _nan_place(function, x, axis, keepdims):
    """The place of an extreme; -1 where there are only NaN."""
    x = convert_to_tensor(x)
    nothing = tnp.all(tnp.isnan(x), axis=axis, keepdims=keepdims)
    return tnp.where(nothing, -1, function(x, axis=axis, keepdims=keepdims))


def bincount(x, weights=None, minlength=0, sparse=False):
    refuse_sparse(sparse)
    x, weights = convert_to_tensor(x), None if weights is None else convert_to_tensor(weights)
    if x.ndim == 1:
        return tnp.bincount(x, weights, minlength)
    length = builtins.max(minlength, int(tnp.max(x)) + 1 if x.size else 0)
    if weights is None:
        return vectorized_map(lambda row: tnp.bincount(row, length=length), x)
    return vectorized_map(lambda row: tnp.bincount(row[0], row[1], length=length), (x, weights))


def argsort(x, axis=-1):
    x = convert_to_tensor(x)
    return tnp.argsort(x, axis=axis if x.ndim else None)


def unique(x, sorted=True, return_index=False, return_inverse=False, return_counts=False, axis=None,
           size=None, fill_value=None):
    """The values are sorted whether or not they need to be."""
    return tnp.unique(convert_to_tensor(x), return_index, return_inverse, return_counts, axis,
                      equal_nan=False, size=size, fill_value=fill_value)


def vander(x, N=None, increasing=False):
    return tnp.vander(convert_to_tensor(x), N, increasing)


def view(x, dtype=None):
    x = convert_to_tensor(x)
    return x if dtype is None else tnp.view(x, as_dtype(standardize_dtype(dtype)))


def where(condition, x1=None, x2=None):
    condition = convert_to_tensor(condition, "bool")
    if x1 is None or x2 is None:
        return tnp.where(condition)
    return tnp.where(condition, *together(x1, x2))


def select(condlist, choicelist, default=0):
    return tnp.select(condlist, choicelist, default=default)


def pad(x, pad_width, mode="constant", constant_values=None):
    if constant_values is not None and mode != "constant":
        raise ValueError("Argument `constant_values` can only be provided when `mode == 'constant'`,"
                         f" got mode {mode!r}")
    extra = {} if constant_values is None else {"constant_values": constant_values}
    return tnp.pad(convert_to_tensor(x), pad_width, mode=mode, **extra)


def meshgrid(*x, indexing="xy"):
    return tnp.meshgrid(*map(convert_to_tensor, x), indexing=indexing)


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
    return tnp.linalg.slogdet(floating(x))


