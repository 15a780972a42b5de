"""The walker: a small compiled loop that runs a plan.

A plan is an int64 table. Per step: function address, number of buffers, number of extents, address
of the scalars, tasks, tasks per chunk (0: one thread does them all), phase of the kernel, then
(base, offset) per buffer, then the extents. `bases` are the addresses of the
arena, constants, arguments and results. Copies and collectives are functions of the same signature.
A jump has the function address 0, then: target word, width (0: always), the value that goes on,
base, offset. A step that fails sets the word before `scratch`, which ends the walk.

A loop may run for ever, so a jump back looks at the clock, and once a second at the signals Python has
received, if the word two before `scratch` says so (Python handles them in its main thread only). What a
handler or a host call raises is put there and ends the walk; the word three before is the second of the
last look.

Programs made while `RECORDS.active` have a walker that also writes down when each step ran
(`compiler/profile.py`); it is the same text with a few lines more, so that others pay nothing.
"""

from __future__ import annotations

import ctypes
import time

import numpy as np

from ..codegen.native import Loader
from ..locks import once
from .disk import cached_object
from .records import RECORDS

# Puts what was raised into the word of a failure and stops the walk.
_RAISED = """
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_NormalizeException(ptr, ptr, ptr)
declare i32 @PyException_SetTraceback(ptr, ptr)
declare void @Py_DecRef(ptr)

define internal void @raised(ptr %word, ptr %stop) noinline {
entry:
  %type = alloca ptr, align 8
  %value = alloca ptr, align 8
  %trace = alloca ptr, align 8
  call void @PyErr_Fetch(ptr %type, ptr %value, ptr %trace)
  call void @PyErr_NormalizeException(ptr %type, ptr %value, ptr %trace)
  %kind = load ptr, ptr %type
  call void @Py_DecRef(ptr %kind)
  %error = load ptr, ptr %value
  %frames = load ptr, ptr %trace
  %bare = icmp eq ptr %frames, null
  br i1 %bare, label %keep, label %traced
traced:
  %set = call i32 @PyException_SetTraceback(ptr %error, ptr %frames)
  call void @Py_DecRef(ptr %frames)
  br label %keep
keep:
  store ptr %error, ptr %word
  store i64 1, ptr %stop
  ret void
}
"""

_TEXT = _RAISED + """
declare i32 @clock_gettime(i32, ptr)
declare i32 @PyErr_CheckSignals()

define internal void @signals(ptr %word, ptr %stop) noinline {
  %time = alloca [2 x i64], align 8
  %rc = call i32 @clock_gettime(i32 COARSE, ptr %time)
  %now = load i64, ptr %time
  %lastp = getelementptr i64, ptr %word, i64 -1
  %last = load i64, ptr %lastp
  %same = icmp eq i64 %now, %last
  br i1 %same, label %out, label %look
look:
  store i64 %now, ptr %lastp
  %state = call i32 @PyGILState_Ensure()
  %raised = call i32 @PyErr_CheckSignals()
  %none = icmp eq i32 %raised, 0
  br i1 %none, label %release, label %keep
keep:
  call void @raised(ptr %word, ptr %stop)
  br label %release
release:
  call void @PyGILState_Release(i32 %state)
  br label %out
out:
  ret void
}

define void @tfn_walk(ptr %table, i64 %words, ptr %bases, ptr %scratch, ptr %pool, ptr %parallel) {
entry:
  %many = icmp ne ptr %pool, null
  %end = getelementptr i64, ptr %table, i64 %words
  %stop = getelementptr i64, ptr %scratch, i64 -1
  %word = getelementptr i64, ptr %scratch, i64 -2
  br label %head
head:
  %p = phi ptr [%table, %entry], [%p1, %called], [%after, %jump], [%after, %compare], [%to, %taken],
             [%to, %polled]
  %more = icmp ult ptr %p, %end
  br i1 %more, label %look, label %done
look:
  %fn = load ptr, ptr %p
  %is_jump = icmp eq ptr %fn, null
  br i1 %is_jump, label %condition, label %step
condition:
  %j1 = getelementptr i64, ptr %p, i64 1
  %target = load i64, ptr %j1
  %to = getelementptr i64, ptr %table, i64 %target
  %j2 = getelementptr i64, ptr %p, i64 2
  %width = load i64, ptr %j2
  %j3 = getelementptr i64, ptr %p, i64 3
  %unless = load i64, ptr %j3
  %j4 = getelementptr i64, ptr %p, i64 4
  %jbase = load i64, ptr %j4
  %j5 = getelementptr i64, ptr %p, i64 5
  %joffset = load i64, ptr %j5
  %after = getelementptr i64, ptr %p, i64 6
  %jbasep = getelementptr ptr, ptr %bases, i64 %jbase
  %jmem = load ptr, ptr %jbasep
  %cell = getelementptr i8, ptr %jmem, i64 %joffset
  switch i64 %width, label %taken [i64 1, label %jump i64 4, label %compare]
jump:
  %v8 = load i8, ptr %cell
  %w8 = zext i8 %v8 to i64
  %same8 = icmp eq i64 %w8, %unless
  br i1 %same8, label %head, label %taken
compare:
  %v32 = load i32, ptr %cell
  %w32 = sext i32 %v32 to i64
  %same32 = icmp eq i64 %w32, %unless
  br i1 %same32, label %head, label %taken
taken:
  %listens = load i64, ptr %word
  %deaf = icmp eq i64 %listens, 0
  %ahead = icmp ugt ptr %to, %p
  %quiet = or i1 %deaf, %ahead
  br i1 %quiet, label %head, label %poll
poll:
  call void @signals(ptr %word, ptr %stop)
  %ended = load i64, ptr %stop
  %on = icmp eq i64 %ended, 0
  br i1 %on, label %polled, label %done
polled:
  br label %head
step:
  %nbp = getelementptr i64, ptr %p, i64 1
  %nb = load i64, ptr %nbp
  %nep = getelementptr i64, ptr %p, i64 2
  %ne = load i64, ptr %nep
  %scp = getelementptr i64, ptr %p, i64 3
  %sc = load ptr, ptr %scp
  %tap = getelementptr i64, ptr %p, i64 4
  %tasks = load i64, ptr %tap
  %chp = getelementptr i64, ptr %p, i64 5
  %chunk = load i64, ptr %chp
  %php = getelementptr i64, ptr %p, i64 6
  %phase = load i64, ptr %php
  %pairs = getelementptr i64, ptr %p, i64 7
  br label %bhead
bhead:
  %k = phi i64 [0, %step], [%k1, %bbody]
  %bmore = icmp slt i64 %k, %nb
  br i1 %bmore, label %bbody, label %call
bbody:
  %k2 = shl i64 %k, 1
  %bp = getelementptr i64, ptr %pairs, i64 %k2
  %base = load i64, ptr %bp
  %op = getelementptr i64, ptr %bp, i64 1
  %off = load i64, ptr %op
  %basep = getelementptr ptr, ptr %bases, i64 %base
  %mem = load ptr, ptr %basep
  %addr = getelementptr i8, ptr %mem, i64 %off
  %slot = getelementptr ptr, ptr %scratch, i64 %k
  store ptr %addr, ptr %slot
  %k1 = add i64 %k, 1
  br label %bhead
call:
  %nb2 = shl i64 %nb, 1
  %ext = getelementptr i64, ptr %pairs, i64 %nb2
  %divided = icmp ne i64 %chunk, 0
  %shared = and i1 %divided, %many
  br i1 %shared, label %share, label %alone
share:
  call void %parallel(ptr %pool, ptr %fn, ptr %scratch, ptr %ext, ptr %sc, i64 %tasks, i64 %chunk,
                      i64 %phase)
  br label %called
alone:
  call void %fn(ptr %scratch, ptr %ext, ptr %sc, i64 0, i64 %tasks, i64 0, i64 %phase)
  br label %called
called:
  %p1 = getelementptr i64, ptr %ext, i64 %ne
  %stopped = load i64, ptr %stop
  %go = icmp eq i64 %stopped, 0
  br i1 %go, label %head, label %done
done:
  ret void
}
""".replace("COARSE", str(getattr(time, "CLOCK_MONOTONIC_COARSE", time.CLOCK_MONOTONIC)))

# A record: the step's place in the table, and its start and end in nanoseconds. Records beyond the
# capacity are counted and not kept.
_TIMED = """
@log = internal global ptr null
define void @tfn_record(ptr %log) {
  store atomic ptr %log, ptr @log seq_cst, align 8
  ret void
}
define internal i64 @now() {
  %t = alloca [2 x i64], align 8
  %rc = call i32 @clock_gettime(i32 CLOCK, ptr %t)
  %s = load i64, ptr %t
  %np = getelementptr i64, ptr %t, i64 1
  %n = load i64, ptr %np
  %ns = mul i64 %s, 1000000000
  %sum = add i64 %ns, %n
  ret i64 %sum
}
define internal void @keep(ptr %step, i64 %start) {
  %end = call i64 @now()
  %log = load atomic ptr, ptr @log seq_cst, align 8
  %on = icmp ne ptr %log, null
  br i1 %on, label %claim, label %done
claim:
  %i = atomicrmw add ptr %log, i64 1 seq_cst
  %cp = getelementptr i64, ptr %log, i64 1
  %capacity = load i64, ptr %cp
  %fits = icmp slt i64 %i, %capacity
  br i1 %fits, label %write, label %done
write:
  %at = mul i64 %i, 3
  %first = add i64 %at, 3
  %r0 = getelementptr i64, ptr %log, i64 %first
  store ptr %step, ptr %r0
  %r1 = getelementptr i64, ptr %r0, i64 1
  store i64 %start, ptr %r1
  %r2 = getelementptr i64, ptr %r0, i64 2
  store i64 %end, ptr %r2
  br label %done
done:
  ret void
}
""".replace("CLOCK", str(time.CLOCK_MONOTONIC))
_TIMED += _TEXT.replace("@tfn_walk(", "@tfn_walk_timed(").replace(
    "call:\n", "call:\n  %start = call i64 @now()\n").replace(
    "called:\n", "called:\n  call void @keep(ptr %p, i64 %start)\n")

_COPY = """
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
define void @tfn_copy(ptr %buffers, ptr %extents, ptr %scalars, i64 %first, i64 %last) {
  %from = load ptr, ptr %buffers
  %top = getelementptr ptr, ptr %buffers, i64 1
  %to = load ptr, ptr %top
  %same = icmp eq ptr %from, %to
  br i1 %same, label %done, label %move
move:
  %a = getelementptr i8, ptr %from, i64 %first
  %b = getelementptr i8, ptr %to, i64 %first
  %n = sub i64 %last, %first
  call void @llvm.memmove.p0.p0.i64(ptr %b, ptr %a, i64 %n, i1 false)
  br label %done
done:
  ret void
}
"""

# The scalars are a Python function, called with the address of the buffers: the words of a failure are
# before it. An exception may come at any moment, so it is machine code that takes it.
_HOST = _RAISED + """
declare ptr @PyLong_FromVoidPtr(ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
define void @tfn_host(ptr %buffers, ptr %extents, ptr %function) {
entry:
  %stop = getelementptr i64, ptr %buffers, i64 -1
  %word = getelementptr i64, ptr %buffers, i64 -2
  %state = call i32 @PyGILState_Ensure()
  %number = call ptr @PyLong_FromVoidPtr(ptr %buffers)
  %nothing = icmp eq ptr %number, null
  br i1 %nothing, label %failed, label %run
run:
  %result = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %function, ptr %number, ptr null)
  call void @Py_DecRef(ptr %number)
  %none = icmp eq ptr %result, null
  br i1 %none, label %failed, label %fine
fine:
  call void @Py_DecRef(ptr %result)
  br label %release
failed:
  call void @raised(ptr %word, ptr %stop)
  br label %release
release:
  call void @PyGILState_Release(i32 %state)
  ret void
}
"""

# extents: element count, datatype, operation, communicator, function address. Handles are passed as
# i64 whatever their width: an i32 parameter takes the low half of the register.
_COLLECTIVE = """
define void @%s(ptr %%buffers, ptr %%extents, ptr %%scalars) {
  %%from = load ptr, ptr %%buffers
  %%top = getelementptr ptr, ptr %%buffers, i64 1
  %%to = load ptr, ptr %%top
  %%n64 = load i64, ptr %%extents
  %%n = trunc i64 %%n64 to i32
  %%p1 = getelementptr i64, ptr %%extents, i64 1
  %%type = load i64, ptr %%p1
  %%p2 = getelementptr i64, ptr %%extents, i64 2
  %%op = load i64, ptr %%p2
  %%p3 = getelementptr i64, ptr %%extents, i64 3
  %%comm = load i64, ptr %%p3
  %%p4 = getelementptr i64, ptr %%extents, i64 4
  %%fn = load ptr, ptr %%p4
  %%rc = call i32 %%fn(%s)
  ret void
}
"""

COLLECTIVES = {
    "stablehlo.all_reduce": (
        "tfn_all_reduce", "ptr %from, ptr %to, i32 %n, i64 %type, i64 %op, i64 %comm"),
    "stablehlo.all_gather": (
        "tfn_all_gather",
        "ptr %from, i32 %n, i64 %type, ptr %to, i32 %n, i64 %type, i64 %comm"),
}
"""Op -> (function, arguments of the call): the signatures of MPI_Allreduce and MPI_Allgather."""

_LOADER = Loader()


@once
def _address(name: str) -> int:
    texts = {"tfn_walk": _TEXT, "tfn_copy": _COPY, "tfn_host": _HOST}
    texts |= {function: _COLLECTIVE % (function, arguments)
              for function, arguments in COLLECTIVES.values()}
    text = texts[name]
    return _LOADER.load(name, cached_object(text))


def record_in(log: np.ndarray | None) -> None:
    """Let timed walkers write to an i64 array (count, capacity, a spare word, then records); None
    stops."""
    write = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_timed()[1])
    write(None if log is None else log.ctypes.data)


@once
def _timed() -> tuple[int, int]:
    """The addresses of the timed walker and of the function that says where it writes."""
    walk, record = _LOADER.load_all(["tfn_walk_timed", "tfn_record"],
                                    cached_object(_TIMED))
    return walk, record


def walker():
    """`walk(table, words, bases, scratch, pool, address of tfn_parallel)`; releases the GIL."""
    return _walker(RECORDS.active)


@once
def _walker(timed: bool):
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 4)
    return signature(_walk_address(timed))


def address() -> int:
    """The address of the walker that `walker` gives."""
    return _walk_address(RECORDS.active)


def _walk_address(timed: bool) -> int:
    return _timed()[0] if timed else _address("tfn_walk")


def copy_address() -> int:
    """Copies bytes, one a task, from the first buffer to the second."""
    return _address("tfn_copy")


def host_address() -> int:
    """Calls the Python function whose address is in place of the scalars (`host.py`)."""
    return _address("tfn_host")


def collective_address(op: str) -> int:
    """Calls the communicator's function for the collective `op`."""
    return _address(COLLECTIVES[op][0])
