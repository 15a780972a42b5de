"""Variables: a mutable cell that holds an immutable array."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from keras.src.backend.common import KerasVariable

from ...compiler.errors import TfnError
from ...compiler.ir.dtypes import as_dtype
from .ops.core import convert_to_tensor

_LIMIT = threading.local()


@contextmanager
def memory_limit(nbytes: int) -> Iterator[None]:
    """Inside, the variables that this thread makes take no more than `nbytes`: `TfnError` before the
    one that would."""
    _LIMIT.left = nbytes
    try:
        yield
    finally:
        del _LIMIT.left


class Variable(KerasVariable):
    """A Keras variable on tfn. Assigning replaces the array; nobody who holds the old one sees it
    change."""

    def _initialize(self, value: Any) -> None:
        value = convert_to_tensor(value, dtype=self._dtype)
        self._shape = tuple(value.shape)
        self._value = value

    def _initialize_with_initializer(self, initializer: Any) -> None:
        left = getattr(_LIMIT, "left", None)
        if left is not None:
            size = math.prod(self._shape) * as_dtype(self._dtype).itemsize
            if size > left:
                raise TfnError(f"the weight {self.path!r} of shape {self._shape} takes {size:,} bytes,"
                               f" which is more than the {left:,} that are left for this model")
            _LIMIT.left = left - size
        super()._initialize_with_initializer(initializer)

    def _direct_assign(self, value: Any) -> None:
        self._value = value

    def _convert_to_tensor(self, value: Any, dtype=None) -> Any:
        return convert_to_tensor(value, dtype=dtype)

    def __tfn_array__(self) -> Any:
        return self.value

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.value, dtype=dtype)
