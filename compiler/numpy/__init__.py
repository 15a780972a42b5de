"""`tfn.numpy`: NumPy-named functions on arrays, tracers, NumPy arrays and Python numbers.

Each function ends in `trace.core.bind`, so it runs at once on concrete arrays and is recorded on
traced ones. Importing the package also gives `Array` and `Tracer` their operators and methods.
"""

# ruff: noqa: F401  (this file is the list of what the package exports)

import math
from types import ModuleType as _Module

import numpy as _np

from ..ir.defaults import default_float, set_default_float
from ..ir.dtypes import ALL as _ALL
from ..trace.core import Array, Tracer
from ..trace.core import Array as ndarray
from ..trace.grad import stop_gradient
from . import fft, linalg, operators, ufuncs
from .bits import bitwise_count, frexp, ldexp, modf, packbits, spacing, unpackbits
from .chebyshev import erfc, i0, i0e, i1e
from .creation import (
    arange,
    array,
    copy,
    empty,
    empty_like,
    eye,
    full,
    full_like,
    geomspace,
    identity,
    iota,
    linspace,
    logspace,
    meshgrid,
    one_hot,
    ones,
    ones_like,
    tri,
    tril,
    triu,
    zeros,
    zeros_like,
)
from .cumulative import (
    cummax,
    cummin,
    cumprod,
    cumsum,
    cumulative_prod,
    cumulative_sum,
    nancumprod,
    nancumsum,
)
from .dtypes import (
    astype,
    can_cast,
    finfo,
    iinfo,
    isdtype,
    issubdtype,
    promote_types,
    result_type,
)
from .editing import (
    block,
    choose,
    compress,
    delete,
    extract,
    fill_diagonal,
    insert,
    piecewise,
    place,
    put,
    resize,
    rollaxis,
)
from .elementwise import (
    abs,
    absolute,
    add,
    around,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    cbrt,
    ceil,
    clip,
    conj,
    conjugate,
    copysign,
    cos,
    divide,
    divide_no_nan,
    divmod,
    equal,
    erf,
    exp,
    expm1,
    fabs,
    fix,
    float_power,
    floor,
    floor_divide,
    fmax,
    fmin,
    fmod,
    greater,
    greater_equal,
    heaviside,
    imag,
    invert,
    isclose,
    iscomplex,
    isfinite,
    isinf,
    isnan,
    isneginf,
    isposinf,
    isreal,
    left_shift,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    logistic,
    maximum,
    minimum,
    mod,
    multiply,
    nan_to_num,
    negative,
    not_equal,
    positive,
    pow,
    power,
    real,
    reciprocal,
    remainder,
    right_shift,
    rint,
    round,
    rsqrt,
    sign,
    signbit,
    sin,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
    true_divide,
    trunc,
    view,
    where,
)
from .exchange import from_dlpack, frombuffer
from .files import array_repr, array_str, fromfile, fromiter, fromstring, load, save, savez
from .gamma import digamma, gammaln, polygamma, zeta
from .grids import (
    c_,
    diag_indices,
    diag_indices_from,
    index_exp,
    indices,
    ix_,
    mask_indices,
    mgrid,
    ogrid,
    r_,
    ravel_multi_index,
    s_,
    tril_indices,
    tril_indices_from,
    triu_indices,
    triu_indices_from,
)
from .histograms import bincount, histogram, histogram2d, histogram_bin_edges, histogramdd
from .indexing import (
    dynamic_slice,
    dynamic_update_slice,
    gather_elements,
    put_along_axis,
    scatter_elements,
    take,
    take_along_axis,
)
from .inspection import ARRAY_API_VERSION as __array_api_version__
from .inspection import namespace_info as __array_namespace_info__
from .linear import (
    cross,
    dot,
    dot_general,
    einsum,
    einsum_path,
    inner,
    kron,
    matmul,
    matrix_transpose,
    matvec,
    outer,
    tensordot,
    vdot,
    vecdot,
    vecmat,
)
from .manipulation import (
    append,
    array_split,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    column_stack,
    concat,
    concatenate,
    diag,
    diagflat,
    diagonal,
    dsplit,
    dstack,
    expand_dims,
    flip,
    fliplr,
    flipud,
    hsplit,
    hstack,
    moveaxis,
    permute_dims,
    ravel,
    repeat,
    reshape,
    roll,
    rot90,
    split,
    squeeze,
    stack,
    swapaxes,
    tile,
    trace,
    transpose,
    unstack,
    vsplit,
    vstack,
)
from .mapping import apply_along_axis, apply_over_axes, fromfunction, vectorize
from .norms import norm
from .padding import pad
from .polynomial import (
    poly,
    polyadd,
    polyder,
    polydiv,
    polyfit,
    polyint,
    polymul,
    polysub,
    polyval,
    roots,
)
from .promote import (
    asarray,
    broadcast_arrays,
    broadcast_shapes,
    broadcast_to,
    convert,
    extent_value,
    promote,
)
from .queries import (
    array_equal,
    array_equiv,
    iscomplexobj,
    isrealobj,
    isscalar,
    iterable,
    ndim,
    shape,
    size,
)
from .reduction import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    average,
    count_nonzero,
    logsumexp,
    max,
    mean,
    min,
    nanargmax,
    nanargmin,
    nanmax,
    nanmean,
    nanmin,
    nanprod,
    nanstd,
    nansum,
    nanvar,
    prod,
    ptp,
    std,
    sum,
    var,
)
from .sets import (
    intersect1d,
    isin,
    setdiff1d,
    setxor1d,
    union1d,
    unique,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)
from .signals import convolve, correlate, ediff1d, gradient, trim_zeros, unwrap
from .sorting import (
    argpartition,
    argsort,
    argwhere,
    diff,
    digitize,
    flatnonzero,
    lexsort,
    nonzero,
    partition,
    searchsorted,
    sort,
    sort_complex,
    top_k,
    trapezoid,
)
from .special import (
    acos,
    acosh,
    angle,
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctan2,
    arctanh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cosh,
    deg2rad,
    degrees,
    erf_inv,
    erfinv,
    exp2,
    gcd,
    hypot,
    lcm,
    log2,
    log10,
    logaddexp,
    logaddexp2,
    nextafter,
    rad2deg,
    radians,
    sinc,
    sinh,
)
from .spectrum import dual_window, istft, overlap_add, stft
from .statistics import (
    allclose,
    bartlett,
    blackman,
    corrcoef,
    cov,
    extract_sequences,
    hamming,
    hanning,
    in_top_k,
    interp,
    kaiser,
    median,
    nanmedian,
    nanpercentile,
    nanquantile,
    percentile,
    quantile,
    segment_max,
    segment_min,
    segment_prod,
    segment_sum,
    select,
    unravel_index,
    vander,
)
from .update import At

pi, e, inf, nan, newaxis = math.pi, math.e, math.inf, math.nan, None
euler_gamma = _np.euler_gamma
dtype = _np.dtype
bool = bool_ = _np.bool_
int8, int16, int32, int64 = _np.int8, _np.int16, _np.int32, _np.int64
uint8, uint16, uint32, uint64 = _np.uint8, _np.uint16, _np.uint32, _np.uint64
float16, float32, float64 = _np.float16, _np.float32, _np.float64
half, single, double = float16, float32, float64
complex64, complex128 = _np.complex64, _np.complex128
csingle, cdouble = complex64, complex128
# The default integers have 32 bits.
int_, uint = int32, uint32
generic, number, integer = _np.generic, _np.number, _np.integer
signedinteger, unsignedinteger = _np.signedinteger, _np.unsignedinteger
inexact, floating, complexfloating = _np.inexact, _np.floating, _np.complexfloating
# bfloat16, the floats of at most 8 bits and the integers below 8, under ml_dtypes' names.
globals().update({t.numpy.name: t.numpy.type for t in _ALL
                  if t.numpy.type.__module__ == "ml_dtypes"})
get_printoptions, set_printoptions, printoptions = (
    _np.get_printoptions, _np.set_printoptions, _np.printoptions)

_MODULES = ("fft", "linalg")
__all__ = [name for name, value in dict(globals()).items()
           if not name.startswith("_") and (name in _MODULES or not isinstance(value, _Module))
           and name != "annotations"]


def __dir__() -> list[str]:
    """The public names, without the files they come from."""
    return [*sorted(__all__), "__all__", "__array_api_version__", "__array_namespace_info__"]
