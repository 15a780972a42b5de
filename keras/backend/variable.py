"""Variables: a mutable cell that holds an immutable array."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras.src.backend.common import KerasVariable

from .ops.core import convert_to_tensor


class Variable(KerasVariable):
    """A Keras variable on tfn. Assigning replaces the array; nobody who holds the old one sees it
    change."""

    def _initialize(self, value: Any) -> None:
        value = convert_to_tensor(value, dtype=self._dtype)
        self._shape = tuple(value.shape)
        self._value = value

    def _direct_assign(self, value: Any) -> None:
        self._value = value

    def _convert_to_tensor(self, value: Any, dtype=None) -> Any:
        return convert_to_tensor(value, dtype=dtype)

    def __tfn_array__(self) -> Any:
        return self.value

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.value, dtype=dtype)
