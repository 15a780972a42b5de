"""Every op family. Declaring an op is importing its family: import this to have them all."""

from . import (  # noqa: F401
    batch_norm,
    bits,
    check,
    chlo,
    collective,
    contraction,
    control,
    custom_call,
    dynamic,
    elementwise,
    fft,
    indexing,
    kernel,
    lapack,
    linalg,
    random,
    reduction,
    shape,
    token,
)
