"""Memory of results: 64-byte aligned, kept warm when it is freed, known when it comes back as donated.

A piece is a plain ndarray of bytes, so that NumPy makes it the `base` of every view of a result: its
reference count tells whether anybody still sees it. Its first word says where its data begins; a cache
line before the data counts the references that are ours. A fresh large mapping costs 15
times a warm copy, so freed pieces wait here, up to a limit.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from threading import get_ident

import numpy as np

from ..locks import new_rlock
from .arena import ALIGNMENT, LARGE, STEP

PIECE = np.dtype(np.uint8, metadata={"tfn": "memory of results"})
"""The element type of pieces, and of nothing else: this very object marks memory as ours."""

_HEADER = ALIGNMENT
_WORDS = 16
"""Bytes at the beginning of a piece, the first word among them."""
_PAGE = 4096
_PER_CLASS = 8
"""Pieces of one size that are kept track of; longer searches cost more than they find."""


def _default_limit() -> int:
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 256 << 20
    return min(physical // 16, 1 << 30)


_MADE = itertools.count()


def new_piece(size: int) -> np.ndarray:
    """A piece with room for `size` bytes."""
    staggered = size >= LARGE
    piece = np.empty(size + _WORDS + _HEADER + ALIGNMENT + staggered * _PAGE, PIECE)
    start = _WORDS + _HEADER
    begin = address(piece) + start
    # NumPy's memory may begin anywhere in a page itself.
    start += (next(_MADE) * STEP - begin) % _PAGE if staggered else -begin % ALIGNMENT
    piece[:8].view(np.int64)[0] = start
    header(piece)[:] = 0
    return piece


def _start(piece: np.ndarray) -> int:
    """Where the data of a piece begins, in bytes from its beginning."""
    return int(piece[:8].view(np.int64)[0])


def header(piece: np.ndarray) -> np.ndarray:
    """Two words before the data: our own references to the piece; a mark of the call entry."""
    start = _start(piece)
    return piece[start - _HEADER:start - _HEADER + 16].view(np.int64)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def array_on(piece: np.ndarray, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array over the data of a piece."""
    return np.ndarray(shape, dtype, buffer=piece, offset=_start(piece))


def _references(held: list[np.ndarray]) -> int:
    """Of the last one; counted here as everywhere below."""
    return sys.getrefcount(held[-1])


_IDLE = _references([new_piece(1)])
"""References to a piece that only a list holds."""


def _base_references(array: np.ndarray) -> int:
    return sys.getrefcount(array.base)


_UNSHARED = _base_references(array_on(new_piece(1), (1,), np.dtype(np.uint8)))
"""References to a piece whose only view is one array."""


class Memory:
    """Pieces by size class. `limit` bounds the bytes held on to, those in use included.

    An interrupt may end a method at any bytecode, yet no more references are counted as ours than there
    are.
    """

    def __init__(self, limit: int | None = None):
        self.limit = _default_limit() if limit is None else limit
        self._classes: OrderedDict[int, list[np.ndarray]] = OrderedDict()
        """Those used longest ago come first."""
        self._lock = new_rlock()
        self._taker: int | None = None

    @property
    def held(self) -> int:
        """Bytes held on to."""
        return sum(room * len(pieces) for room, pieces in self._classes.items())

    def take(self, size: int) -> np.ndarray:
        """A piece with room for `size` bytes that nobody else uses."""
        room = _class(size)
        if self._taker == get_ident():
            # Collecting cycles runs the code of others, which has called a program from in here.
            return new_piece(room)
        with self._lock:
            self._taker = get_ident()
            try:
                return self._take(room)
            finally:
                self._taker = None

    def _take(self, room: int) -> np.ndarray:
        pieces = self._classes.setdefault(room, [])
        self._classes.move_to_end(room)
        for number in range(len(pieces)):
            held = pieces[number:number + 1]
            if _references(held) == _IDLE + 1:
                return held[0]
        piece = new_piece(room)
        if room <= self.limit:
            self._keep(room, piece)
        return piece

    def _keep(self, room: int, piece: np.ndarray) -> None:
        pieces = self._classes[room]
        if len(pieces) >= _PER_CLASS:
            self._release(room)
        pieces.append(piece)
        header(piece)[0] = 1
        while self.held > self.limit:
            self._release(next(iter(self._classes)))

    def _release(self, room: int) -> None:
        pieces = self._classes[room]
        if pieces:
            header(pieces[0])[0] -= 1
            del pieces[0]
        if not pieces:
            del self._classes[room]

    def clear(self) -> None:
        """Let go of everything; what is in use stays valid."""
        with self._lock:
            while self._classes:
                self._release(next(iter(self._classes)))


def _class(size: int) -> int:
    """`size` rounded up by at most an eighth, so that similar sizes share pieces."""
    if size <= 512:
        return -(-max(size, 1) // 64) * 64
    step = 1 << (size.bit_length() - 4)
    return -(-size // step) * step


MEMORY = Memory()
"""Of this process."""


def allocate(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array of owned, 64-byte aligned memory."""
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    return array_on(MEMORY.take(size), shape, dtype)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    copy = allocate(array.shape, array.dtype)
    copy[...] = array
    return copy


def may_overwrite(arrays: Sequence[np.ndarray], i: int) -> bool:
    """Donated memory is overwritten only if it is a piece, nothing else views it (a NumPy view a
    callback kept must not change), and no other argument is the same memory."""
    array = arrays[i]
    base = array.base
    if type(base) is not np.ndarray or base.dtype is not PIECE or not array.flags.writeable:
        return False
    ours = int(header(base)[0])
    del base
    if _base_references(array) != _UNSHARED + ours:
        return False
    return sum(a is array for a in arrays) == 1
