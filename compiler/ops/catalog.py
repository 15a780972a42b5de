"""Every op family. Declaring an op is importing its family: import this to have them all."""

from . import (  # noqa: F401
    bits,
    check,
    chlo,
    collective,
    contraction,
    control,
    custom_call,
    dynamic,
    elementwise,
    indexing,
    kernel,
    random,
    reduction,
    shape,
)
