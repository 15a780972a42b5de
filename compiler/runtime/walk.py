"""The walker: a small compiled loop that runs a plan.

A plan is an int64 table. Per step: function address, number of buffers, number of extents, address
of the scalars, then (base, offset) per buffer, then the extents. `bases` are the addresses of the
arena, constants, arguments and results. Copies and collectives are functions of the same signature.
"""

from __future__ import annotations

import ctypes
import functools

from ..codegen.native import Loader, compile_object
from ..codegen.target import Target

_TEXT = """
define void @tfn_walk(ptr %table, i64 %steps, ptr %bases, ptr %scratch) {
entry:
  br label %head
head:
  %s = phi i64 [0, %entry], [%s1, %call]
  %p = phi ptr [%table, %entry], [%p1, %call]
  %more = icmp slt i64 %s, %steps
  br i1 %more, label %step, label %done
step:
  %fn = load ptr, ptr %p
  %nbp = getelementptr i64, ptr %p, i64 1
  %nb = load i64, ptr %nbp
  %nep = getelementptr i64, ptr %p, i64 2
  %ne = load i64, ptr %nep
  %scp = getelementptr i64, ptr %p, i64 3
  %sc = load ptr, ptr %scp
  %pairs = getelementptr i64, ptr %p, i64 4
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
  call void %fn(ptr %scratch, ptr %ext, ptr %sc)
  %p1 = getelementptr i64, ptr %ext, i64 %ne
  %s1 = add i64 %s, 1
  br label %head
done:
  ret void
}
"""

_COPY = """
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
define void @tfn_copy(ptr %buffers, ptr %extents, ptr %scalars) {
  %from = load ptr, ptr %buffers
  %top = getelementptr ptr, ptr %buffers, i64 1
  %to = load ptr, ptr %top
  %n = load i64, ptr %extents
  call void @llvm.memmove.p0.p0.i64(ptr %to, ptr %from, i64 %n, i1 false)
  ret void
}
"""

# extents: element count, datatype, operation, communicator, function address. Handles are passed as
# i64 whatever their width: an i32 parameter takes the low half of the register.
_COLLECTIVE = """
define void @tfn_collective(ptr %buffers, ptr %extents, ptr %scalars) {
  %from = load ptr, ptr %buffers
  %top = getelementptr ptr, ptr %buffers, i64 1
  %to = load ptr, ptr %top
  %n64 = load i64, ptr %extents
  %n = trunc i64 %n64 to i32
  %p1 = getelementptr i64, ptr %extents, i64 1
  %type = load i64, ptr %p1
  %p2 = getelementptr i64, ptr %extents, i64 2
  %op = load i64, ptr %p2
  %p3 = getelementptr i64, ptr %extents, i64 3
  %comm = load i64, ptr %p3
  %p4 = getelementptr i64, ptr %extents, i64 4
  %fn = load ptr, ptr %p4
  %rc = call i32 %fn(ptr %from, ptr %to, i32 %n, i64 %type, i64 %op, i64 %comm)
  ret void
}
"""

_LOADER = Loader()


@functools.cache
def _address(name: str) -> int:
    text = {"tfn_walk": _TEXT, "tfn_copy": _COPY, "tfn_collective": _COLLECTIVE}[name]
    return _LOADER.load(name, compile_object(text, Target.host()))


@functools.cache
def walker():
    """`walk(table address, steps, bases address, scratch address)`; releases the GIL."""
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p,
                                 ctypes.c_void_p)
    return signature(_address("tfn_walk"))


def copy_address() -> int:
    """Copies `extents[0]` bytes from the first buffer to the second."""
    return _address("tfn_copy")


def collective_address() -> int:
    """Calls `int fn(send, recv, int count, datatype, op, comm)`, the shape of MPI_Allreduce."""
    return _address("tfn_collective")
