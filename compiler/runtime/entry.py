"""The entry of a compiled function: a Python function made of machine code.

It checks the arguments as NumPy sees them (type, element type, shape, order, alignment), takes memory
for the results, writes all addresses into the bases of the plan and runs it. What is unusual it leaves
to Python, by returning `NotImplemented` before it has done anything.

It reads a table of words, the data of the ndarray that is its `self`; `HEAD` says which. Then come the
rows of the arguments (element type, rank, shape, whether donated) and of the results (element type,
rank, shape, the argument that lends its memory or -1, a number for `refill`, two pieces of memory).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..codegen.native import Loader
from ..errors import UnsupportedError
from ..locks import new_lock, once
from .disk import cached_object
from .memory import ALIGNMENT, PIECE, Memory, allocate, header, new_piece

HEAD = ("arguments", "results", "prepare", "walk", "plan", "words", "bases", "scratch", "pool",
        "parallel", "argument_bases", "result_bases", "result_rows", "ndarray", "piece", "new",
        "refused", "refill", "donated", "argument_rows")
"""The words before the rows. With `prepare` the entry does all but run the plan."""

_ARGUMENT, _RESULT = 4, 8

_SMALL = 16 << 10
"""Bytes of a result whose memory the executable keeps for itself; larger ones share `MEMORY`."""

# Of PyObject, PyArrayObject_fields and the flags NPY_ARRAY_*: the same in NumPy 1 and 2.
_TYPE, _DATA, _RANK, _SHAPE, _BASE, _DTYPE, _FLAGS = 8, 16, 24, 32, 48, 56, 64
_ORDERLY = 0x1 | 0x100  # C order, aligned
_WRITEABLE = 0x400
_NEW_FROM_DESCR = 94
"""Number of PyArray_NewFromDescr in NumPy's table of functions."""


def _text() -> str:
    words = "\n".join(
        f"  %{name}.p = getelementptr i64, ptr %t, i64 {i}\n  %{name} = load i64, ptr %{name}.p"
        for i, name in enumerate(HEAD))

    def field(name: str, owner: str, offset: int, kind: str = "i64") -> str:
        return (f"  %{name}.f = getelementptr i8, ptr {owner}, i64 {offset}\n"
                f"  %{name} = load {kind}, ptr %{name}.f")

    def word(name: str, row: str, number: int, kind: str = "i64") -> str:
        return field(name, row, 8 * number, kind)

    return f"""
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare ptr @PyList_GetItem(ptr, i64)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
@serial = internal global i64 0

; The words before the data of the piece that is the base of %a, null when there is none.
define internal ptr @piece_of(ptr %a, i64 %ndarray, i64 %piece) alwaysinline {{
entry:
{field("base", "%a", _BASE, "ptr")}
  %none = icmp eq ptr %base, null
  br i1 %none, label %no, label %typed
typed:
{field("type", "%base", _TYPE)}
  %plain = icmp eq i64 %type, %ndarray
  br i1 %plain, label %marked, label %no
marked:
{field("dtype", "%base", _DTYPE)}
  %ours = icmp eq i64 %dtype, %piece
  br i1 %ours, label %yes, label %no
yes:
{field("bytes", "%base", _DATA, "ptr")}
  %start = load i64, ptr %bytes
  %at = sub i64 %start, {ALIGNMENT}
  %head = getelementptr i8, ptr %bytes, i64 %at
  ret ptr %head
no:
  ret ptr null
}}

define ptr @tfn_enter(ptr %self, ptr %args, i64 %count) {{
entry:
{field("t", "%self", _DATA, "ptr")}
{words}
  %rows = inttoptr i64 %argument_rows to ptr
  %rrows = inttoptr i64 %result_rows to ptr
  %fits = icmp eq i64 %count, %arguments
  br i1 %fits, label %number, label %refuse
number:
  %old = load i64, ptr @serial
  %serial = add i64 %old, 1
  store i64 %serial, ptr @serial
  br label %ahead
ahead:
  %i = phi i64 [0, %number], [%i1, %anext]
  %amore = icmp slt i64 %i, %arguments
  br i1 %amore, label %check, label %shared
check:
  %ap = getelementptr ptr, ptr %args, i64 %i
  %a = load ptr, ptr %ap
  %arow.n = mul i64 %i, {_ARGUMENT}
  %arow = getelementptr i64, ptr %rows, i64 %arow.n
{field("atype", "%a", _TYPE)}
  %plain = icmp eq i64 %atype, %ndarray
  br i1 %plain, label %dtyped, label %refuse
dtyped:
{field("adtype", "%a", _DTYPE)}
{word("wanted", "%arow", 0)}
  %same = icmp eq i64 %adtype, %wanted
  br i1 %same, label %flagged, label %refuse
flagged:
{field("flags", "%a", _FLAGS, "i32")}
{word("lent", "%arow", 3)}
  %islent = icmp ne i64 %lent, 0
  %need = select i1 %islent, i32 {_ORDERLY | _WRITEABLE}, i32 {_ORDERLY}
  %has = and i32 %flags, %need
  %orderly = icmp eq i32 %has, %need
  br i1 %orderly, label %ranked, label %refuse
ranked:
{field("rank", "%a", _RANK, "i32")}
{word("rank64", "%arow", 1)}
  %rank32 = trunc i64 %rank64 to i32
  %level = icmp eq i32 %rank, %rank32
  br i1 %level, label %sized, label %refuse
sized:
{field("shape", "%a", _SHAPE, "ptr")}
{word("declared", "%arow", 2, "ptr")}
  br label %dhead
dhead:
  %d = phi i64 [0, %sized], [%d1, %dnext]
  %dmore = icmp slt i64 %d, %rank64
  br i1 %dmore, label %dim, label %donation
dim:
  %np = getelementptr i64, ptr %shape, i64 %d
  %n = load i64, ptr %np
  %mp = getelementptr i64, ptr %declared, i64 %d
  %m = load i64, ptr %mp
  %equal = icmp eq i64 %n, %m
  br i1 %equal, label %dnext, label %refuse
dnext:
  %d1 = add i64 %d, 1
  br label %dhead
donation:
  br i1 %islent, label %owned, label %anext
owned:
  %head = call ptr @piece_of(ptr %a, i64 %ndarray, i64 %piece)
  %foreign = icmp eq ptr %head, null
  br i1 %foreign, label %refuse, label %unseen
unseen:
  %ours = load i64, ptr %head
{field("piecep", "%a", _BASE, "ptr")}
  %refs = load i32, ptr %piecep
  %ours32 = trunc i64 %ours to i32
  %most = add i32 %ours32, 1
  %alone = icmp eq i32 %refs, %most
  br i1 %alone, label %once, label %refuse
once:
{word("mark", "%head", 1)}
  %twice = icmp eq i64 %mark, %serial
  br i1 %twice, label %refuse, label %claim
claim:
  store i64 %serial, ptr %mark.f
  br label %anext
anext:
  %i1 = add i64 %i, 1
  br label %ahead

shared:
  %none = icmp eq i64 %donated, 0
  br i1 %none, label %make, label %shead
shead:
  %s = phi i64 [0, %shared], [%s1, %snext]
  %smore = icmp slt i64 %s, %arguments
  br i1 %smore, label %other, label %make
other:
  %sp = getelementptr ptr, ptr %args, i64 %s
  %sa = load ptr, ptr %sp
  %srow.n = mul i64 %s, {_ARGUMENT}
  %srow = getelementptr i64, ptr %rows, i64 %srow.n
{word("slent", "%srow", 3)}
  %skip = icmp ne i64 %slent, 0
  br i1 %skip, label %snext, label %look
look:
  %shead.p = call ptr @piece_of(ptr %sa, i64 %ndarray, i64 %piece)
  %sforeign = icmp eq ptr %shead.p, null
  br i1 %sforeign, label %snext, label %marked
marked:
{word("smark", "%shead.p", 1)}
  %given = icmp eq i64 %smark, %serial
  br i1 %given, label %refuse, label %snext
snext:
  %s1 = add i64 %s, 1
  br label %shead

make:
  %list = call ptr @PyList_New(i64 %results)
  %nolist = icmp eq ptr %list, null
  br i1 %nolist, label %failed, label %rhead
rhead:
  %j = phi i64 [0, %make], [%j1, %rnext]
  %rmore = icmp slt i64 %j, %results
  br i1 %rmore, label %result, label %fill
result:
  %rrow.n = mul i64 %j, {_RESULT}
  %rrow = getelementptr i64, ptr %rrows, i64 %rrow.n
{word("donor", "%rrow", 3)}
  %own = icmp slt i64 %donor, 0
  br i1 %own, label %first, label %borrow
borrow:
  %lp = getelementptr ptr, ptr %args, i64 %donor
  %lender = load ptr, ptr %lp
  call void @Py_IncRef(ptr %lender)
  br label %rnext
first:
{word("piece0", "%rrow", 5, "ptr")}
  %empty = icmp eq ptr %piece0, null
  br i1 %empty, label %ask, label %try0
try0:
  %refs0 = load i32, ptr %piece0
  %idle0 = icmp eq i32 %refs0, 1
  br i1 %idle0, label %reuse, label %second
second:
{word("piece1", "%rrow", 6, "ptr")}
  %refs1 = load i32, ptr %piece1
  %idle1 = icmp eq i32 %refs1, 1
  br i1 %idle1, label %reuse, label %ask
reuse:
  %kept = phi ptr [%piece0, %try0], [%piece1, %second]
  call void @Py_IncRef(ptr %kept)
  br label %wrap
ask:
{word("key", "%rrow", 4, "ptr")}
  %refill.fn = inttoptr i64 %refill to ptr
  %asked = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %refill.fn, ptr %key, ptr null)
  %nothing = icmp eq ptr %asked, null
  br i1 %nothing, label %drop, label %wrap
wrap:
  %held = phi ptr [%kept, %reuse], [%asked, %ask]
{field("room", "%held", _DATA, "ptr")}
  %begin = load i64, ptr %room
  %data.p = getelementptr i8, ptr %room, i64 %begin
{word("rdtype", "%rrow", 0, "ptr")}
{word("rrank", "%rrow", 1)}
{word("rshape", "%rrow", 2, "ptr")}
  %rrank32 = trunc i64 %rrank to i32
  call void @Py_IncRef(ptr %rdtype)
  %ndarray.p2 = inttoptr i64 %ndarray to ptr
  %new.fn = inttoptr i64 %new to ptr
  %array = call ptr %new.fn(ptr %ndarray.p2, ptr %rdtype, i32 %rrank32, ptr %rshape, ptr null,
                            ptr %data.p, i32 {_ORDERLY | _WRITEABLE}, ptr null)
  %noarray = icmp eq ptr %array, null
  br i1 %noarray, label %release, label %attach
release:
  call void @Py_DecRef(ptr %held)
  br label %drop
attach:
  %basep = getelementptr i8, ptr %array, i64 {_BASE}
  store ptr %held, ptr %basep
  br label %rnext
rnext:
  %item = phi ptr [%lender, %borrow], [%array, %attach]
  %set = call i32 @PyList_SetItem(ptr %list, i64 %j, ptr %item)
  %j1 = add i64 %j, 1
  br label %rhead

fill:
  %ab = inttoptr i64 %argument_bases to ptr
  br label %fhead
fhead:
  %f = phi i64 [0, %fill], [%f1, %fone]
  %fmore = icmp slt i64 %f, %arguments
  br i1 %fmore, label %fone, label %ghead
fone:
  %fp = getelementptr ptr, ptr %args, i64 %f
  %fa = load ptr, ptr %fp
{field("fdata", "%fa", _DATA)}
  %fslot = getelementptr i64, ptr %ab, i64 %f
  store i64 %fdata, ptr %fslot
  %f1 = add i64 %f, 1
  br label %fhead
ghead:
  %g = phi i64 [0, %fhead], [%g1, %gone]
  %gmore = icmp slt i64 %g, %results
  br i1 %gmore, label %gone, label %run
gone:
  %ga = call ptr @PyList_GetItem(ptr %list, i64 %g)
{field("gdata", "%ga", _DATA)}
  %rb = inttoptr i64 %result_bases to ptr
  %gslot = getelementptr i64, ptr %rb, i64 %g
  store i64 %gdata, ptr %gslot
  %g1 = add i64 %g, 1
  br label %ghead
run:
  %only = icmp ne i64 %prepare, 0
  br i1 %only, label %done, label %go
go:
  %walk.fn = inttoptr i64 %walk to ptr
  call void %walk.fn(i64 %plan, i64 %words, i64 %bases, i64 %scratch, i64 %pool, i64 %parallel)
  br label %done
done:
  ret ptr %list
drop:
  call void @Py_DecRef(ptr %list)
  br label %failed
failed:
  ret ptr null
refuse:
  %refused.p2 = inttoptr i64 %refused to ptr
  call void @Py_IncRef(ptr %refused.p2)
  ret ptr %refused.p2
}}
"""


class Result:
    """One result of an entry: its type, and the argument that lends its memory (-1: none)."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, donor: int = -1):
        self.shape, self.dtype, self.donor = shape, dtype, donor
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


class Entry:
    """`call` takes one ndarray per argument and returns a list with one per result, or
    `NotImplemented`. `words` are those of `HEAD` about the plan."""

    def __init__(self, arguments: Sequence[tuple[tuple[int, ...], np.dtype]],
                 results: Sequence[Result], words: Mapping[str, int], memory: Memory, owned: Sequence):
        """`owned` is what `words` are addresses of."""
        lent = {r.donor for r in results} - {-1}
        self._pieces = _Pieces(results, memory)
        shapes = np.array([n for shape, _ in arguments for n in shape]
                          + [n for r in results for n in r.shape] or [0], np.int64)
        result_rows = len(HEAD) + _ARGUMENT * len(arguments)
        table = np.zeros(result_rows + _RESULT * len(results), np.int64)
        at, start = shapes.ctypes.data, table.ctypes.data
        for i, (shape, dtype) in enumerate(arguments):
            row = len(HEAD) + _ARGUMENT * i
            table[row:row + _ARGUMENT] = id(dtype), len(shape), at, i in lent
            at += 8 * len(shape)
        for j, result in enumerate(results):
            row = result_rows + _RESULT * j
            table[row:row + 5] = (id(result.dtype), len(result.shape), at, result.donor,
                                  id(self._pieces.numbers[j]))
            self._pieces.rows.append(table[row + 5:row + 7])
            at += 8 * len(result.shape)
        known = {
            "arguments": len(arguments), "results": len(results), "ndarray": id(np.ndarray),
            "piece": id(PIECE), "new": _new_from_descr(), "refused": id(NotImplemented),
            "refill": id(self._pieces), "donated": len(lent),
            "argument_rows": start + 8 * len(HEAD), "result_rows": start + 8 * result_rows, **words}
        table[:len(HEAD)] = [known[name] for name in HEAD]
        self.call: Callable[..., list[np.ndarray]] = _function(
            table, (arguments, results, shapes, self._pieces, *owned))


class _Pieces:
    """The memory of results that the entry reuses by itself, two pieces for each small one, and
    where it gets more: called with the number of a result, this gives a piece."""

    def __init__(self, results: Sequence[Result], memory: Memory):
        self.results, self.memory = results, memory
        self.numbers = list(range(len(results)))
        self.rows: list[np.ndarray] = []
        """The two words of each result in the table of the entry."""
        self._kept: list[list[np.ndarray]] = [[] for _ in results]
        self._lock = new_lock()

    def __call__(self, number: int) -> np.ndarray:
        size = self.results[number].nbytes
        if size > _SMALL:
            return self.memory.take(size)
        piece = new_piece(size)
        # Another thread may be at it, or this one: collecting cycles runs the code of others.
        if self._lock.acquire(blocking=False):
            try:
                self._keep(number, piece)
            finally:
                self._lock.release()
        return piece

    def _keep(self, number: int, piece: np.ndarray) -> None:
        """At every bytecode, where another thread may enter or an interrupt end this, both words name
        pieces that are kept, and no more references are counted as ours than there are."""
        kept = self._kept[number]
        kept.append(piece)
        header(piece)[0] = 1
        self.rows[number][:] = id(kept[-2:][0]), id(piece)
        while len(kept) > 2:
            header(kept[0])[0] -= 1
            del kept[0]

    def __del__(self) -> None:
        for piece in (p for kept in self._kept for p in kept):
            header(piece)[0] -= 1


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("address", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


_FASTCALL = 0x80
_LOADER = Loader()


@once
def _method() -> _Method:
    _check_layout()
    address = _LOADER.load("tfn_enter", cached_object(_text()))
    return _Method(b"tfn_enter", address, _FASTCALL, None)


def _function(table: np.ndarray, owned: tuple):
    """The Python function whose `self` is `table`. It keeps what is `owned`, in place of a module: a
    thread may be in it when nobody else has that any more."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
    return make(ctypes.addressof(_method()), id(table), id(owned))


@once
def _new_from_descr() -> int:
    """The address of NumPy's PyArray_NewFromDescr."""
    try:
        from numpy._core._multiarray_umath import _ARRAY_API  # type: ignore[attr-defined]
    except ImportError:
        from numpy.core._multiarray_umath import _ARRAY_API  # type: ignore[no-redef]
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    functions = ctypes.cast(read(_ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    return functions[_NEW_FROM_DESCR] or 0


def _check_layout() -> None:
    """Refuse a Python or NumPy whose objects lie otherwise in memory than the entry reads them."""
    probe = allocate((3, 5), np.dtype(np.float32))

    def word(offset: int, kind=ctypes.c_int64) -> int:
        return kind.from_address(id(probe) + offset).value

    found = (word(_TYPE), word(_DATA), word(_RANK, ctypes.c_int32), word(_BASE), word(_DTYPE),
             word(_FLAGS, ctypes.c_int32) & (_ORDERLY | _WRITEABLE))
    expected = (id(np.ndarray), probe.ctypes.data, 2, id(probe.base), id(probe.dtype),
                _ORDERLY | _WRITEABLE)
    shape = (ctypes.c_int64 * 2).from_address(word(_SHAPE)) if found == expected else ()
    if tuple(shape) != (3, 5) or not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise UnsupportedError(
            f"compiled programs cannot be called from this Python ({sys.version.split()[0]}) with NumPy"
            f" {np.__version__}: use CPython with the GIL and NumPy 1.22 or later")
