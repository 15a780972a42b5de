"""Variables: a mutable cell that holds an immutable array."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from keras.src.backend.common import KerasVariable

from ...compiler.errors import TfnError
from ...compiler.ir.dtypes import as_dtype
from ...compiler.locks import new_rlock
from ...compiler.runtime.memory import PIECE, aligned_copy
from ...compiler.trace.core import Array
from .ops.core import convert_to_tensor

_LIMIT = threading.local()
_value = KerasVariable.value.fget


@contextmanager
def memory_limit(nbytes: int) -> Iterator[None]:
    """Inside, the variables that this thread makes take no more than `nbytes`: `TfnError` before the
    one that would."""
    _LIMIT.left = nbytes
    try:
        yield
    finally:
        del _LIMIT.left


class Lending:
    """Under the `lock` the arrays of a model's variables are `lent` to a step that writes over them:
    one step at a time. Other threads get the values when the step is over."""

    def __init__(self) -> None:
        self.lock = new_rlock()
        self.lent = 0
        self._waiting: Callable[[], Any] | None = None

    def come(self) -> None:
        """Handle the interrupt that has waited, if there is one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, Ctrl-C waits for the end of this thread's step, half of which would leave no weights.
        A second one does not wait."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return

        def handler(number: int, frame: FrameType | None) -> None:
            if self.lent and self.lock._is_owned() and self._waiting is None:
                self._waiting = lambda: before(number, frame)
            else:
                before(number, frame)

        signal.signal(signal.SIGINT, handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._waiting = None

    def __reduce__(self) -> tuple:
        return Lending, ()


class Variable(KerasVariable):
    """A Keras variable on tfn. Assigning replaces the array; nobody who holds the old one sees it
    change, nor does writing to a NumPy array that was assigned change the variable."""

    lending: Lending | None = None
    """Of the model whose steps it is given to."""

    @property
    def value(self) -> Any:
        if self.lending is None:
            return _value(self)
        # What is held here is not lent by a step that begins now.
        held = self._value
        if not self.lending.lent:
            return _value(self)
        del held
        with self.lending.lock:
            return _value(self)

    def _initialize(self, value: Any) -> None:
        value = convert_to_tensor(value, dtype=self._dtype)
        self._shape = tuple(value.shape)
        self._value = _owned(value)

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
        found = convert_to_tensor(value, dtype=dtype)
        return _owned(found) if isinstance(value, np.ndarray) else found

    def __tfn_array__(self) -> Any:
        return self.value

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.value, dtype=dtype)


def _owned(value: Any) -> Any:
    """A value in memory of the runtime's own: the first step would else copy what is donated to it."""
    if type(value) is not Array or getattr(value._data.base, "dtype", None) is PIECE:
        return value
    return Array(aligned_copy(value._data))
